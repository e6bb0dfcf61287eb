"""Two processes that train one model over the network: equal variables in both, and a file."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

import satkeras

SCRIPT = """
import hashlib, sys
import numpy as np, tensorflow as tf, tf_keras
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import satkeras, tflite_export

scheme, folder = sys.argv[1:]
x = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1)).astype(np.float32)
y = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).with_options(options)
with strategy.scope():
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((6, 6, 1))
    t = tf_keras.layers.Conv2D(2, 3, activation="relu")(inputs)
    t = tf_keras.layers.Conv2D(2, 3, activation="relu")(t)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(tf_keras.layers.Flatten()(t)))
    q = satkeras.quantize_model(model, scheme, calibration_data=x)
    if scheme == "qn":
        satkeras.set_thresholds(q, x)
        satkeras.set_phase(q, "both")
    before = [value.numpy() for value in q.trainable_variables]
    q.compile(tf_keras.optimizers.SGD(1e-5), "mse")
q.fit(data, verbose=0)
moved = sum(not np.array_equal(a, b.numpy()) for a, b in zip(before, q.trainable_variables))
assert moved
if scheme == "qn":
    satkeras.freeze(q)
for variable in q.weights:
    print("weight", variable.name, hashlib.sha256(variable.numpy().tobytes()).hexdigest())
report = tflite_export.export_tflite(q, folder + "/model.tflite", verify_data=x)
print("done", report.verification.differing, hashlib.sha256(open(folder + "/model.tflite", "rb").read()).hexdigest())
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
@pytest.mark.parametrize("scheme", satkeras.SCHEMES)
def test_two_processes_end_with_the_same_model_and_file(scheme, tmp_path):
    workers = [f"localhost:{port}" for port in free_ports(2)]
    running = []
    for index in range(len(workers)):
        folder = tmp_path / str(index)
        folder.mkdir()
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, scheme, str(folder)],
                cwd=pathlib.Path(satkeras.__file__).parents[1],
                env={**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=600) for process in running]
    found = [[line for line in out.splitlines() if line.startswith(("weight ", "done "))] for out, _ in ended]
    assert all(lines and lines[-1].startswith("done 0 ") for lines in found), ended
    assert found[0] == found[1]
