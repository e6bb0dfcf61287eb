"""The C++ source beside a file, the arena, and TFLite Micro itself, which computes the twin's integers."""

import re
import subprocess

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from benchmarks import judges
from benchmarks.judges import environments
from tflite_export.devices import micro
from tflite_export.file.graph import stored_operators
from tflite_export.file.reader import read_model

LABELS = [f'class "{number}"' for number in range(10)]


@pytest.fixture(scope="module")
def written(residual, tmp_path_factory):
    path = tmp_path_factory.mktemp("micro") / "my-net.tflite"
    report = tflite_export.export_tflite(residual, path, target="micro", labels=LABELS, verify_data=False)
    return path, report


def test_the_source_holds_the_file_byte_for_byte(written):
    path, _ = written
    text = path.with_suffix(".cc").read_text()
    array = text[text.index("{\n    0x") :]
    assert bytes(int(byte, 16) for byte in re.findall(r"0x(\w\w)", array)) == path.read_bytes()
    assert "alignas(16) const unsigned char kModel[kModelBytes]" in text
    assert '#include "my-net.h"' in text


def test_the_header_registers_each_operator_once(written):
    path, _ = written
    text = path.with_suffix(".h").read_text()
    calls = re.findall(r"resolver\.Add(\w+)\(\)", text)
    operators = {one.builtin for one in stored_operators(read_model(path.read_bytes()))}
    assert len(calls) == len(set(calls)) == len(operators)
    assert {"Conv2D", "DepthwiseConv2D", "MaxPool2D", "AveragePool2D", "FullyConnected"} <= set(calls)
    assert f"MicroMutableOpResolver<{len(calls)}>" in text
    assert f"kModelBytes = {path.stat().st_size};" in text
    assert "namespace my_net {" in text
    assert '"class \\"9\\"",' in text


def test_several_outputs_have_their_labels_each(trained, tmp_path):
    image = layers.Input((6, 6, 3))
    x = layers.Flatten()(layers.Conv2D(2, 3)(image))
    model = trained(tf_keras.Model(image, [layers.Dense(2, name="kind")(x), layers.Dense(3, name="colour")(x)]))
    labels = {"kind": ["cat", "dog"], "colour": ["red", "green", "blue"]}
    tflite_export.export_tflite(model, tmp_path / "net.tflite", target="micro", labels=labels, verify_data=False)
    text = (tmp_path / "net.h").read_text()
    assert 'kLabels_kind[] = {\n    "cat",\n    "dog",\n};' in text
    assert 'kLabels_colour[] = {\n    "red",' in text


def test_source_and_header_compile(written, tmp_path):
    """With a stand-in for the library's header, which is not at hand: names and syntax are C++."""
    path, _ = written
    stand_in = tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    stand_in.parent.mkdir(parents=True)
    calls = re.findall(r"resolver\.(Add\w+)\(\)", path.with_suffix(".h").read_text())
    methods = "".join(f"TfLiteStatus {call}() {{ return kTfLiteOk; }}\n" for call in calls)
    stand_in.write_text(
        "enum TfLiteStatus { kTfLiteOk };\n#define TF_LITE_ENSURE_STATUS(a) if ((a) != kTfLiteOk) return kTfLiteOk\n"
        f"namespace tflite {{ template <unsigned n> struct MicroMutableOpResolver {{ {methods} }}; }}\n"
    )
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Werror",
        f"-I{tmp_path}",
        "-c",
        path.with_suffix(".cc"),
        "-o",
        "/dev/null",
    ]
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_the_report_says_what_was_estimated(written):
    _, report = written
    assert any(
        re.match(r"arena [\d,]+ bytes, (estimated: tflite-micro|measured)", note) for note in report.target_notes
    )
    assert "my-net.cc and my-net.h beside the file" in str(report)


@pytest.mark.parametrize(
    ("name", "expected"), [("my-net", "my_net"), ("1st", "model_1st"), ("ä b", "__b"), ("", "model_")]
)
def test_names_become_identifiers(name, expected):
    assert micro.identifier(name) == expected


def test_an_operator_that_it_has_not_is_refused(residual, tmp_path, monkeypatch):
    monkeypatch.setattr(micro, "OPERATORS", micro.OPERATORS - {"MAX_POOL_2D"})
    with pytest.raises(tflite_export.ExportError, match="max_pool: TFLite Micro has no MAX_POOL_2D"):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="micro", verify_data=False)
    assert not list(tmp_path.iterdir())


def test_a_header_that_cannot_be_written_leaves_nothing(residual, tmp_path):
    (tmp_path / "net.h").mkdir()
    with pytest.raises(ValueError, match="Received a folder: .*net.h"):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="micro", verify_data=False)
    assert [path.name for path in tmp_path.iterdir()] == ["net.h"]


def test_a_python_without_the_package_is_said(written):
    with pytest.raises(RuntimeError, match="TFLite Micro must take the file .* Received(.|\n)*tflite_micro"):
        micro.measured_arena(written[0])


def wide():
    """Kernels large enough that tables pay."""
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(32, 3, activation="relu")(layers.DepthwiseConv2D(3, padding="same", activation="relu")(x))
    y = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return tf_keras.Model(image, layers.Dense(10)(layers.Dense(64, activation="relu")(x)))


@pytest.mark.judges
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_tflite_micro_computes_the_twins_integers_compressed_or_not(bits, need, trained, tmp_path):
    need("tflm")
    model = trained(wide(), weight_bits=bits, activation_bits=max(bits, 4))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    expected = tflite_export.integer_model(model, kernels="tflm").predict(pixels, verbose=0)
    assert len(np.unique(expected)) > 10
    sizes = {}
    for compress in ("none", "lut"):
        path = tmp_path / f"{compress}.tflite"
        tflite_export.export_tflite(model, path, target="micro", compress=compress)
        (found,) = judges.run("tflm", path.read_bytes(), [(pixels.astype(np.int16) - 128).astype(np.int8)])
        np.testing.assert_array_equal(found, expected)
        operators = list(stored_operators(read_model(path.read_bytes())))
        measured = micro.measured_arena(path, str(environments.python("tflm")))
        assert measured <= micro.arena_estimate(operators) <= 2 * measured
        sizes[compress] = path.stat().st_size
    assert sizes["lut"] / sizes["none"] < {8: 1.01, 4: 0.82, 2: 0.66}[bits]
