"""Trains a small MobileNetV2, quantizes it at several widths, exports it, proves the files, and shows what came of it.

    python -m examples.train                                            # 5,000 MNIST images, about 3 minutes
    python -m examples.train --dataset=cifar100 --data_dir=DIR          # through tensorflow-datasets
    python -m examples.train --network=MobileNetV3Small                 # any network of keras.applications

A float network is trained. The network of each width starts from it, calibrated; 8 bits need no more, 4 bits train for
half the epochs, fewer bits for all of them, and batch norms get the statistics of the trained weights. Every quantized
network is exported and verified on test images, that of 4 bits once more with its weights packed.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import tf_keras as keras
from absl import app, flags, logging

import satkeras
from examples import applications, architectures, datasets, outcomes, page

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
flags.DEFINE_multi_integer("bits", [8, 4, 2], "Widths to train, weights and activations alike.", 2, 8)
flags.DEFINE_integer("epochs", None, "Epochs of each training; by default what suits the data set.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images in a step; by default what suits the data set.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "At the start; by default what suits the data set.", lower_bound=0.0)
flags.DEFINE_integer("verify_images", 100, "Test images that are compared integer by integer.", lower_bound=1)
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
      clip_norm: the largest norm of all gradients together; None for no limit.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 4e-5
    clip_norm: float | None = None


STATISTICS_IMAGES = 1024  # for the batch norms of a trained network
RECIPES = {
    "mnist": Recipe(epochs=4, batch_size=128, learning_rate=0.1),
    "digits": Recipe(epochs=10, batch_size=64, learning_rate=0.05),
    "cifar10": Recipe(epochs=30, batch_size=128, learning_rate=0.1),
    "cifar100": Recipe(epochs=30, batch_size=128, learning_rate=0.1),
}


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
    optimizer = keras.optimizers.SGD(
        schedule, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay, global_clipnorm=recipe.clip_norm
    )
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
    optimizer.build(model.trainable_variables)  # made while the step is traced, its variables cost seconds
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    alphas = outcomes.AlphaHistory()
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


def fine_tuning(recipe: Recipe, width: int) -> Recipe | None:
    """How a network of some width trains on from a calibrated start; None where calibration is enough.

    Gradients are limited: a MobileNetV3 that had hardly learned in float diverged.
    """
    if width > 4:
        return None
    share = 1 if width < 4 else 2
    return dataclasses.replace(
        recipe,
        epochs=max(1, recipe.epochs // share),
        learning_rate=recipe.learning_rate / share,
        clip_norm=1.0,
    )


def scheme_at(width: int) -> satkeras.Scheme:
    """The scheme of the flags; at 4 bits with DoReFa's symmetric grid, -7 .. 7, which 4 bits hold; the odd takes 5."""
    scheme = satkeras.SCHEMES[FLAGS.scheme]
    if width != 4:
        return scheme
    weights, lone_weights = (
        dataclasses.replace(quantizer, grid="symmetric") if hasattr(quantizer, "grid") else quantizer
        for quantizer in (scheme.weights, scheme.lone_weights)
    )
    return dataclasses.replace(scheme, weights=weights, lone_weights=lone_weights)


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
    _announce("the converter's own post-training int8, for comparison")
    answers = outcomes.answers_of(network, data)
    found = [
        outcomes.float_outcome(network, answers, history, data, folder),
        outcomes.converter_outcome(network, answers, data, folder),
    ]

    for width in FLAGS.bits:
        name = f"{FLAGS.scheme.upper()} W{width}A{width}"
        its_recipe = fine_tuning(recipe, width)
        _announce(f"{name}: calibrated" + (f", then {its_recipe.epochs} epochs" if its_recipe else ""))
        model = satkeras.quantize_model(
            network,
            scheme_at(width),
            weight_bits=width,
            activation_bits=width,
            calibration_data=data.train[0][: outcomes.CALIBRATION_IMAGES].astype(np.float32),
            verbose=0,
        )
        trained = [], {}
        if its_recipe:
            trained = fit(model, data, its_recipe)
        if its_recipe and any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
            satkeras.reestimate_batch_norm(model, data.train[0][:STATISTICS_IMAGES].astype(np.float32))
        measured = functools.partial(outcomes.quantized_outcome, model, answers, *trained, data, FLAGS.verify_images)
        found.append(measured(folder, name))
        if width == 4:
            found.append(measured(folder, f"{name}, packed", weight_storage="packed"))

    found = outcomes.with_latencies(found)
    results = {"flags": FLAGS.flag_values_dict(), "outcomes": [dataclasses.asdict(outcome) for outcome in found]}
    (folder / "results.json").write_text(json.dumps(results, indent=2, default=str))
    page.write(folder, FLAGS.dataset, network.name, found)
    _announce("done")
    print(page.summary(found))
    print(f"\nReport: {folder / 'index.html'}")


def _announce(stage: str) -> None:
    print(f"\n=== {stage}", flush=True)


if __name__ == "__main__":
    app.run(main)
