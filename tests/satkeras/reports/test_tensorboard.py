"""The callback's event files, read back."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import TensorBoardQuantization, integer_weights, learned_variables, quantize_model

KERNELS = {f"quant_{name}/integers" for name in ("stem", "conv", "depthwise", "head", "logits")}


def logged(folder) -> dict[str, dict[int, np.ndarray]]:
    """What the event files of a folder hold: values by tag and step."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
                kind = "histograms" if value.tag.endswith("/integers") else "scalars"
                assert value.metadata.plugin_data.plugin_name == kind
    return found


def fit(model, images, callback, epochs=1, eagerly=True):
    model.compile(tf_keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=eagerly)
    model.fit(*images, batch_size=8, epochs=epochs, verbose=0, callbacks=[callback])
    return model


@pytest.mark.parametrize("eagerly", [False, True], ids=["graph", "eager"])
def test_what_is_logged(eagerly, quantized, images, tmp_path):
    model = fit(quantized(), images, TensorBoardQuantization(tmp_path, images[0]), eagerly=eagerly)
    found = logged(tmp_path)
    tensors = {layer.name for layer in model.layers if layer.name.endswith(("_output", "_input"))}
    assert len(tensors) == 9
    logs = {f"{name}/{log}" for name in tensors for log in ("alpha", "clipped_share", "integers")}
    assert set(found) == KERNELS | logs
    assert all(set(steps) == {0} for steps in found.values())
    for variable in model.variables:
        if "alpha" in variable.name:
            assert found[f"{variable.name.split('/')[0]}/alpha"][0] == pytest.approx(variable.numpy(), rel=1e-6)


def test_learned_numbers_are_logged_by_their_role(residual_model, images, tmp_path):
    model = quantize_model(residual_model, "qn", calibration_data=images[0])
    fit(model, images, TensorBoardQuantization(tmp_path))
    found = logged(tmp_path)
    for role in ("step", "scale"):
        tags = {tag.removesuffix(f"/{role}") for tag in found if tag.endswith(f"/{role}")}
        learned = {variable.name.split("/")[0]: variable for variable in learned_variables(model, role)}
        assert tags == set(learned) != set()
        for layer, variable in learned.items():
            assert found[f"{layer}/{role}"][0] == variable.numpy()
    assert not any(tag.endswith(("/threshold", "/state")) for tag in found)


def test_histograms_of_weights_have_a_bucket_for_each_level(quantized, images, tmp_path):
    model = fit(quantized(), images, TensorBoardQuantization(tmp_path))
    found = logged(tmp_path)
    assert set(found) == KERNELS | {tag for tag in found if tag.endswith("/alpha")}
    for name, weight in integer_weights(model).items():
        left, right, counts = found[f"{name}/integers"][0].T
        levels = np.arange(-15, 16, 2) if weight.num_bits == 4 else np.arange(-127, 128)
        np.testing.assert_array_equal((left + right) / 2, levels)
        np.testing.assert_array_equal(left[1:], right[:-1])
        np.testing.assert_array_equal(counts, [(weight.integers == level).sum() for level in levels])


def test_clipped_shares_and_activations(images, tmp_path):
    """A first layer that passes its input on, so that it is known what the second one's clip cuts off."""
    identity = tf_keras.initializers.Constant(np.eye(3)[None, None])
    stack = [layers.Conv2D(3, 1, kernel_initializer=identity, name="same"), layers.ReLU(name="relu"), layers.Flatten()]
    model = tf_keras.Sequential([layers.InputLayer((8, 8, 3), name="image"), *stack, layers.Dense(5, name="logits")])
    quantized = quantize_model(model, "int8", activation_bits=8, overrides={"logits": "pact"})
    (alpha,) = (variable for variable in quantized.variables if "alpha" in variable.name)
    alpha.assign(101.0)  # no value is a tie
    x = images[0]
    quantized.compile(tf_keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    quantized.fit(x, np.zeros((16, 5)), verbose=0, callbacks=[TensorBoardQuantization(tmp_path, x)])
    found = logged(tmp_path)
    assert found["quant_image_output/clipped_share"][0] == 0
    image = found["quant_image_output/integers"][0]
    np.testing.assert_array_equal(image[:, 2], np.bincount(x.astype(int).ravel(), minlength=256))
    assert found["quant_relu_output/alpha"][0] == 101
    assert found["quant_relu_output/clipped_share"][0] == pytest.approx((x > 101).mean(), abs=1e-6)
    left, right, counts = found["quant_relu_output/integers"][0].T
    np.testing.assert_array_equal(counts, np.bincount(np.rint(np.minimum(x, 101) / 101 * 15).astype(int).ravel()))
    np.testing.assert_array_equal((left + right) / 2, np.arange(16))


def test_every_other_epoch_and_nothing_between_batches(quantized, images, tmp_path):
    callback = TensorBoardQuantization(tmp_path, images[0], frequency=2)
    fit(quantized(), images, callback, epochs=4)
    assert {step for steps in logged(tmp_path).values() for step in steps} == {0, 2}
    assert not callback._implements_train_batch_hooks()


def test_no_writer_is_left_open(quantized, images, tmp_path):
    writers = []
    model, callback = quantized(), TensorBoardQuantization(tmp_path)
    look = tf_keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: writers.append(callback._writer))
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    for _ in range(2):
        model.fit(*images, verbose=0, callbacks=[callback, look])
    assert callback._writer is None
    assert tf.summary.experimental.get_step() is None
    for writer in writers:
        with pytest.raises(RuntimeError, match="closed"), writer.as_default(step=0):
            pass

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, verbose=0, callbacks=[callback, tf_keras.callbacks.LambdaCallback(on_epoch_end=fail)])
    left = callback._writer
    model.fit(*images, verbose=0, callbacks=[callback])
    with pytest.raises(RuntimeError, match="closed"), left.as_default(step=0):
        pass


def test_what_has_no_integers_is_left_out(quantized, images, tmp_path):
    model = quantized(weight_bits=None, activation_bits=None)
    fit(model, images, TensorBoardQuantization(tmp_path, images[0]))
    assert logged(tmp_path) == {}


def test_a_training_that_diverges_is_logged_on(quantized, images, tmp_path):
    model = quantized()
    for variable in model.trainable_variables:
        if "head" in variable.name or "alpha" in variable.name:
            variable.assign(np.full(variable.shape, np.nan))
    fit(model, images, TensorBoardQuantization(tmp_path, images[0]))
    found = logged(tmp_path)
    assert np.isnan(found["quant_stem_relu_output/alpha"][0])
    assert "quant_head/integers" not in found


def test_several_inputs(tmp_path):
    inputs = [tf_keras.Input((4,), name=name) for name in ("left", "right")]
    model = quantize_model(tf_keras.Model(inputs, layers.Dense(2, name="logits")(layers.Add(name="add")(inputs))))
    x = [np.full((8, 4), value, np.float32) for value in (3, 5)]
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, np.zeros((8, 2)), verbose=0, callbacks=[TensorBoardQuantization(tmp_path, x)])
    assert logged(tmp_path)["quant_right_output/integers"][0][5, 2] == 32


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frequency": 0}, ValueError, "frequency must be a number of epochs, 1 or more. Received: frequency=0"),
        ({"frequency": True}, ValueError, "Received: frequency=True"),
        ({"frequency": "epoch"}, ValueError, "Received: frequency='epoch'"),
        ({"data": tf.data.Dataset.range(3)}, TypeError, "data must be one batch of inputs. Received: a dataset"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        TensorBoardQuantization(tmp_path, **options)


def test_what_is_refused_before_the_training(residual_model, quantized, images, tmp_path):
    model = quantized()
    with pytest.raises(
        ValueError, match="^TensorBoardQuantization needs a model that satkeras.quantize_model returned"
    ):
        fit(residual_model, images, TensorBoardQuantization(tmp_path))
    for data in (images[0][0], images[0][:, :4], [images[0]] * 2, images[0][:0]):
        with pytest.raises(
            ValueError, match=r"data must be a batch of the model's inputs, of shapes \[\('n', 8, 8, 3\)\]"
        ):
            fit(model, images, TensorBoardQuantization(tmp_path, data))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="log_dir must be a folder that can be created and written. Received: .*file"):
        fit(model, images, TensorBoardQuantization(tmp_path / "file"))
