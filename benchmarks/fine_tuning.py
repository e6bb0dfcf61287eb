"""Fine-tunes two pretrained CIFAR-10 networks at each width of each scheme, for a few epochs.

    python -m benchmarks.fine_tuning --data_dir=DIR --pretrained_dir=DIR [--only='resnet8 *']

`data_dir` is tensorflow-datasets', `pretrained_dir` holds the networks (see `benchmarks.pretrained`). Every run is a
file in `docs/results/fine_tuning/`, written as its epochs end; a run that was interrupted goes on from its last epoch,
one that has ended is not run again. The table of all of them is `docs/results/fine_tuning.md`.
"""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import distillation, optimizers, pretrained, results, saved_models
from benchmarks.runs import Run
from examples import datasets
from satkeras.quantizers import PACTQuantizer, QuantizationNetworksWeightQuantizer
from satkeras.training.callbacks import GeometricTemperature, TemperaturePerStep
from satkeras.training.phases import staircases

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "fine_tuning"
SEED = 0
BATCH_SIZE = 128
CALIBRATION_IMAGES = 512
WEIGHT_DECAY = 1e-4
NOTES = """\
Targets: at 2, 3 and 4 bits PACT's 89.7, 91.1 and 91.3 %, published for a float network of 91.6 %. Quantization Networks
within so many points of float: weights alone 1.0 (1 bit: 3.0), W(+-4)A2 3.0.

The rows of resnet20 with sat or pact, but for those *taught* and W8A8, are from before channels started with one size
(`satkeras/equalization.py`)."""


def _plain(network: str, scheme: str, bits: int, epochs: int) -> Run:
    return Run(network, scheme, bits, bits, ((None, epochs),), scheme)


def _taught_as(title: str) -> dict:
    return {"title": f"{title}, taught by the float network", "teacher_temperature": 4.0}


def _taught(scheme: str, bits: int, epochs: int, **options) -> Run:
    return dataclasses.replace(_plain("resnet20", scheme, bits, epochs), **_taught_as(scheme), **options)


def _qn(weight_bits: int | str, activation_bits: int, stages) -> Run:
    return Run("resnet20", "qn", weight_bits, activation_bits, stages, "qn")


# Evenly spaced activations under the same weights: no step operators in the file.
_UNIFORM = dataclasses.replace(satkeras.SCHEMES["qn"], activations=PACTQuantizer())


def _qn_weights(**options) -> satkeras.Scheme:
    weights = QuantizationNetworksWeightQuantizer(**options)
    return dataclasses.replace(satkeras.SCHEMES["qn"], weights=weights, lone_weights=weights)


_LEARNED = _qn_weights(learn_thresholds=True)
_EXACT = _qn_weights(gradient_temperature=None)
_OWN_ZERO = _qn_weights(zero_edge=None)
_QN_TAUGHT = _taught_as("qn, zero of k-means")

_BY_A_FACTOR = {"title": "qn, temperature by a factor", "highest_temperature": 300.0, "lowest_temperature": 5.0}
_BY_A_FACTOR_TAUGHT = _BY_A_FACTOR | _taught_as("qn, temperature by a factor")
_WEIGHTS_ALONE = (("weights", 5),)
_THREE_PHASES = (("weights", 2), ("activations", 1), ("both", 2))

RUNS = (
    *(_plain(network, "sat", bits, epochs) for network in ("resnet8", "resnet20") for bits, epochs in ((8, 1), (4, 1))),
    _plain("resnet8", "sat", 4, 5),
    Run("resnet20", None, None, None, ((None, 5),), "float"),
    *(_qn(bits, 8, _WEIGHTS_ALONE) for bits in ("3bit+-4", "ternary", 1)),
    *(Run("resnet20", _LEARNED, bits, 8, _WEIGHTS_ALONE, "qn, learned thresholds") for bits in ("ternary", 1)),
    _qn("ternary", 8, (("weights", 15),)),
    Run("resnet20", _OWN_ZERO, "ternary", 8, _WEIGHTS_ALONE, "qn, zero of k-means"),
    *(Run("resnet20", _OWN_ZERO, "ternary", 8, (("weights", epochs),), **_QN_TAUGHT) for epochs in (5, 15)),
    Run("resnet20", _OWN_ZERO, "ternary", 8, (("weights", 15), ("weights", 4)), **_QN_TAUGHT),
    *(Run("resnet20", _EXACT, 1, 8, (("weights", epochs),), **_BY_A_FACTOR) for epochs in (5, 15)),
    Run("resnet20", _EXACT, 1, 8, (("weights", 15),), **_BY_A_FACTOR_TAUGHT),
    *(_qn(bits, 2, _THREE_PHASES) for bits in ("3bit+-4", 1)),
    *(_qn("3bit+-4", 2, (("weights", 4), ("activations", 3), ("both", 8), *more)) for more in ((), (("both", 8),))),
    Run("resnet20", _OWN_ZERO, "3bit+-4", 2, (("weights", 4), ("activations", 3), ("both", 8)), **_QN_TAUGHT),
    Run("resnet20", _UNIFORM, "3bit+-4", 2, _WEIGHTS_ALONE, "qn weights and pact activations"),
    *(_plain("resnet20", scheme, bits, 5) for bits in (2, 3, 4) for scheme in ("sat", "pact")),
    _plain("resnet20", "pact", 8, 1),
    *(_taught(scheme, 4, 5) for scheme in ("sat", "pact")),
    *(_taught(scheme, 3, 10, learning_rate=0.03) for scheme in ("sat", "pact")),
    *(_taught(scheme, 2, 15, learning_rate=0.03) for scheme in ("sat", "pact")),
)


def quantized(task: Run, float_model: keras.Model, calibration_data: np.ndarray) -> keras.Model:
    """The model that a task trains; the float model itself where there is no scheme."""
    if task.scheme is None:
        return float_model
    overrides: dict = {"*_shortcut": "int8"} if task.network == "resnet20" else {}
    overrides |= {layer: {"weight_bits": None, "activation_bits": None} for layer in task.full_precision}
    return satkeras.quantize_model(
        float_model,
        task.scheme,
        weight_bits=task.weight_bits,
        activation_bits=task.activation_bits,
        overrides=overrides,
        calibration_data=calibration_data,
    )


def train(task: Run, data: datasets.Images, folder: pathlib.Path) -> None:
    """Runs what is left of a task; its result is in a folder of results."""
    keras.utils.set_random_seed(SEED)
    float_model = pretrained.load(task.network, FLAGS.pretrained_dir)
    if task.batch_norm_momentum is not None:
        for layer in float_model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = task.batch_norm_momentum
    images, labels = data.test[0].astype(np.float32), data.test[1]
    chosen = np.random.default_rng(SEED).permutation(len(data.train[0]))
    calibration_data = data.train[0][chosen[:CALIBRATION_IMAGES]].astype(np.float32)
    data = dataclasses.replace(data, train=tuple(values[chosen[: task.images]] for values in data.train))
    model = quantized(task, float_model, calibration_data)
    path = task.path(folder)
    result = results.read(path)
    if result is None:
        result = {
            **{name: value for name, value in dataclasses.asdict(task).items() if name != "scheme"},
            "seed": SEED,
            **results.environment(),
            "float_accuracy": _accuracy(float_model, images, labels),
            "accuracy": [_accuracy(model, images, labels)],
            "loss": [],
        }
        results.write(path, result)

    output = pathlib.Path(FLAGS.output) / folder.name / path.stem
    output.mkdir(parents=True, exist_ok=True)
    steps = len(data.train[0]) // BATCH_SIZE
    before = 1
    for index, (phase, epochs) in enumerate(task.stages):
        ended = output / f"stage_{index}.h5"
        if ended.exists():
            model.load_weights(ended)
        callbacks: list[keras.callbacks.Callback] = [keras.callbacks.BackupAndRestore(output / f"backup_{index}")]
        if phase is not None:
            if phase == "activations" and not ended.exists():
                satkeras.set_thresholds(model, calibration_data)
            satkeras.set_phase(model, phase)
            lowest, highest = task.lowest_temperature, task.highest_temperature
            callbacks.append(
                TemperaturePerStep(highest / (steps * epochs), highest)
                if lowest is None
                else GeometricTemperature(steps * epochs, lowest, highest)
            )
        if not ended.exists():

            def note(epoch, logs, first=before):
                result["accuracy"] = [*result["accuracy"][: first + epoch], logs["val_accuracy"]]
                result["loss"] = [*result.get("loss", [])[: first + epoch - 1], logs["loss"]]
                results.write(path, result)

            training, targets, loss, metric = _lessons(task, data, float_model)
            optimizer = optimizers.sgd(model, task.learning_rate, steps * epochs, WEIGHT_DECAY)
            model.compile(optimizer, loss, metrics=[metric])
            model.fit(
                training,
                epochs=epochs,
                validation_data=(images, targets),
                validation_batch_size=250,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note), *callbacks],
                verbose=2,
            )
            model.save_weights(ended)
        before += epochs
    result["file_accuracy"] = None
    if task.scheme is not None and not task.full_precision:
        if staircases(model):
            satkeras.freeze(model)
        result |= saved_models.export(model, output, data.test, compared=100)
    results.write(path, result)


def _lessons(task: Run, data: datasets.Images, float_model: keras.Model):
    """The batches to learn from, the targets of the test images, the loss and the accuracy."""
    training, labels = datasets.batches(data, BATCH_SIZE, SEED), data.test[1]
    if task.teacher_temperature is None:
        return training, labels, "sparse_categorical_crossentropy", "accuracy"
    teacher = partial(float_model, training=False)
    taught, unseen = distillation.lessons(training, labels, teacher, data.classes)
    return taught, unseen, distillation.loss(task.teacher_temperature), distillation.accuracy


def _accuracy(model: keras.Model, images, labels) -> float:
    return float(np.mean(model.predict(images, batch_size=250, verbose=0).argmax(-1) == labels))


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for task in RUNS:
        result = results.read(task.path(RESULTS))
        if result is not None:
            before, *after = (f"{accuracy:.2%}" for accuracy in result["accuracy"])
            file = result.get("file_accuracy", "still running")
            file = f"{file:.2%}" if isinstance(file, float) else file or ""
            stages = ", ".join(f"{epochs} {phase}" for phase, epochs in task.stages if phase)
            float_accuracy = f"{result['float_accuracy']:.2%}"
            rows.append((task.network, task.title, task.width, float_accuracy, before, ", ".join(after), file, stages))
    return results.page(
        "Fine-tuning pretrained networks, CIFAR-10, 10,000 test images",
        "`python -m benchmarks.fine_tuning`, seed 0, SGD with Nesterov momentum, batch 128, cosine from 0.01 (sat "
        "and pact for more than 5 epochs: 0.03) in each phase. *Before*: calibrated with 512 training images, no "
        f"training.\n\n{NOTES}",
        ("network", "scheme", "bits", "float", "before", "after each epoch", "file", "epochs of each phase"),
        rows,
    )


def run_all(tasks: Iterable[Run], folder: pathlib.Path, make_table: Callable[[], str]) -> None:
    """Runs every task that is left and whose name matches --only; writes the table after each."""
    data = datasets.load("cifar10", FLAGS.data_dir)
    for task in tasks:
        ended = "file_accuracy" in (results.read(task.path(folder)) or {})
        if fnmatch.fnmatchcase(task.name, FLAGS.only) and not ended:
            print(f"\n=== {task.name}", flush=True)
            train(task, data, folder)
            folder.with_suffix(".md").write_text(make_table())
            keras.backend.clear_session()
    print(make_table())


def define_flags() -> None:
    """The flags that `run_all` reads."""
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("pretrained_dir", None, "Where the pretrained networks are.", required=True)
    flags.DEFINE_string("only", "*", "Pattern of the names of the runs to do.")
    flags.DEFINE_string("output", "runs", "Folder for models and backups.")


def main(argv) -> None:
    """Runs every task that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    run_all(RUNS, RESULTS, table)


if __name__ == "__main__":
    define_flags()
    app.run(main)
