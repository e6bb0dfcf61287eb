"""Models that are saved, loaded and trained on: in every format, for every scheme."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export

# What a new process does with a saved model: predict, train on, export.
GO_ON = """
import sys
import numpy as np
import satkeras, tflite_export

path, folder = sys.argv[1:]
given = np.load(folder + "/given.npz")
model = satkeras.load_model(path)
tflite_export.export_tflite(model, folder + "/loaded.tflite")
predicted = model.predict(given["images"], verbose=0)
model.fit(given["images"], given["labels"], batch_size=16, epochs=1, shuffle=False, verbose=0)
np.savez(folder + "/loaded.npz", predicted, *model.get_weights(), *model.optimizer.variables)
"""


FORMATS = ("model.keras", "model.h5", "folder")
# These two have every kind of quantizer variable: learned, averaged, constant, integer. The others run at night.
QUICK = ("sat", "qn")
EVERY_SCHEME = [
    scheme if scheme in QUICK else pytest.param(scheme, marks=pytest.mark.slow) for scheme in sorted(satkeras.SCHEMES)
]


def new_float_model():
    """A convolution with batch norm and one without, and a dense layer."""
    image = tf_keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(image))
    x = layers.DepthwiseConv2D(3, activation="relu")(layers.ReLU(6.0)(x))
    return tf_keras.Model(image, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))


def new_trained_model(scheme, images):
    """A model of a scheme that was trained for two steps, momentum and all."""
    model = satkeras.quantize_model(new_float_model(), scheme, calibration_data=images[0])
    model.compile(tf_keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    train_on(model, images)
    return model


def train_on(model, images):
    model.fit(*images, batch_size=16, epochs=2, shuffle=False, verbose=0)


@pytest.fixture
def float_model():
    return new_float_model()


@pytest.fixture
def trained(images):
    """A function for a model of a scheme that was trained for two steps, momentum and all."""
    return lambda scheme: new_trained_model(scheme, images)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A trained model in every format, and what it did before and after it went on to train."""

    folder: pathlib.Path
    names: list
    predictions: np.ndarray
    exported: bytes
    trained_on: list  # its weights after two further steps
    trained_anew: list  # the same with an optimizer that starts anew


@pytest.fixture(scope="module", params=EVERY_SCHEME)
def saved(request, session_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = new_trained_model(request.param, session_images)
    for name in FORMATS:
        model.save(folder / name)
    predictions, weights = model.predict(session_images[0], verbose=0), model.get_weights()
    tflite_export.export_tflite(model, folder / "saved.tflite")
    train_on(model, session_images)
    trained_on = model.get_weights()
    model.set_weights(weights)
    compile_anew(model)
    train_on(model, session_images)
    exported = (folder / "saved.tflite").read_bytes()
    return Saved(folder, [x.name for x in model.variables], predictions, exported, trained_on, model.get_weights())


def compile_anew(model):
    model.compile(tf_keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", FORMATS)
def test_a_loaded_model_is_the_saved_one(name, saved, images, tmp_path):
    loaded = satkeras.load_model(saved.folder / name)
    np.testing.assert_array_equal(loaded.predict(images[0], verbose=0), saved.predictions)
    tflite_export.export_tflite(loaded, tmp_path / "loaded.tflite")
    assert (tmp_path / "loaded.tflite").read_bytes() == saved.exported
    expected = saved.trained_on
    if name == "folder":  # Keras keeps no optimizer slots in a SavedModel, a float model's neither.
        compile_anew(loaded)
        expected = saved.trained_anew
    train_on(loaded, images)
    for now, then in zip(loaded.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(now, then)
    assert [variable.name for variable in loaded.variables] == saved.names
    loaded.save(tmp_path / "again.h5")


@pytest.mark.parametrize("scheme", EVERY_SCHEME)
def test_weights_and_checkpoints_restore_a_model(scheme, trained, float_model, images, tmp_path):
    model = trained(scheme)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    model.save_weights(tmp_path / "weights.h5")
    model.save_weights(str(tmp_path / "weights"))
    expected = model.predict(images[0], verbose=0)
    restores = [
        lambda fresh: tf.train.Checkpoint(model=fresh).read(str(tmp_path / "checkpoint")).expect_partial(),
        lambda fresh: fresh.load_weights(tmp_path / "weights.h5"),
        lambda fresh: fresh.load_weights(str(tmp_path / "weights")),
        lambda fresh: fresh.set_weights(model.get_weights()),
    ]
    fresh = satkeras.quantize_model(float_model, scheme)
    first = fresh.get_weights()
    assert any(not np.array_equal(*pair) for pair in zip(first, model.get_weights(), strict=True))
    for restore in restores:
        fresh.set_weights(first)
        restore(fresh)
        np.testing.assert_array_equal(fresh.predict(images[0], verbose=0), expected)


def test_clones_compute_the_same(trained, images):
    model = trained("sat")
    clone = tf_keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert not {id(variable) for variable in clone.weights} & {id(variable) for variable in model.weights}
    np.testing.assert_array_equal(clone.predict(images[0], verbose=0), model.predict(images[0], verbose=0))


def test_a_new_process_goes_on_where_the_old_one_stopped(trained, images, tmp_path):
    model = trained("sat")
    np.savez(tmp_path / "given.npz", images=images[0], labels=images[1])
    satkeras.save_model(model, tmp_path / "model.keras")
    tflite_export.export_tflite(model, tmp_path / "saved.tflite")
    expected = [model.predict(images[0], verbose=0)]
    model.fit(*images, batch_size=16, epochs=1, shuffle=False, verbose=0)
    expected += [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]
    subprocess.run([sys.executable, "-c", GO_ON, tmp_path / "model.keras", tmp_path], check=True, timeout=300)
    assert (tmp_path / "loaded.tflite").read_bytes() == (tmp_path / "saved.tflite").read_bytes()
    with np.load(tmp_path / "loaded.npz") as found:
        for now, then in zip(found.values(), expected, strict=True):
            np.testing.assert_array_equal(now, then)


def test_a_failed_save_leaves_the_previous_file(trained, tmp_path, monkeypatch):
    model = trained("sat")
    path = tmp_path / "model.keras"
    satkeras.save_model(model, path)
    whole = path.read_bytes()

    def half_way(self, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tf_keras.Model, "save", half_way)
    with pytest.raises(KeyboardInterrupt):
        satkeras.save_model(model, path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved_or_loaded(float_model, tmp_path):
    for path in (tmp_path / "model.tflite", tmp_path / "missing" / "model.keras"):
        with pytest.raises(ValueError, match=r"ends in \.keras or \.h5 in a folder that exists\. Received: path="):
            satkeras.save_model(float_model, path)
    with pytest.raises(FileNotFoundError, match="nothing is there"):
        satkeras.load_model(tmp_path / "none.keras")
    satkeras.save_model(float_model, tmp_path / "float.keras")
    with pytest.raises(ValueError, match="a model that satkeras.quantize_model returned"):
        satkeras.load_model(tmp_path / "float.keras")


@pytest.mark.parametrize("trained", [True, False], ids=["freed", "frozen"])
def test_a_layer_frozen_or_freed_after_it_was_quantized(trained, residual_model, tmp_path):
    residual_model.get_layer("stem").trainable = not trained
    model = satkeras.quantize_model(residual_model)
    model.get_layer("quant_stem").trainable = trained
    satkeras.save_model(model, tmp_path / "model.keras")
    loaded = satkeras.load_model(tmp_path / "model.keras")
    for now, then in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)
