"""Fine-tunes two pretrained CIFAR-10 networks at each width of each scheme, for a few epochs.

    python -m benchmarks.fine_tuning --data_dir=DIR --pretrained_dir=DIR [--only='resnet8 *']

`data_dir` is tensorflow-datasets', `pretrained_dir` holds the networks (see `benchmarks.pretrained`). Every run is a
file in `docs/results/fine_tuning/`, written as its epochs end; a run that was interrupted goes on from its last epoch,
one that has ended is not run again. The table of all of them is `docs/results/fine_tuning.md`.
"""

import dataclasses
import fnmatch
import json
import os
import pathlib
import platform

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags

import satkeras
import tflite_export
from benchmarks import pretrained
from examples import datasets
from satkeras.callbacks import TemperaturePerStep
from satkeras.files import write_whole
from tflite_export.interpreter import open_interpreter, run

FLAGS = flags.FLAGS
RESULTS = pathlib.Path("docs/results/fine_tuning")
SEED = 0
BATCH_SIZE = 128
CALIBRATION_IMAGES = 512
LEARNING_RATE = 0.01
# Of Quantization Networks' sigmoids, at the end of each phase.
HIGHEST_TEMPERATURE = 2000.0


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      network: of `benchmarks.pretrained`.
      scheme: of `satkeras.SCHEMES`.
      weight_bits: as `quantize_model` takes them.
      activation_bits: the same.
      stages: (phase, epochs over the 50,000 training images); for "qn" phases as `set_phase` takes them, for the others
        one stage without.
    """

    network: str
    scheme: str
    weight_bits: int | str
    activation_bits: int
    stages: tuple[tuple[str | None, int], ...]

    @property
    def epochs(self) -> int:
        return sum(epochs for _, epochs in self.stages)

    @property
    def name(self) -> str:
        return f"{self.network} {self.scheme} W{self.weight_bits}A{self.activation_bits} {self.epochs} epochs"

    @property
    def path(self) -> pathlib.Path:
        return RESULTS / f"{self.name.replace(' ', '_')}.json"


def _plain(network: str, scheme: str, bits: int, epochs: int) -> Run:
    return Run(network, scheme, bits, bits, ((None, epochs),))


_WEIGHTS_ALONE = (("weights", 5),)
_THREE_PHASES = (("weights", 2), ("activations", 1), ("both", 2))

RUNS = (
    *(_plain(network, "sat", bits, epochs) for network in ("resnet8", "resnet20") for bits, epochs in ((8, 1), (4, 1))),
    *(_plain(network, "sat", 4, 5) for network in ("resnet8", "resnet20")),
    *(_plain("resnet20", scheme, bits, 5) for bits in (2, 3) for scheme in ("sat", "pact")),
    *(Run("resnet20", "qn", bits, 8, _WEIGHTS_ALONE) for bits in ("3bit+-4", "ternary", 1)),
    *(Run("resnet20", "qn", bits, 2, _THREE_PHASES) for bits in ("3bit+-4", 1)),
    _plain("resnet20", "pact", 4, 5),
    *(_plain("resnet20", scheme, 8, 5) for scheme in ("sat", "pact")),
)


def train(task: Run, data: datasets.Images) -> None:
    """Runs what is left of a task."""
    keras.utils.set_random_seed(SEED)
    float_model = pretrained.load(task.network, FLAGS.pretrained_dir)
    images, labels = data.test[0].astype(np.float32), data.test[1]
    chosen = np.random.default_rng(SEED).permutation(len(data.train[0]))[:CALIBRATION_IMAGES]
    calibration_data = data.train[0][chosen].astype(np.float32)
    model = satkeras.quantize_model(
        float_model,
        task.scheme,
        weight_bits=task.weight_bits,
        activation_bits=task.activation_bits,
        overrides={"*_shortcut": "int8"} if task.network == "resnet20" else None,
        calibration_data=calibration_data,
    )
    result = json.loads(task.path.read_text()) if task.path.exists() else None
    if result is None:
        result = {
            **dataclasses.asdict(task),
            "seed": SEED,
            "tensorflow": tf.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "float_accuracy": _accuracy(float_model, images, labels),
            "accuracy": [_accuracy(model, images, labels)],
        }
        _save(task, result)

    folder = pathlib.Path(FLAGS.output) / task.path.stem
    folder.mkdir(parents=True, exist_ok=True)
    steps = len(data.train[0]) // BATCH_SIZE
    before = 1
    for index, (phase, epochs) in enumerate(task.stages):
        ended = folder / f"stage_{index}.h5"
        if ended.exists():
            model.load_weights(ended)
        callbacks: list[keras.callbacks.Callback] = [keras.callbacks.BackupAndRestore(folder / f"backup_{index}")]
        if phase is not None:
            if phase == "activations" and not ended.exists():
                satkeras.set_thresholds(model, calibration_data)
            satkeras.set_phase(model, phase)
            callbacks.append(TemperaturePerStep(HIGHEST_TEMPERATURE / (steps * epochs), HIGHEST_TEMPERATURE))
        if not ended.exists():

            def note(epoch, logs, first=before):
                result["accuracy"] = [*result["accuracy"][: first + epoch], logs["val_accuracy"]]
                _save(task, result)

            _compile(model, steps * epochs)
            model.fit(
                datasets.batches(data, BATCH_SIZE, SEED),
                epochs=epochs,
                validation_data=(images, labels),
                validation_batch_size=250,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note), *callbacks],
                verbose=2,
            )
            model.save_weights(ended)
        before += epochs
    if task.scheme == "qn":
        satkeras.freeze(model)
    satkeras.save_model(model, folder / "model.keras")
    report = tflite_export.export_tflite(model, folder / "model.tflite", verify_data=images[:100])
    (answers,) = run(open_interpreter((folder / "model.tflite").read_bytes()), data.test[0])
    result["file_accuracy"] = float(np.mean(answers.argmax(-1) == labels))
    result["file_bytes"] = report.file_bytes
    result["differing_integers_100_images"] = report.verification.differing
    _save(task, result)


def _compile(model: keras.Model, steps: int) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=1e-4)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "alpha", "thresholds"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])


def _accuracy(model: keras.Model, images, labels) -> float:
    return float(np.mean(model.predict(images, batch_size=250, verbose=0).argmax(-1) == labels))


def _save(task: Run, result: dict) -> None:
    task.path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(task.path, json.dumps(result, indent=1).encode())


def table() -> str:
    """All results there are, in Markdown."""
    lines = [
        "# Fine-tuning pretrained networks, CIFAR-10, 10,000 test images",
        "",
        "`python -m benchmarks.fine_tuning`, seed 0, cosine from 0.01, batch 128. *Before*: calibrated with 512"
        " training images, no training.",
        "",
        "| network | scheme | bits | float | before | after each epoch | file |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in RUNS:
        if task.path.exists():
            result = json.loads(task.path.read_text())
            before, *after = (f"{accuracy:.2%}" for accuracy in result["accuracy"])
            ended = f"{result['file_accuracy']:.2%}" if "file_accuracy" in result else "still running"
            width, float_accuracy = f"W{task.weight_bits}A{task.activation_bits}", f"{result['float_accuracy']:.2%}"
            cells = (task.network, task.scheme, width, float_accuracy, before, ", ".join(after), ended)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv) -> None:
    """Runs every task that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    data = datasets.load("cifar10", FLAGS.data_dir)
    for task in RUNS:
        ended = task.path.exists() and "file_accuracy" in json.loads(task.path.read_text())
        if fnmatch.fnmatchcase(task.name, FLAGS.only) and not ended:
            print(f"\n=== {task.name}", flush=True)
            train(task, data)
            RESULTS.with_suffix(".md").write_text(table())
            keras.backend.clear_session()
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("pretrained_dir", None, "Where the pretrained networks are.", required=True)
    flags.DEFINE_string("only", "*", "Pattern of the names of the runs to do.")
    flags.DEFINE_string("output", "runs/fine_tuning", "Folder for models and backups.")
    app.run(main)
