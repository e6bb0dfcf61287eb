"""Trains a small MobileNetV2 on CIFAR-100 from scratch: float, SAT with and without its rescale, tfmot's 8 bit.

    python -m benchmarks.cifar100 --data_dir=DIR [--seeds=0 --seeds=1] [--epochs=30] [--only='SAT W4A4']

Same first weights, same recipe, same epochs for all. Many classes are where SAT's rescale of the last layer matters.
Every training is a file in `docs/results/cifar100/`, written as its epochs end; one that was interrupted goes on from
its last epoch, one that has ended is not run again. The table of all of them is `docs/results/cifar100.md`.
"""

import dataclasses
import fnmatch
import pathlib
import statistics
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import distillation, optimizers, results, saved_models
from examples import architectures, datasets
from satkeras._compat import tfmot
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "cifar100"
BATCH_SIZE = 128
CALIBRATION_IMAGES = 512
LEARNING_RATE = 0.1
WEIGHT_DECAY = 4e-5
TEACHER_TEMPERATURE = 4.0
NOTES = """\
Targets: SAT W8A8 at least the float network's accuracy; SAT W4A4 within 1.0 points of it, and above the same without
the rescale.

W2A2, W3A3, W4A4 without the rescale, and tfmot's 8 bit went on from an earlier run of the first two thirds, which had
come to 50.70 %. The rows of SAT but for W8A8 and W4A4, with the rescale, after a part in float are from before
channels started with one size (`satkeras/equalization.py`)."""


def network(classes: int, batch_norm_momentum: float) -> keras.Model:
    """309,000 weights, 2.9 million multiplications: what two cores train in half an hour."""
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 2, 2), (6, 80, 2, 2), (6, 112, 1, 1))
    return architectures.mobilenet_v2(
        (32, 32, 3), classes, width=0.75, blocks=blocks, last_channels=640, batch_norm_momentum=batch_norm_momentum
    )


Make: TypeAlias = Callable[[keras.Model, np.ndarray], keras.Model]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train the network.

    Attributes:
      make: what makes the model from the network, or from the model that another variant has trained, and some images.
      after: that other variant, if any.
      until: where it ends, as a part of all epochs; it begins where the other variant ends.
      restarts: whether the learning rate begins anew; otherwise it goes on falling along one cosine over all epochs.
      batch_norm_momentum: of the network, where it is not another variant's.
      alpha_learning_rate: that of the clip values over that of all else.
      teacher: another variant, whose answers it learns beside the labels.
    """

    make: Make
    after: str | None = None
    until: float = 1.0
    restarts: bool = False
    batch_norm_momentum: float = 0.9
    alpha_learning_rate: float = 1.0
    teacher: str | None = None

    def span(self, epochs: int) -> tuple[int, int]:
        """The epochs it begins and ends with."""
        start = VARIANTS[self.after].until if self.after else 0
        return round(epochs * start), round(epochs * self.until)


SAT = satkeras.SCHEMES["sat"]
WITHOUT_RESCALE = dataclasses.replace(SAT, lone_weights=DoReFaWeightQuantizer())
WITH_ZERO = dataclasses.replace(
    SAT, weights=DoReFaWeightQuantizer(grid="symmetric"), lone_weights=SATWeightQuantizer(grid="symmetric")
)


def _sat(weight_bits: int, activation_bits: int, scheme: satkeras.Scheme = SAT) -> Make:
    return lambda model, images: satkeras.quantize_model(
        model, scheme, weight_bits=weight_bits, activation_bits=activation_bits, calibration_data=images
    )


def _as_published(scheme: satkeras.Scheme = SAT) -> Make:
    """4 bits from the paper's start: weights of scale 1, clip values of 8."""
    return lambda model, images: satkeras.quantize_model(model, scheme)


def _float(model: keras.Model, images: np.ndarray) -> keras.Model:
    return model


def _tfmot(model: keras.Model, images: np.ndarray) -> keras.Model:
    return tfmot.quantization.keras.quantize_model(model)


def _clamped(model: keras.Model, images: np.ndarray) -> keras.Model:
    """SAT's first stage: weights transformed and rescaled, nothing rounded."""
    return satkeras.quantize_model(model, "sat", weight_bits=None, activation_bits=None)


_THIRD = "float, the first third"
_TWO_THIRDS = "float, the first two thirds"
_BOTH_PARTS = "float, the first two thirds, then the last"
_FIVE_SIXTHS = "float, the first five sixths"
_HALF = "SAT clamped, the first half"

VARIANTS = {
    "float": Variant(_float),
    _THIRD: Variant(_float, until=1 / 3),
    _TWO_THIRDS: Variant(_float, until=2 / 3),
    _BOTH_PARTS: Variant(_float, _TWO_THIRDS),
    _FIVE_SIXTHS: Variant(_float, _TWO_THIRDS, until=5 / 6),
    _HALF: Variant(_clamped, until=1 / 2, restarts=True),
    "SAT W4A4": Variant(_sat(4, 4)),
    "SAT W4A4, the first third float": Variant(_sat(4, 4), _THIRD),
    "SAT W4A4, the first two thirds float": Variant(_sat(4, 4), _TWO_THIRDS),
    "SAT W4A4, the first five sixths float": Variant(_sat(4, 4), _FIVE_SIXTHS),
    "SAT W4A4, the first two thirds float, then taught by the float network": Variant(
        _sat(4, 4), _TWO_THIRDS, teacher=_BOTH_PARTS
    ),
    "SAT W4A4, the first half clamped": Variant(_sat(4, 4), _HALF, restarts=True),
    "SAT W4A4 without the rescale": Variant(_sat(4, 4, WITHOUT_RESCALE)),
    "SAT W4A4 without the rescale, the first two thirds float": Variant(_sat(4, 4, WITHOUT_RESCALE), _TWO_THIRDS),
    "SAT W8A8": Variant(_sat(8, 8)),
    "SAT W8A8, the first two thirds float": Variant(_sat(8, 8), _TWO_THIRDS),
    "tfmot 8 bit": Variant(_tfmot),
    "tfmot 8 bit, the first two thirds float": Variant(_tfmot, _TWO_THIRDS),
    "SAT W4A4, scales and clip values as published": Variant(_as_published()),
    "SAT W4A4 without the rescale, scales and clip values as published": Variant(_as_published(WITHOUT_RESCALE)),
    "SAT W2A2, the first two thirds float": Variant(_sat(2, 2), _TWO_THIRDS),
    "SAT W3A3, the first two thirds float": Variant(_sat(3, 3), _TWO_THIRDS),
    "SAT W4A8": Variant(_sat(4, 8)),
    "SAT W8A4": Variant(_sat(8, 4)),
    "SAT W4A4, a grid with zero": Variant(_sat(4, 4, WITH_ZERO)),
    "SAT W4A4, learning rate of alpha 0.1 of the rest's": Variant(_sat(4, 4), alpha_learning_rate=0.1),
    "SAT W4A4, batch norm momentum 0.99": Variant(_sat(4, 4), batch_norm_momentum=0.99),
}


def _weights(variant: str, epochs: int, seed: int) -> pathlib.Path:
    """Where a variant's last weights are."""
    return pathlib.Path(FLAGS.output) / _path(variant, epochs, seed).stem / "weights.h5"


def _untrained(variant: str, seed: int, epochs: int, data: datasets.Images) -> keras.Model:
    """The model that a variant trains, as it is before."""
    chosen = VARIANTS[variant]
    if chosen.after is None:
        model = network(data.classes, chosen.batch_norm_momentum)
    else:
        model = _untrained(chosen.after, seed, epochs, data)
        model.load_weights(_weights(chosen.after, epochs, seed))
    return chosen.make(model, data.train[0][:CALIBRATION_IMAGES].astype(np.float32))


def train(variant: str, seed: int, epochs: int, data: datasets.Images) -> None:
    """Runs what is left of a training, first of the one it comes after."""
    chosen, path, weights = VARIANTS[variant], _path(variant, epochs, seed), _weights(variant, epochs, seed)
    for needed in (chosen.after, chosen.teacher):
        if needed is not None and not _weights(needed, epochs, seed).exists():
            train(needed, seed, epochs, data)
    print(f"\n=== {variant}, seed {seed}", flush=True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    before = (results.read(_path(chosen.after, epochs, seed)) or {}) if chosen.after else {}
    result = results.read(path) or {
        "variant": variant,
        "seed": seed,
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        **results.environment(),
        "loss": before.get("loss", []),
        "accuracy": before.get("accuracy", []),
    }
    output = weights.parent
    output.mkdir(parents=True, exist_ok=True)
    model = _untrained(variant, seed, epochs, data)
    start, end = chosen.span(epochs)
    if weights.exists():
        model.load_weights(weights)
    else:
        steps = len(data.train[0]) // BATCH_SIZE
        first, last = (start, end) if chosen.restarts else (0, epochs)
        training, targets, loss, metric = _lessons(chosen, seed, epochs, data)
        optimizer = optimizers.sgd(
            model,
            LEARNING_RATE,
            (last - first) * steps,
            WEIGHT_DECAY,
            done=(start - first) * steps,
            alpha_learning_rate=chosen.alpha_learning_rate,
        )
        model.compile(optimizer, loss, metrics=[metric])

        def note(epoch, logs):
            for name, key in (("loss", "loss"), ("accuracy", "val_accuracy")):
                result[name] = [*result[name][: start + epoch], logs[key]]
            results.write(path, result)

        model.fit(
            training,
            epochs=end - start,
            validation_data=(data.test[0].astype(np.float32), targets),
            validation_batch_size=250,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_end=note),
                keras.callbacks.BackupAndRestore(output / "backup"),
            ],
            verbose=2,
        )
        model.save_weights(weights)
    result["file_accuracy"] = None
    if variant.startswith("SAT") and end == epochs:
        result |= saved_models.export(model, output, data.test, compared=1000)
    results.write(path, result)
    RESULTS.with_suffix(".md").write_text(table())


def _lessons(chosen: Variant, seed: int, epochs: int, data: datasets.Images):
    """The batches to learn from, the targets of the test images, the loss and the accuracy."""
    training, labels = datasets.batches(data, BATCH_SIZE, seed), data.test[1]
    if chosen.teacher is None:
        return training, labels, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"
    teacher = _untrained(chosen.teacher, seed, epochs, data)
    teacher.load_weights(_weights(chosen.teacher, epochs, seed))
    taught, unseen = distillation.lessons(
        training, labels, lambda images: tf.nn.softmax(teacher(images, training=False)), data.classes
    )
    loss = distillation.loss(TEACHER_TEMPERATURE)
    return taught, unseen, lambda targets, logits: loss(targets, tf.nn.softmax(logits)), distillation.accuracy


def _path(variant: str, epochs: int, seed: int) -> pathlib.Path:
    return RESULTS / f"{variant.replace(' ', '_')}_{epochs}_epochs_seed_{seed}.json"


def table() -> str:
    """All results there are, in Markdown: a row for each variant and number of epochs, the mean of its seeds."""
    found: dict[tuple[int, str], list[dict]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = results.read(path) or {}
        found.setdefault((result["epochs"], result["variant"]), []).append(result)
    rows = []
    for epochs, variant in sorted(found, key=lambda key: (-key[0], list(VARIANTS).index(key[1]))):
        trained = found[epochs, variant]
        last = [result["accuracy"][-1] for result in trained]
        files = [f"{result['file_accuracy']:.2%}" for result in trained if result.get("file_accuracy")]
        loss = statistics.mean(result["loss"][-1] for result in trained)
        so_far, (_, end) = min(len(result["accuracy"]) for result in trained), VARIANTS[variant].span(epochs)
        length = f"{end}" if so_far == end else f"{so_far} of {end}, still running"
        each = ", ".join(f"{accuracy:.2%}" for accuracy in last)
        rows.append((variant, length, f"{statistics.mean(last):.2%}", each, ", ".join(files), f"{loss:.3f}"))
    return results.page(
        "CIFAR-100 from scratch: a MobileNetV2 of 309,000 weights, 10,000 test images",
        f"`python -m benchmarks.cifar100`: SGD with Nesterov momentum, cosine from {LEARNING_RATE} over all epochs "
        f"(over each half where one is clamped), batch {BATCH_SIZE}, weight decay {WEIGHT_DECAY:g}, accuracy after the "
        "last epoch. Unless said otherwise, SAT starts with the weight scales, clip values and statistics of "
        f"{CALIBRATION_IMAGES} training images.\n\n{NOTES}",
        ("", "epochs", "accuracy", "each seed", "in the file", "training loss"),
        rows,
    )


def main(argv) -> None:
    """Runs every training that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    data = datasets.load("cifar100", FLAGS.data_dir)
    for seed in FLAGS.seeds:
        for variant in VARIANTS:
            ended = "file_accuracy" in (results.read(_path(variant, FLAGS.epochs, seed)) or {})
            if any(fnmatch.fnmatchcase(variant, pattern) for pattern in FLAGS.only) and not ended:
                train(variant, seed, FLAGS.epochs, data)
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_multi_integer("seeds", [0], "Of weights and shuffling.")
    flags.DEFINE_integer("epochs", 30, "Of each training.", 1)
    flags.DEFINE_multi_string("only", ["*"], "Pattern of the variants to train.")
    flags.DEFINE_string("output", "runs/cifar100", "Folder for models and backups.")
    app.run(main)
