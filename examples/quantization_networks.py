"""Trains a ResNet-20 with Quantization Networks, phase by phase, and exports it.

On 5,000 MNIST images, which takes some minutes; or, through tensorflow-datasets, on CIFAR:

    python -m examples.quantization_networks
    python -m examples.quantization_networks --dataset=cifar10 --data_dir=DIR --epochs=20
"""

import pathlib

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
import tflite_export
from examples import architectures, datasets
from satkeras.training.callbacks import TemperaturePerStep

BATCH_SIZE = 64
HIGHEST_TEMPERATURE = 2000.0


def fit(model: keras.Model, data: datasets.Images, epochs: int, rate: float, seed: int, callbacks=()) -> None:
    """Trains a model, its learning rate falling along a cosine."""
    steps = len(data.train[0]) // BATCH_SIZE * epochs
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(rate, steps), momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    images, labels = data.test
    model.fit(
        datasets.batches(data, BATCH_SIZE, seed),
        epochs=epochs,
        validation_data=(images.astype(np.float32), labels),
        validation_batch_size=250,
        callbacks=list(callbacks),
        verbose=2,
    )


def train_in_phases(model: keras.Model, data: datasets.Images, epochs: int, rate: float, seed: int) -> None:
    """Weights first, then activations with the weights fixed, then both; then thresholds go to the 8-bit grid."""
    increase = HIGHEST_TEMPERATURE / (len(data.train[0]) // BATCH_SIZE * epochs)
    for phase in ("weights", "activations", "both"):
        print(f"\n=== phase {phase!r}", flush=True)
        if phase == "activations":
            satkeras.set_thresholds(model, data.train[0][:500])
        satkeras.set_phase(model, phase)
        fit(model, data, epochs, rate, seed, [TemperaturePerStep(increase, HIGHEST_TEMPERATURE)])
    satkeras.freeze(model)


def main(argv) -> None:
    """Runs the whole program."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    settings = flags.FLAGS
    keras.utils.set_random_seed(settings.seed)
    data = datasets.load(settings.dataset, settings.data_dir)
    print("=== float network", flush=True)
    network = architectures.resnet20(data.train[0].shape[1:], data.classes, batch_norm_momentum=0.9)
    fit(network, data, settings.epochs, 0.05, settings.seed)
    weight_bits = int(settings.weights) if settings.weights.isdigit() else settings.weights
    model = satkeras.quantize_model(
        network,
        "qn",
        weight_bits=weight_bits,
        activation_bits=settings.activation_bits,
        calibration_data=data.train[0][:500],
    )
    train_in_phases(model, data, settings.epochs, 0.01, settings.seed)
    path = pathlib.Path(settings.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    print(tflite_export.export_tflite(model, path, verify_data=data.test[0][: settings.verify_images]))
    print(satkeras.summary(model))


if __name__ == "__main__":
    flags.DEFINE_enum("dataset", "mnist", ["mnist", "digits", "cifar10", "cifar100"], "What to train on.")
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data (CIFAR only).")
    flags.DEFINE_string("weights", "3bit+-4", "Levels of the weights: 1 to 5, ternary, 3bit+-2, 3bit+-4 or 8.")
    flags.DEFINE_integer("activation_bits", 2, "1 to 4, or 8.")
    flags.DEFINE_integer("epochs", 2, "Epochs of each phase.", lower_bound=1)
    flags.DEFINE_integer("verify_images", 100, "Test images that are compared integer by integer.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of weights and shuffling.")
    flags.DEFINE_string("output", "runs/quantization_networks.tflite", "Path of the file.")
    app.run(main)
