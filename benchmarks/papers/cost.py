"""What a training step of each scheme costs over the float network's, with whole epochs compiled: time and peak memory.

    python -m benchmarks.papers.cost [--images=6400] [--rounds=5] [--only='SAT *']

On a GPU by XLA. The variants take turns, so that what else the machine does hits all of them; a ratio is that of the
fastest rounds. Peak memory is the card's, that of a process has `benchmarks.training_step`. Random images, 32x32, batch
128. Results, one for each machine: `docs/results/papers/cost.json` and `.md`.
"""

import fnmatch
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import optimizers, results
from benchmarks.papers.epochs import CompiledEpochs, with_labels
from benchmarks.papers.rows import machine
from examples import architectures

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "papers" / "cost"
SHAPE, CLASSES, BATCH_SIZE = (32, 32, 3), 100, 128
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "MobileNetV2": lambda: architectures.mobilenet_v2(SHAPE, CLASSES, small_images=True),
    "ResNet-20": lambda: architectures.resnet20(SHAPE, CLASSES),
}
# Scheme, weight bits, activation bits; None is the float network.
VARIANTS: dict[str, tuple | None] = {
    "float": None,
    "SAT W4A4": ("sat", 4, 4),
    "SAT clamped": ("sat", None, None),
    "PACT W4A4": ("pact", 4, 4),
    "LSQ W4A4": ("lsq", 4, 4),
    "QN W(±4)A8": ("qn", "3bit+-4", 8),
}


def _trainer(network: str, variant: str, data) -> CompiledEpochs:
    keras.utils.set_random_seed(0)
    model, quantized = NETWORKS[network](), VARIANTS[variant]
    if quantized is not None:
        scheme, weight_bits, activation_bits = quantized
        images = data[0][:64].astype(np.float32)
        model = satkeras.quantize_model(
            model, scheme, weight_bits=weight_bits, activation_bits=activation_bits, calibration_data=images
        )
    return CompiledEpochs(model, optimizers.sgd(model, 1e-3, 1000, 5e-4), with_labels, data, BATCH_SIZE)


def measure(network: str, variants: list[str], images: int, rounds: int) -> dict:
    """Milliseconds of a step in each variant's fastest round; MiB at the peak, on a card."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (images, *SHAPE)).astype(np.uint8), rng.integers(0, CLASSES, images)
    cards = tf.config.list_logical_devices("GPU")
    trainers, peaks = {}, {}
    for variant in variants:
        trainers[variant] = _trainer(network, variant, data)
        for card in cards:
            tf.config.experimental.reset_memory_stats(card.name)
        trainers[variant].train(0, 0)
        peaks[variant] = [tf.config.experimental.get_memory_info(card.name)["peak"] / 2**20 for card in cards]
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for turn in range(rounds):
        for variant, trainer in trainers.items():
            begun = time.perf_counter()
            trainer.train(0, 1 + turn)
            seconds[variant].append(time.perf_counter() - begun)
    steps = images // BATCH_SIZE
    return {
        variant: {"milliseconds": 1e3 * min(seconds[variant]) / steps, "peak_mib": max(peaks[variant], default=None)}
        for variant in variants
    }


def table(found: dict) -> str:
    """All results in Markdown."""
    rows = []
    for result in found["machines"]:
        rounds = f"{result['rounds']} of {result['images'] // BATCH_SIZE} steps"
        for network, variants in result["networks"].items():
            base = variants["float"]
            for variant, cost in variants.items():
                ratio = f"{cost['milliseconds'] / base['milliseconds']:.2f}"
                peak = f"{cost['peak_mib'] / base['peak_mib']:.2f}" if cost["peak_mib"] else ""
                rows.append((network, variant, f"{cost['milliseconds']:.1f}", ratio, peak, _place(result), rounds))
    return results.page(
        "A training step, whole epochs compiled",
        "`python -m benchmarks.papers.cost`: 32x32 images, batch 128, by XLA on a GPU, without on a CPU; each "
        "variant's fastest round.\n\nTarget: SAT W4A4 at most 1.10 times float on a GPU.",
        ("network", "variant", "ms a step", "time / float", "peak memory / float", "machine", "rounds"),
        rows,
    )


def _place(result: dict) -> str:
    return result["card"] if result["card"] != "none" else result["machine"]


def main(argv) -> None:
    """Measures every network on this machine."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    variants = [name for name in VARIANTS if name == "float" or fnmatch.fnmatchcase(name, FLAGS.only)]
    known = (results.read(RESULTS.with_suffix(".json")) or {"machines": []})["machines"]
    result: dict = {**machine(), "images": FLAGS.images, "rounds": FLAGS.rounds, "networks": {}}
    others = [other for other in known if _place(other) != _place(result)]
    for network in FLAGS.networks:
        result["networks"][network] = measure(network, variants, FLAGS.images, FLAGS.rounds)
        found = {"machines": [*others, result]}
        results.publish(RESULTS, found, table(found))
        keras.backend.clear_session()
    print(table({"machines": [*others, result]}))


if __name__ == "__main__":
    flags.DEFINE_integer("images", 6400, "In a round.", BATCH_SIZE)
    flags.DEFINE_integer("rounds", 5, "Turns of each variant.", 1)
    flags.DEFINE_string("only", "*", "Pattern of the variants beside float.")
    flags.DEFINE_multi_enum("networks", list(NETWORKS), list(NETWORKS), "What to measure.")
    app.run(main)
