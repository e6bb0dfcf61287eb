"""Two replicas of one training: equal quantizers on both, and the gradient of one device."""

import pathlib
import subprocess
import sys

import pytest

import satkeras

# In a process of its own: TensorFlow takes two virtual devices only before it does anything else.
SCRIPT = """
import sys
import numpy as np, tensorflow as tf, tf_keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import satkeras, tflite_export
from satkeras.callbacks import TemperaturePerStep

x = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1)).astype(np.float32)
y = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)


def network():
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((6, 6, 1))
    t = tf_keras.layers.Conv2D(2, 3, activation="relu")(inputs)
    t = tf_keras.layers.Conv2D(2, 3, activation="relu")(t)
    return tf_keras.Model(inputs, tf_keras.layers.Dense(2)(tf_keras.layers.Flatten()(t)))


def trained(scheme, steps):
    q = satkeras.quantize_model(network(), scheme, calibration_data=x)
    if scheme == "qn":
        satkeras.set_thresholds(q, x)
        satkeras.set_phase(q, "weights")
        satkeras.set_phase(q, "both")
    q.compile(tf_keras.optimizers.SGD(1e-5), "mse")
    raises = [TemperaturePerStep(1.0)] if scheme == "qn" else []
    q.fit(x[: 4 * steps], y[: 4 * steps], batch_size=4, shuffle=False, verbose=0, callbacks=raises)
    return q


strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # one: a second mixes up its messages with the first's
for scheme in sys.argv[2:]:
    one = trained(scheme, 1)
    with strategy.scope():
        two = trained(scheme, 1)
        for a, b in zip(one.trainable_variables, two.trainable_variables):
            if scheme != "qn":  # its divisor is that of one replica's batch
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=a.name)
        q = trained(scheme, 10)
        if scheme == "qn":
            satkeras.freeze(q)
        for variable in q.weights:
            values = [value.numpy() for value in variable.values]
            assert np.array_equal(*values), (scheme, variable.name, values)
    satkeras.save_model(q, sys.argv[1] + "/model.keras")
    loaded = satkeras.load_model(sys.argv[1] + "/model.keras")
    np.testing.assert_array_equal(q.predict(x, verbose=0), loaded.predict(x, verbose=0))
    report = tflite_export.export_tflite(q, sys.argv[1] + "/model.tflite", verify_data=x)
    assert report.verification.differing == 0
    print("done", scheme)
"""


@pytest.mark.parametrize("schemes", [("sat", "pact", "int8"), ("qn", "lsq", "dorefa")], ids="-".join)
def test_replicas_train_as_one_device_and_keep_equal_quantizers(schemes, tmp_path):
    assert set(schemes) <= set(satkeras.SCHEMES)
    root = pathlib.Path(satkeras.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *schemes], capture_output=True, text=True, cwd=root, timeout=600
    )
    finished = [line for line in done.stdout.split("\n") if line.startswith("done ")]
    assert finished == [f"done {scheme}" for scheme in schemes], done.stderr[-3000:]
