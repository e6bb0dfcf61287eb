"""Tests of files of TensorFlow's converter made portable: every operator's integers, on all of LiteRT's kernels."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from benchmarks.portability import exposed
from tflite_export.__main__ import main, parser
from tflite_export.errors import ExportError
from tflite_export.file.reader import read_model
from tflite_export.foreign.graph import FileGraph
from tflite_export.portable_files import portable_tflite, rewritten
from tflite_export.verification.interpreter import RESOLVERS, open_interpreter, run


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.float32)


def converted(model: tf_keras.Model) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images(20))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
    return bytes(converter.convert())


def network(end=lambda x: x) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3))
    stream = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    x = layers.DepthwiseConv2D(3, padding="same")(stream)
    x = layers.ReLU(6.0)(layers.Conv2D(6, 1, use_bias=False)(x))
    x = layers.Add()([stream, x])
    x = layers.ZeroPadding2D(1)(layers.MaxPooling2D(2)(x))
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(image, end(x))


def integers(content: bytes, kernels: str, count: int = 60) -> list[np.ndarray]:
    return run(open_interpreter(exposed(content), kernels), images(count).astype(np.uint8))


def differing(content: bytes) -> int:
    """Integers of any operator on which LiteRT's kernels part."""
    first, *others = (integers(content, kernels) for kernels in RESOLVERS)
    return sum(int(np.count_nonzero(a != b)) for other in others for a, b in zip(first, other, strict=True))


def test_all_kernels_give_the_same_integers():
    original = converted(network())
    content, found = rewritten(original)
    assert found.whole, found.problems
    assert differing(original) > 0
    assert differing(content) == 0
    assert found.channels == 6 + 6 + 6 + 4 + 4 + 5  # a mean on a grid of its own is a sum of ones
    assert found.as_they_were + found.by_bias + found.moved == found.channels
    answers = [run(open_interpreter(file), images(60).astype(np.uint8))[0] for file in (original, content)]
    assert np.abs(answers[0].astype(int) - answers[1]).mean() < 2


def test_what_has_no_rule_stays_and_is_named(tmp_path):
    source = tmp_path / "in.tflite"
    source.write_bytes(converted(network(layers.Softmax())))
    found = portable_tflite(source, tmp_path / "out.tflite")
    ((_, reason),) = found.problems
    assert reason == "SOFTMAX has no rule here, and runtimes may compute it in several ways"
    assert "not portable" in str(found)
    assert len(integers((tmp_path / "out.tflite").read_bytes(), "xnnpack", 2)) > 5


def test_a_tensor_that_shares_its_scale_keeps_it():
    image = layers.Input((8, 8, 3))
    x, y = (layers.Conv2D(4, 3, padding="same", name=name)(image) for name in ("left", "right"))
    x = layers.Concatenate()([layers.Add()([x, y]), y])
    content, found = rewritten(converted(tf_keras.Model(image, layers.Conv2D(2, 1)(x))))
    assert all("pairs of its inputs" in reason or "another grid" in reason for _, reason in found.problems)
    integers(content, "xnnpack", 2)  # loads


def test_what_is_portable_is_rewritten_no_more():
    content, first = rewritten(converted(network()))
    again, second = rewritten(content)
    assert second.moved == second.by_bias == second.made_even == 0
    assert second.sums == first.sums
    for one, other in zip(integers(content, "xnnpack", 5), integers(again, "xnnpack", 5), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_left_that_no_operator_reads():
    original = converted(network())
    content, _ = rewritten(original)
    graph = read_model(content).subgraphs[0]
    used = {int(i) for operator in graph.operators for i in (*operator.inputs, *operator.outputs)}
    assert used - {-1} == set(range(len(graph.tensors)))
    assert len(content) < 1.1 * len(original) + 4096
    assert FileGraph(read_model(content)).builtin(graph.operators[1]) == "CONV_2D"


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "in.tflite").write_bytes(b"nothing of this kind")
    with pytest.raises(ExportError, match="cannot be read"):
        portable_tflite(tmp_path / "in.tflite", tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


def test_the_command_line(tmp_path, capsys):
    source, path = tmp_path / "in.tflite", tmp_path / "out.tflite"
    source.write_bytes(converted(network()))
    np.save(tmp_path / "images.npy", images(10).astype(np.uint8))
    arguments = parser().parse_args(["portable", str(source), str(path), f"--images={tmp_path / 'images.npy'}"])
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "portability: the same integers on every runtime" in printed
    assert "of 10 images" in printed
    assert differing(path.read_bytes()) == 0
