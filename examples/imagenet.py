"""The papers' recipes on ImageNet: SAT for MobileNetV1, MobileNetV2 and ResNet-50, Quantization Networks for ResNet-18.

    python -m examples.imagenet --data_dir=DIR --network=mobilenet_v2 --bits=4        # on all GPUs of the machine

The data come through tensorflow-datasets (imagenet2012, which has to be downloaded by hand). A recipe is a list of
stages; each starts from what the one before it became. A stage that is done is a file in --output, and one that was
interrupted goes on where it was: run the same command again. At the end the network is tested, exported and verified.

SAT's stages are both from the authors' code: the full-precision network with clamped weights, from scratch, then the
quantized one from it, 150 epochs each. In Quantization Networks first the float network trains, then weights,
activations, and both; the paper starts from a published network and does not say how many epochs each part had.
These runs take days. What was run of this program is two steps of each stage, on images made up: its results are not
known.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras
from absl import app, flags

import satkeras
import tflite_export
from examples import architectures, imagenet_data
from satkeras.callbacks import TemperaturePerEpoch

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "mobilenet_v2", ["mobilenet_v1", "mobilenet_v2", "resnet50", "resnet18"], "What to train.")
flags.DEFINE_integer("bits", 4, "Width of weights and activations (SAT).", 2, 8)
flags.DEFINE_enum(
    "levels", "ternary", ["ternary", "3bit+-2", "3bit+-4"], "Levels of the weights (Quantization Networks)."
)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "Of all but variables and quantizers."
)
flags.DEFINE_integer("epochs", None, "Epochs of each stage; the paper's by default.", lower_bound=1)
flags.DEFINE_integer("steps", None, "Training steps of an epoch; all images by default.", lower_bound=1)
flags.DEFINE_integer("test_steps", None, "Test batches; all images by default.", lower_bound=1)
flags.DEFINE_integer("verify_images", 100, "Test images that are compared integer by integer.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of weights and shuffling.")
flags.DEFINE_string("output", "runs/imagenet", "Folder for checkpoints, logs and the file.")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training.

    Attributes:
      name: of its file.
      start: from the model of the stage before (None: there is none) and images to the model that it trains.
      epochs: how many.
      learning_rate: at its highest, for 256 images in a step; in proportion for more.
      drops: epochs after which the learning rate falls to a tenth; none: it falls to 0 along a cosine.
      weight_decay: of all variables but `satkeras.undecayed_variables`.
      clipnorm: the largest norm of all gradients together.
      temperature: what each epoch adds to the temperature of Quantization Networks' sigmoids.
    """

    name: str
    start: Callable
    epochs: int
    learning_rate: float
    drops: tuple[int, ...] = ()
    weight_decay: float = 4e-5
    clipnorm: float | None = None
    temperature: float | None = None


def sat_stages(build: Callable, learning_rate: float) -> list[Stage]:
    """SAT's two stages (papers: arXiv:1912.10207; recipe: the authors' code)."""

    def clamped(before, images):
        return satkeras.quantize_model(build(), "sat", weight_bits=None, activation_bits=None)

    def quantized(before, images):
        return satkeras.quantize_model(before, "sat", weight_bits=FLAGS.bits, activation_bits=FLAGS.bits)

    return [Stage("clamped", clamped, 150, learning_rate), Stage("quantized", quantized, 150, learning_rate)]


def quantization_networks_stages(build: Callable) -> list[Stage]:
    """Quantization Networks, section 3.4: the float network, then weights, activations, and both."""
    common = {"drops": (30, 45, 55), "weight_decay": 1e-4, "clipnorm": 5.0, "temperature": 5.0}

    def weights(before, images):
        model = satkeras.quantize_model(
            before, "qn", weight_bits=FLAGS.levels, activation_bits=2, calibration_data=images
        )
        satkeras.set_phase(model, "weights")
        return model

    def activations(before, images):
        satkeras.set_thresholds(before, images)
        satkeras.set_phase(before, "activations")
        return before

    def both(before, images):
        satkeras.set_phase(before, "both")
        return before

    return [
        Stage("float", lambda before, images: build(), 90, 0.1, drops=(30, 60, 80), weight_decay=1e-4),
        Stage("weights", weights, 60, 1e-3, **common),
        Stage("activations", activations, 60, 1e-3, **common),
        Stage("both", both, 60, 1e-4, **common),
    ]


def stages() -> list[Stage]:
    """The stages of the network that the flags name."""
    shape = (FLAGS.image_size, FLAGS.image_size, 3)

    def build(network: Callable) -> Callable:
        return functools.partial(network, shape, imagenet_data.CLASSES, batch_norm_momentum=0.9)

    return {
        "mobilenet_v1": lambda: sat_stages(build(architectures.mobilenet_v1), 0.05),
        "mobilenet_v2": lambda: sat_stages(build(architectures.mobilenet_v2), 0.1),
        "resnet50": lambda: sat_stages(build(architectures.preact_resnet50), 0.05),
        "resnet18": lambda: quantization_networks_stages(build(architectures.resnet18)),
    }[FLAGS.network]()


def schedule(stage: Stage, epochs: int, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate by training steps: in proportion to the batch, with 5 epochs of warm-up above 256 images."""
    highest = stage.learning_rate * FLAGS.batch_size / 256
    if stage.drops:
        rates = [highest * 0.1**number for number in range(len(stage.drops) + 1)]
        ends = [round(drop * epochs / stage.epochs * steps) for drop in stage.drops]
        return keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates)
    if FLAGS.batch_size <= 256:
        return keras.optimizers.schedules.CosineDecay(highest, epochs * steps)
    warm_up = min(5, epochs - 1) * steps
    return keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps - warm_up, warmup_target=highest, warmup_steps=warm_up
    )


@keras.utils.register_keras_serializable("examples")
def cross_entropy(labels, logits):
    """In float32, whatever the precision of the logits."""
    return keras.losses.sparse_categorical_crossentropy(labels, tf.cast(logits, tf.float32), from_logits=True)


def train(model: keras.Model, stage: Stage, folder: pathlib.Path) -> None:
    """Trains a stage; one that was interrupted goes on from its last whole epoch."""
    epochs = FLAGS.epochs or stage.epochs
    steps = FLAGS.steps or imagenet_data.TRAINING_IMAGES // FLAGS.batch_size
    optimizer = keras.optimizers.SGD(
        schedule(stage, epochs, steps),
        momentum=0.9,
        nesterov=True,
        weight_decay=stage.weight_decay,
        global_clipnorm=stage.clipnorm,
    )
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
    model.compile(optimizer, cross_entropy, metrics=["accuracy"])
    callbacks = [
        keras.callbacks.BackupAndRestore(str(folder / f"{stage.name}_backup")),
        keras.callbacks.CSVLogger(str(folder / f"{stage.name}.csv"), append=True),
        keras.callbacks.TerminateOnNaN(),
    ]
    if stage.temperature is not None:
        callbacks.append(TemperaturePerEpoch(stage.temperature))
    model.fit(
        imagenet_data.training_batches(FLAGS.data_dir, FLAGS.image_size, FLAGS.batch_size, FLAGS.seed),
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=test_data(),
        callbacks=callbacks,
        verbose=2,
    )


def test_data() -> tf.data.Dataset:
    """The test images, or as many as the flags say."""
    batches = imagenet_data.test_batches(FLAGS.data_dir, FLAGS.image_size, FLAGS.batch_size)
    return batches.take(FLAGS.test_steps) if FLAGS.test_steps else batches


def _loaded(path: pathlib.Path, strategy: tf.distribute.Strategy) -> keras.Model:
    """A stage's model on all devices; Keras itself cannot load variables there that replicas add up."""
    stored = keras.models.load_model(path)
    with strategy.scope():
        model = keras.models.clone_model(stored)
        model.set_weights(stored.get_weights())
        model.compile(loss=cross_entropy, metrics=["accuracy"])
    return model


def main(argv) -> None:
    """Runs all stages, then tests and exports the network."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_global_policy(FLAGS.precision)
    batches = imagenet_data.training_batches(FLAGS.data_dir, FLAGS.image_size, FLAGS.batch_size, FLAGS.seed)
    images, _ = next(iter(batches))
    model, strategy = None, tf.distribute.MirroredStrategy()
    for stage in stages():
        path = folder / f"{stage.name}.keras"
        if path.exists():
            print(f"=== {stage.name}: done before", flush=True)
            model = _loaded(path, strategy)
            continue
        print(f"=== {stage.name}", flush=True)
        with strategy.scope():
            model = stage.start(model, images.numpy())
            train(model, stage, folder)
        satkeras.save_model(model, path)
    if FLAGS.network == "resnet18":
        satkeras.freeze(model)
    _, accuracy = model.evaluate(test_data(), verbose=0)
    unseen = next(iter(test_data().unbatch().batch(FLAGS.verify_images)))[0].numpy()
    report = tflite_export.export_tflite(model, folder / "model.tflite", verify_data=unseen)
    print(report)
    print(f"accuracy {accuracy:.2%}; integers that differ between file and twin: {report.verification.differing}")


if __name__ == "__main__":
    app.run(main)
