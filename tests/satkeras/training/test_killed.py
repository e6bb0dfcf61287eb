"""Processes that are killed: training goes on as if nothing had happened, and files stay whole."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import satkeras

# Trains for three epochs; with a batch number, kills itself in the second epoch after that batch.
TRAIN = """
import os, pathlib, signal, sys
import numpy as np
import tf_keras as keras
import satkeras
from satkeras.training.callbacks import TemperaturePerStep
from tf_keras import layers

folder, scheme, resume, kill_after = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (64, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 64)

def new_model():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(image))
    x = layers.Conv2D(4, 3, activation="relu")(layers.ReLU()(x))
    float_model = keras.Model(image, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))
    model = satkeras.quantize_model(float_model, scheme)
    if scheme == "qn":
        satkeras.set_thresholds(model, images)
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 24)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    return model

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1 and batch == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

checkpoint = folder / "checkpoint.keras"
callbacks = [Kill(), TemperaturePerStep(3.0)] if scheme == "qn" else [Kill()]
if resume == "ModelCheckpoint":
    callbacks.append(keras.callbacks.ModelCheckpoint(str(checkpoint)))
elif resume == "BackupAndRestore":
    callbacks.append(keras.callbacks.BackupAndRestore(folder / "backup"))
model = satkeras.load_model(checkpoint) if checkpoint.exists() else new_model()
epoch = int(model.optimizer.iterations) // 8
model.fit(images, labels, batch_size=8, epochs=3, initial_epoch=epoch, shuffle=False, verbose=0, callbacks=callbacks)
np.savez(folder / "trained.npz", *model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables))
"""

# Writes the same file again, and is killed when the new one is about to take its place.
WRITE = """
import os, signal, sys
import satkeras, tflite_export

saved, path = sys.argv[1:]
model = satkeras.load_model(saved)
def kill(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]) == path:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
if path.endswith(".tflite"):
    tflite_export.export_tflite(model, path)
elif path.endswith(".npz"):
    satkeras.save_integer_weights(model, path)
else:
    satkeras.save_model(model, path)
"""


def start(script, *arguments):
    return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)


def finish(script, *arguments):
    ended = start(script, *arguments)
    assert ended.returncode == 0, ended.stderr


def killed(script, *arguments):
    ended = start(script, *arguments)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.fixture(scope="module", params=list(satkeras.SCHEMES))
def undisturbed(request, tmp_path_factory):
    """A scheme, and the weights and optimizer variables that a training which nobody kills leads to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(TRAIN, folder, request.param, "nothing", -1)
    return request.param, dict(np.load(folder / "trained.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["BackupAndRestore", "ModelCheckpoint"])
def test_a_killed_training_reaches_the_same_weights(resume, undisturbed, tmp_path):
    """Temperatures are among a model's weights."""
    scheme, trained = undisturbed
    killed(TRAIN, tmp_path, scheme, resume, 3)
    assert not (tmp_path / "trained.npz").exists()
    finish(TRAIN, tmp_path, scheme, resume, -1)
    with np.load(tmp_path / "trained.npz") as resumed:
        assert resumed.files == list(trained)
        for name, expected in trained.items():
            np.testing.assert_array_equal(resumed[name], expected)


# Models and bytes are written in one way each: the quick tests have one of each.
@pytest.mark.parametrize(
    "name",
    [
        "model.keras",
        pytest.param("model.h5", marks=pytest.mark.slow),
        pytest.param("model.tflite", marks=pytest.mark.slow),
        "model.npz",
    ],
)
def test_a_killed_write_leaves_the_previous_file(name, quantized, train, tmp_path):
    satkeras.save_model(train(quantized()), tmp_path / "saved.keras")
    path = tmp_path / name
    path.write_bytes(b"the previous file")
    killed(WRITE, tmp_path / "saved.keras", path)
    assert path.read_bytes() == b"the previous file"
