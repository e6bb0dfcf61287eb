"""Times a training step and its peak memory, as ratios to the float model's, tfmot's default 8-bit training beside it.

    python -m benchmarks.training_step

32x32 images, batch 128, CPU. The variants take turns in one process, some steps each, so that what else the machine
does hits all of them; a ratio is that of the fastest rounds, because all that only adds, and often to whole rounds.
Peak memory is that of a process of its own, less what it holds when it has been traced and trained with eight images.
Results: `docs/results/training_step.json` and `.md`.
"""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import results
from examples import architectures
from satkeras._compat import tfmot

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "training_step"
TARGETS = """\
Targets: SAT at most 1.25 times the float model's time, less than tfmot's, and 1.3 times its memory; Quantization
Networks 1.3 times its time with weights alone, 2 with 2-bit activations, and 1.5 times its memory."""
SHAPE, CLASSES, BATCH_SIZE = (32, 32, 3), 10, 128

NETWORKS = {
    "MobileNetV2": lambda: architectures.mobilenet_v2(SHAPE, CLASSES, small_images=True),
    "ResNet-20": lambda: architectures.resnet20(SHAPE, CLASSES),
}


def _quantization_networks(activation_bits: int):
    def make(model: keras.Model) -> keras.Model:
        images, _ = _data(8)
        return satkeras.quantize_model(
            model, "qn", weight_bits="3bit+-4", activation_bits=activation_bits, calibration_data=images
        )

    return make


VARIANTS = {
    "float": lambda model: model,
    "SAT W4A4": lambda model: satkeras.quantize_model(model, "sat"),
    "tfmot 8 bit": lambda model: tfmot.quantization.keras.quantize_model(model),
    "QN W(+-4)A8": _quantization_networks(8),
    "QN W(+-4)A2": _quantization_networks(2),
}


def _data(count: int):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.float32), rng.integers(0, CLASSES, count)


def _compiled(network: str, variant: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = VARIANTS[variant](NETWORKS[network]())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    return model


def seconds_of_a_step(network: str, rounds: int, steps: int) -> dict[str, float]:
    """Those of the fastest round, for each variant."""
    data = tf.data.Dataset.from_tensors(tuple(map(tf.constant, _data(BATCH_SIZE)))).repeat(steps)
    models = {variant: _compiled(network, variant) for variant in VARIANTS}
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for model in models.values():
        model.fit(data, verbose=0)
    for _ in range(rounds):
        for variant, model in models.items():
            start = time.perf_counter()
            model.fit(data, verbose=0)
            times[variant].append((time.perf_counter() - start) / steps)
    return {variant: min(taken) for variant, taken in times.items()}


def peak_megabytes(network: str, variant: str) -> float:
    """Peak memory of five steps in a process of their own, less what it holds before them."""
    command = [sys.executable, "-m", "benchmarks.training_step", f"--measure={network}/{variant}"]
    # Large blocks go back to the system as soon as they are freed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return float(printed.split()[-1])


def _measure(network: str, variant: str) -> None:
    model, (images, labels) = _compiled(network, variant), _data(BATCH_SIZE)
    model.fit(images[:8], labels[:8], batch_size=8, epochs=2, verbose=0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak_megabytes()
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=5, verbose=0)
    print(_peak_megabytes() - before)


def _peak_megabytes() -> float:
    # Not ru_maxrss, which a process inherits from the one that started it.
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def table(found: dict) -> str:
    """The results in Markdown."""
    rows = []
    for network, measured in found["networks"].items():
        seconds, megabytes = measured["seconds"], measured["megabytes"]
        for variant in VARIANTS:
            time_ratio = f"{seconds[variant] / seconds['float']:.2f}"
            memory_ratio = f"{megabytes[variant] / megabytes['float']:.2f}"
            measures = f"{1e3 * seconds[variant]:.0f}", time_ratio, f"{megabytes[variant]:.0f}", memory_ratio
            rows.append((network, variant, *measures))
    return results.page(
        "A training step: time and peak memory over the float model's",
        "`python -m benchmarks.training_step`: 32x32 images, batch 128, "
        f"{found['machine']}, TensorFlow {found['tensorflow']}.\n\n{TARGETS}",
        ("network", "variant", "ms", "time / float", "MiB", "memory / float"),
        rows,
    )


def main(argv) -> None:
    """Measures every network and variant."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if FLAGS.measure:
        _measure(*FLAGS.measure.split("/"))
        return
    found = results.read(RESULTS.with_suffix(".json")) or {"networks": {}}
    found |= results.environment()
    for network in FLAGS.networks:
        found["networks"][network] = {
            "seconds": seconds_of_a_step(network, FLAGS.rounds, FLAGS.steps),
            "megabytes": {variant: peak_megabytes(network, variant) for variant in VARIANTS},
        }
        results.publish(RESULTS, found, table(found))
        keras.backend.clear_session()
    print(table(found))


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 15, "Turns of each variant.", lower_bound=1)
    flags.DEFINE_integer("steps", 2, "Steps in a turn.", lower_bound=1)
    flags.DEFINE_multi_enum("networks", list(NETWORKS), list(NETWORKS), "What to measure.")
    flags.DEFINE_string("measure", "", "For the program's own use: network/variant whose memory to measure.")
    app.run(main)
