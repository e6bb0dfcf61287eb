"""Time of `export_tflite` over the bare converter's on a model that tfmot quantized: MobileNetV2 at 224x224.

    python -m benchmarks.export_time

Both take turns in one process, and neither collects what the other left behind; the ratio is that of the medians.
Results: `docs/results/export_time.json` and `.md`.
"""

import gc
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app

import satkeras
import tflite_export
from benchmarks import results
from examples import architectures
from satkeras._compat import tfmot

RESULTS = results.FOLDER / "export_time"
ROUNDS = 5


def table(found: dict) -> str:
    """The result in Markdown."""
    ours, theirs = (statistics.median(found["seconds"][name]) for name in ("export_tflite", "converter"))
    return results.page(
        "Export time, MobileNetV2 at 224x224",
        f"`python -m benchmarks.export_time`, {found['machine']}, TensorFlow {found['tensorflow']}, "
        f"medians of {ROUNDS}.\n\nTargets: 1 second, a ratio of 0.1.",
        ("", "seconds"),
        (
            ("`export_tflite`, SAT W4A4, without verification", f"{ours:.2f}"),
            ("the converter alone, on tfmot's 8-bit model", f"{theirs:.2f}"),
            ("ratio", f"{ours / theirs:.2f}"),
        ),
    )


def main(argv) -> None:
    """Measures both."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    keras.utils.set_random_seed(0)
    network = architectures.mobilenet_v2((224, 224, 3), 1000, batch_norm_momentum=0.0)
    images = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype(np.float32)
    network(images, training=True)  # with momentum 0: batch norms take the statistics of these images
    ours = satkeras.quantize_model(network, "sat", calibration_data=images)
    theirs = tfmot.quantization.keras.quantize_model(network)
    theirs(images, training=True)

    def export(path):
        tflite_export.export_tflite(ours, path, verify_data=False)

    def convert(path):
        converter = tf.lite.TFLiteConverter.from_keras_model(theirs)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        path.write_bytes(converter.convert())

    times: dict[str, list[float]] = {"export_tflite": [], "converter": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name, write in (("export_tflite", export), ("converter", convert)):
                gc.collect()
                start = time.perf_counter()
                write(pathlib.Path(folder) / f"{name}.tflite")
                times[name].append(time.perf_counter() - start)
    found = {**results.environment(), "seconds": times}
    results.publish(RESULTS, found, table(found))
    print(table(found))


if __name__ == "__main__":
    app.run(main)
