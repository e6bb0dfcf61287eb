"""Trains a small MobileNetV2 with SAT, exports it, proves the file, and shows what came of it.

    python -m examples.train                                            # 5,000 MNIST images, about 3 minutes
    python -m examples.train --dataset=cifar100 --data_dir=DIR          # through tensorflow-datasets
    python -m examples.train --network=MobileNetV3Small                 # any network of keras.applications

The two stages of SAT: a float network is trained; a clamped full-precision one starts from it; from that one start the
networks of each bit width. Every quantized network is exported and verified on the test images.
"""

import dataclasses
import json
import pathlib
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags, logging

import satkeras
import tflite_export
from examples import applications, architectures, datasets, page
from tflite_export.verification.interpreter import open_interpreter, run

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", "mnist", ["mnist", "digits", "cifar10", "cifar100"], "What to train on.")
flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data (CIFAR only).")
flags.DEFINE_enum(
    "network",
    "mobilenet_v2",
    ["mobilenet_v2", "resnet20", *applications.APPLICATIONS],
    "What to train: a small network, or one of keras.applications from scratch.",
)
flags.DEFINE_enum("scheme", "sat", sorted(satkeras.SCHEMES), "How to quantize.")
flags.DEFINE_multi_integer("bits", [8, 4], "Widths to train, weights and activations alike.", 2, 8)
flags.DEFINE_integer("epochs", None, "Epochs of each training; by default what suits the data set.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images in a step; by default what suits the data set.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "At the start; by default what suits the data set.", lower_bound=0.0)
flags.DEFINE_integer("verify_images", 200, "Test images that are compared integer by integer.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of weights and shuffling.")
flags.DEFINE_string("output", "runs/demo", "Folder for the report and the files.")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how fast to train on a data set.

    Attributes:
      epochs: of each training.
      batch_size: images in a step.
      learning_rate: at the start; it falls to 0 along a cosine.
      weight_decay: of the kernels of convolutions and dense layers; none for depthwise kernels, batch norm, biases and
        alpha.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 4e-5


RECIPES = {
    "mnist": Recipe(epochs=4, batch_size=128, learning_rate=0.1),
    "digits": Recipe(epochs=10, batch_size=64, learning_rate=0.05),
    "cifar10": Recipe(epochs=30, batch_size=128, learning_rate=0.1),
    "cifar100": Recipe(epochs=30, batch_size=128, learning_rate=0.1),
}


@dataclasses.dataclass
class Outcome:
    """What one trained network achieved.

    Attributes:
      name: for example "SAT W4A4".
      keras_accuracy: on the test images, in Keras.
      file_accuracy: the same of the `.tflite` file in LiteRT.
      file_bytes: size of the file.
      milliseconds: median time of one image in LiteRT, one thread.
      history: test accuracy after each epoch.
      differing: integers that differ between file and twin, over all layers; None for the float network.
      compared: how many integers were compared.
      agreement: share of images where Keras and the file answer alike.
      alphas: for each learned clip value, its value after each epoch.
      weights: for a few layers, how often each integer occurs in the kernel.
    """

    name: str
    keras_accuracy: float
    file_accuracy: float
    file_bytes: int
    milliseconds: float
    history: list[float]
    differing: int | None = None
    compared: int | None = None
    agreement: float | None = None
    alphas: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    weights: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)


class AlphaHistory(keras.callbacks.Callback):
    """Notes every learned clip value at the start and after each epoch."""

    def __init__(self):
        super().__init__()
        self.values: dict[str, list[float]] = {}

    def _note(self):
        for variable in satkeras.learned_variables(self.model, "clip"):
            layer = variable.name.split("/")[0].removeprefix("quant_")
            self.values.setdefault(layer, []).append(float(variable))

    def on_train_begin(self, logs=None):
        self._note()

    def on_epoch_end(self, epoch, logs=None):
        self._note()


def build_network(data: datasets.Images) -> keras.Model:
    """The float network for a data set; batch norm statistics follow fast, as short runs need."""
    shape = data.train[0].shape[1:]
    if FLAGS.network in applications.APPLICATIONS:
        return applications.application(FLAGS.network, shape, data.classes)
    if FLAGS.network == "resnet20":
        return architectures.resnet20(shape, data.classes, batch_norm_momentum=0.9)
    if data.mirrored:
        return architectures.mobilenet_v2(shape, data.classes, width=0.5, small_images=True, batch_norm_momentum=0.9)
    blocks = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 32, 2, 2))
    return architectures.mobilenet_v2(shape, data.classes, blocks=blocks, last_channels=96, batch_norm_momentum=0.9)


def fit(model: keras.Model, data: datasets.Images, recipe: Recipe) -> tuple[list[float], dict[str, list[float]]]:
    """Trains a model; returns its test accuracy and its alphas, epoch by epoch."""
    steps = len(data.train[0]) // recipe.batch_size * recipe.epochs
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    alphas = AlphaHistory()
    test_images, test_labels = data.test
    history = model.fit(
        datasets.batches(data, recipe.batch_size, FLAGS.seed),
        epochs=recipe.epochs,
        validation_data=(test_images.astype(np.float32), test_labels),
        validation_batch_size=250,
        callbacks=[alphas],
        verbose=2,
    )
    return history.history["val_accuracy"], alphas.values


def measure_file(content: bytes, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy of a file in LiteRT on images of its own input type, and median milliseconds for one image."""
    interpreter = open_interpreter(content)
    (answers,) = run(interpreter, images)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return float(np.mean(answers.argmax(-1) == labels)), 1e3 * float(np.median(times))


def float_outcome(model: keras.Model, history: list[float], data: datasets.Images, folder: pathlib.Path) -> Outcome:
    """Exports the float network as it is, for comparison."""
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (folder / "float.tflite").write_bytes(content)
    accuracy, milliseconds = measure_file(content, data.test[0].astype(np.float32), data.test[1])
    return Outcome("float", history[-1], accuracy, len(content), milliseconds, history)


def quantized_outcome(name: str, model: keras.Model, history, alphas, data: datasets.Images, folder) -> Outcome:
    """Exports and verifies a quantized network."""
    images, labels = data.test
    path = folder / f"{name.lower().replace(' ', '_')}.tflite"
    verify_data = images[: FLAGS.verify_images].astype(np.float32)
    report = tflite_export.export_tflite(model, path, verify_data=verify_data)
    print(report, flush=True)
    path.with_suffix(".json").write_text(report.to_json())
    accuracy, milliseconds = measure_file(path.read_bytes(), images, labels)
    kernels = satkeras.integer_weights(model)
    shown = [list(kernels)[i] for i in np.linspace(0, len(kernels) - 1, 6).astype(int)]
    return Outcome(
        name,
        history[-1],
        accuracy,
        report.file_bytes,
        milliseconds,
        history,
        report.verification.differing,
        sum(tensor.elements for tensor in report.verification.tensors),
        report.verification.top1_agreement,
        alphas,
        {layer.removeprefix("quant_"): _histogram(kernels[layer].integers) for layer in shown},
    )


def _histogram(integers: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(integers, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def main(argv) -> None:
    """Runs the whole program."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(FLAGS.seed)
    data = datasets.load(FLAGS.dataset, FLAGS.data_dir)
    given = {name: FLAGS[name].value for name in ("epochs", "batch_size", "learning_rate")}
    recipe = dataclasses.replace(
        RECIPES[FLAGS.dataset], **{name: value for name, value in given.items() if value is not None}
    )

    _announce(f"float network, {recipe.epochs} epochs on {len(data.train[0]):,} images")
    network = build_network(data)
    history, _ = fit(network, data, recipe)
    outcomes = [float_outcome(network, history, data, folder)]

    _announce("first stage: full precision, weights clamped and rescaled")
    clamped = satkeras.quantize_model(network, FLAGS.scheme, weight_bits=None, activation_bits=None)
    fit(clamped, data, recipe)

    for width in FLAGS.bits:
        name = f"{FLAGS.scheme.upper()} W{width}A{width}"
        _announce(f"second stage: {name}")
        model = satkeras.quantize_model(clamped, FLAGS.scheme, weight_bits=width, activation_bits=width)
        outcomes.append(quantized_outcome(name, model, *fit(model, data, recipe), data, folder))

    results = {"flags": FLAGS.flag_values_dict(), "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
    (folder / "results.json").write_text(json.dumps(results, indent=2, default=str))
    page.write(folder, FLAGS.dataset, network.name, outcomes)
    _announce("done")
    print(page.summary(outcomes))
    print(f"\nReport: {folder / 'index.html'}")


def _announce(stage: str) -> None:
    print(f"\n=== {stage}", flush=True)


if __name__ == "__main__":
    app.run(main)
