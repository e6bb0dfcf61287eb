"""Latency and size of exported files over the converter's own post-training int8 file of the same float network.

    python -m benchmarks.latency

LiteRT, one thread, the files taking turns in one process; a ratio is that of the medians. The networks are calibrated
and not trained: speed does not depend on it. Results: `docs/results/latency.json` and `.md`.
"""

import dataclasses
import fnmatch
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tf_keras as keras
from absl import app, flags
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

import satkeras
import tflite_export
from benchmarks import results
from examples import architectures
from examples.outcomes import post_training_int8
from satkeras.quantizers import DoReFaWeightQuantizer, PACTQuantizer, SATWeightQuantizer
from tflite_export.verification.interpreter import open_interpreter

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "latency"
NETWORKS = {
    "MobileNetV2, 32x32": lambda: architectures.mobilenet_v2(
        (32, 32, 3), 10, small_images=True, batch_norm_momentum=0.0
    ),
    "ResNet-20, 32x32": lambda: architectures.resnet20((32, 32, 3), 10, batch_norm_momentum=0.0),
    "MobileNetV2, 224x224": lambda: architectures.mobilenet_v2((224, 224, 3), 1000, batch_norm_momentum=0.0),
}
BASE = "post-training int8"
_QN = satkeras.SCHEMES["qn"]
# The grid that 4 and 2 bits hold; DoReFa's odd one needs one bit more.
_SYMMETRIC = dataclasses.replace(
    satkeras.SCHEMES["sat"],
    weights=DoReFaWeightQuantizer(grid="symmetric"),
    lone_weights=SATWeightQuantizer(grid="symmetric"),
)
# Every layer at the low widths: what the first and last have at 8 bits stays int8 in a packed file.
_NO_8_BITS = {"first_layer_bits": None, "last_layer_bits": None}
SCHEMES = {
    "SAT W8A8": (satkeras.SCHEMES["sat"], 8, 8),
    "SAT W4A4": (satkeras.SCHEMES["sat"], 4, 4),
    "SAT W4A2": (satkeras.SCHEMES["sat"], 4, 2),
    "SAT W4A4, symmetric": (_SYMMETRIC, 4, 4),
    "SAT W4A4, symmetric, packed": (_SYMMETRIC, 4, 4),
    "SAT W4A4, symmetric, all layers, packed": (dataclasses.replace(_SYMMETRIC, **_NO_8_BITS), 4, 4),
    "SAT W2A2, symmetric, all layers, packed": (dataclasses.replace(_SYMMETRIC, **_NO_8_BITS), 2, 2),
    "QN ternary A8, all layers, packed": (dataclasses.replace(_QN, **_NO_8_BITS), "ternary", 8),
    "QN W(+-4)A8": (_QN, "3bit+-4", 8),
    "QN W(+-4)A2": (_QN, "3bit+-4", 2),
    "QN W(+-4), PACT A2": (dataclasses.replace(_QN, activations=PACTQuantizer()), "3bit+-4", 2),
}
ROUNDS = 15
SECONDS_OF_A_TURN = 0.3


def quantized_file(model: keras.Model, name: str, images: np.ndarray) -> bytes:
    """The file of the calibrated model, quantized as `SCHEMES` says, weights packed if its name does."""
    scheme, weight_bits, activation_bits = SCHEMES[name]
    quantized = satkeras.quantize_model(
        model, scheme, weight_bits=weight_bits, activation_bits=activation_bits, calibration_data=images
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        storage = "packed" if name.endswith("packed") else "int8"
        tflite_export.export_tflite(quantized, path, verify_data=False, output_type="int8", weight_storage=storage)
        return path.read_bytes()


def operators(content: bytes) -> int:
    """How many operators a file has."""
    return len(flatbuffer_utils.read_model_from_bytearray(bytearray(content)).subgraphs[0].operators)


def weight_bytes(content: bytes) -> int:
    """The bytes of a file's kernels, as it stores them."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    stored = (schema.TensorType.INT8, schema.TensorType.INT4, schema.TensorType.INT2)
    buffers = {tensor.buffer for tensor in graph.tensors if tensor.type in stored and len(tensor.shape) > 1}
    return sum(len(model.buffers[buffer].data) for buffer in buffers if model.buffers[buffer].data is not None)


def milliseconds(files: dict[str, bytes]) -> dict[str, float]:
    """The median time of one image, for each file."""
    interpreters = {name: open_interpreter(content) for name, content in files.items()}
    for interpreter in interpreters.values():
        interpreter.invoke()
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, interpreter in interpreters.items():
            end = time.perf_counter() + SECONDS_OF_A_TURN
            while (start := time.perf_counter()) < end:
                interpreter.invoke()
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(taken) for name, taken in times.items()}


def table(found: dict) -> str:
    """The results in Markdown."""
    rows = []
    for network, measured in found["networks"].items():
        times, sizes = measured["milliseconds"], measured["bytes"]
        for name in times:
            time_ratio, size_ratio = f"{times[name] / times[BASE]:.2f}", f"{sizes[name] / sizes[BASE]:.2f}"
            count, kernels = (
                measured["operators"][name],
                measured.get("weight_bytes"),
            )
            row = (network, name, f"{times[name]:.3f}", time_ratio, count, f"{sizes[name]:,}", size_ratio)
            rows.append((*row, f"{kernels[name] / kernels[BASE]:.2f}" if kernels else ""))
    return results.page(
        "Latency and size over the converter's post-training int8 file",
        f"`python -m benchmarks.latency`: LiteRT, one thread, {found['machine']}, TensorFlow {found['tensorflow']}."
        "\n\nTargets: both ratios 1.00 or less; packed, weights of MobileNetV2 at 224x224 0.58 or less of int8's at "
        "4 bits, 0.37 or less at 2.",
        ("network", "file", "ms", "latency / post-training", "operators", "bytes", "size / post-training", "weights"),
        rows,
    )


def measure(make) -> dict:
    """Latency and size of the files of one network."""
    keras.utils.set_random_seed(0)
    model = make()
    images = np.random.default_rng(0).integers(0, 256, (8, *model.input_shape[1:])).astype(np.float32)
    model(images, training=True)  # with momentum 0: batch norms take the statistics of these images
    files = {BASE: post_training_int8(model, images)}
    files |= {name: quantized_file(model, name, images) for name in SCHEMES}
    return {
        "milliseconds": milliseconds(files),
        "operators": {name: operators(content) for name, content in files.items()},
        "bytes": {name: len(content) for name, content in files.items()},
        "weight_bytes": {name: weight_bytes(content) for name, content in files.items()},
    }


def main(argv) -> None:
    """Measures every network."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    found = results.read(RESULTS.with_suffix(".json")) or {"networks": {}}
    found |= results.environment()
    for name, make in NETWORKS.items():
        if fnmatch.fnmatchcase(name, FLAGS.only):
            found["networks"][name] = measure(make)
            results.publish(RESULTS, found, table(found))
    print(table(found))


if __name__ == "__main__":
    flags.DEFINE_string("only", "*", "Pattern of the networks to measure.")
    app.run(main)
