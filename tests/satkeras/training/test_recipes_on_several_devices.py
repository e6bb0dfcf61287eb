"""Optimizers that follow integers, and distillation, on two replicas: equal on both, and as on one device."""

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
import satkeras

x = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1)).astype(np.float32)
y = np.random.default_rng(1).integers(0, 3, 40)


def network():
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((6, 6, 1))
    t = tf_keras.layers.Conv2D(2, 3, activation="relu")(inputs)
    t = tf_keras.layers.Conv2D(8, 3, activation="relu")(t)
    return tf_keras.Model(inputs, tf_keras.layers.Dense(3, activation="softmax")(tf_keras.layers.Flatten()(t)))


class Both(satkeras.FreezesOscillations, satkeras.TransitionRateSGD):
    pass


def trained():
    teacher = network()
    q = satkeras.quantize_model(teacher, "sat", calibration_data=x)
    target = tf_keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = Both(1e-3, target, kernel_learning_rate=1e-2, weight_decay=1e-3, threshold=0.02, use_ema=True)
    distiller = satkeras.Distiller(q, teacher)
    distiller.compile(optimizer, "sparse_categorical_crossentropy")
    distiller.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return q, optimizer


one, optimizer = trained()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    two, mirrored = trained()
    for variable in (*two.weights, *mirrored.variables):
        if hasattr(variable, "values"):
            first, second = (value.numpy() for value in variable.values)
            assert np.array_equal(first, second), variable.name
    for a, b in zip(one.trainable_variables, two.trainable_variables):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5, err_msg=a.name)
    rates = [float(tf.convert_to_tensor(each.transition_rate)) for each in (optimizer, mirrored)]
    np.testing.assert_allclose(*rates, rtol=1e-3)
    assert rates[0] > 0
    assert optimizer.frozen_share() == mirrored.frozen_share()
print("done")
"""


@pytest.mark.slow
def test_replicas_train_as_one_device():
    root = pathlib.Path(satkeras.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, timeout=600)
    assert done.stdout.strip().endswith("done"), done.stderr[-3000:]
