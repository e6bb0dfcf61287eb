"""Files as they were and made portable: what `benchmarks.portability` measures."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tf_keras as keras
from absl import flags

import satkeras
import tflite_export
from benchmarks import pretrained, results
from benchmarks.papers.rows import Place, trained_model
from benchmarks.papers.tables import TABLES
from examples import datasets
from examples.outcomes import post_training_int8
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed, write_file
from tflite_export.foreign.graph import FileGraph
from tflite_export.foreign.sums import KINDS, channels_of, read_sum, store_sum
from tflite_export.lowering.lower import make_plan
from tflite_export.portability.plans import Portability, prove
from tflite_export.portability.tables import with_tables
from tflite_export.portable_files import rewritten

FLAGS = flags.FLAGS
CALIBRATION_IMAGES = 512
TRAINING_STEPS, BATCH_SIZE = 400, 64
CONTROLS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A file as it was and made portable.

    Attributes:
      original: its bytes.
      portable: those of the portable one.
      proof: of that one.
      controls: the original with scales changed at random, as little as the pass changes them.
    """

    original: bytes
    portable: bytes
    proof: Portability
    controls: tuple[bytes, ...] = ()


def _float_network(name: str) -> keras.Model:
    model = pretrained.load(name, FLAGS.pretrained_dir)
    return keras.Model(model.input, model.get_layer("logits").output) if name == "resnet20" else model


def _calibrated(weight_bits, activation_bits, grid, ends, data: datasets.Images) -> keras.Model:
    """ResNet-20, calibrated only, its first and last layers of `ends` bits."""
    keras.utils.set_random_seed(0)
    scheme = dataclasses.replace(
        satkeras.SCHEMES["sat"],
        weights=DoReFaWeightQuantizer(grid=grid),
        lone_weights=SATWeightQuantizer(grid=grid),
        first_layer_bits=ends,
        last_layer_bits=ends,
    )
    return satkeras.quantize_model(
        _float_network("resnet20"),
        scheme,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration_data=data.train[0][:CALIBRATION_IMAGES].astype(np.float32),
    )


def _ternary(data: datasets.Images) -> keras.Model:
    """ResNet-20 with ternary weights, trained for some steps, once."""
    model = _calibrated(2, 8, "symmetric", 7, data)
    path = pathlib.Path(FLAGS.trained) / "ternary.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        schedule = keras.optimizers.schedules.CosineDecay(0.01, TRAINING_STEPS)
        model.compile(keras.optimizers.SGD(schedule, momentum=0.9, clipnorm=1.0), loss)
        model.fit(datasets.batches(data, BATCH_SIZE, 0), steps_per_epoch=TRAINING_STEPS, verbose=0)
        model.save_weights(path)
    model.load_weights(path)
    return model


def _of_papers(
    table: str, row: str, data: datasets.Images, epochs: int | None = None, images: int | None = None
) -> keras.Model:
    """A network that `benchmarks.papers` has trained, by its first seed; with epochs and images, in small."""
    folder = pathlib.Path(FLAGS.papers) / table
    place = Place(results.FOLDER / "papers" / table, folder, epochs or TABLES[table].epochs, images)
    return trained_model(TABLES[table], row, place, 0, data.classes)


def _pair_of(model: keras.Model) -> Pair:
    plan = with_tables(make_plan(tflite_export.portable_model(model)))
    controls = tuple(write_file(make_plan(_control(model, seed))) for seed in range(CONTROLS))
    return Pair(write_file(make_plan(model)), write_file(plan), prove(plan), controls)


def _control(model: keras.Model, seed: int) -> keras.Model:
    """The model with each channel's scale, a batch norm's gamma, times 1 within 0.1 %."""
    rng, control = np.random.default_rng(seed), keras.models.clone_model(model)
    control.set_weights(model.get_weights())
    for layer in control.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale:
            gamma = layer.gamma.numpy()
            layer.gamma.assign(gamma * rng.uniform(0.999, 1.001, gamma.shape))
    return control


def _converted(name: str, data: datasets.Images) -> Pair:
    """What TensorFlow's converter makes after training."""
    original = post_training_int8(_float_network(name), data.train[0][:200])
    return Pair(original, *rewritten(original), tuple(_control_of_file(original, seed) for seed in range(CONTROLS)))


def _of_mlperf(name: str) -> Pair:
    """An int8 file of MLPerf Tiny's repository, https://github.com/mlcommons/tiny, benchmark/training."""
    original = (pathlib.Path(FLAGS.pretrained_dir) / f"{name}.tflite").read_bytes()
    return Pair(original, *rewritten(original), tuple(_control_of_file(original, seed) for seed in range(CONTROLS)))


def _control_of_file(content: bytes, seed: int) -> bytes:
    """The file with the scale of each channel of its kernels times 1 within 0.1 %, the real biases as they were."""
    rng, model = np.random.default_rng(seed), read_model(content)
    file = FileGraph(model)
    for operator in file.operators:
        if file.builtin(operator) in KINDS:
            found = read_sum(file, operator)
            channels = channels_of(file, found)
            factor = rng.uniform(0.999, 1.001, 1 if channels.one_scale else len(channels.bias))
            store_sum(file, found, channels.weight_scale[: len(factor)] * factor, np.rint(channels.bias / factor))
    return packed(model)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One pair of files.

    Attributes:
      make: from a data set to the pair.
      dataset: which, of `examples.datasets`.
      repeated: how often each of the data set's pixels is, in height and width.
      labelled: whether the file was trained on the data set.
    """

    make: Callable[[datasets.Images], Pair]
    dataset: str = "cifar10"
    repeated: int = 1
    labelled: bool = True


def _of_model(make: Callable[[datasets.Images], keras.Model], dataset: str = "cifar10") -> Case:
    return Case(lambda data: _pair_of(make(data)), dataset)


CASES: dict[str, Case] = {
    "ResNet-20 W4A4 symmetric": _of_model(lambda data: _calibrated(4, 4, "symmetric", 7, data)),
    "ResNet-20 W4A4 odd": _of_model(lambda data: _calibrated(4, 4, "odd", 7, data)),
    "ResNet-20 W7A8": _of_model(lambda data: _calibrated(7, 8, "symmetric", 7, data)),
    "ResNet-20 W8A8": _of_model(lambda data: _calibrated(8, 8, "symmetric", 8, data)),
    "ResNet-20 ternary A8 trained": _of_model(_ternary),
    "ResNet-20 W2A2 trained": _of_model(lambda data: _of_papers("resnet20", "SAT W2A2", data)),
    "TensorFlow int8 ResNet-20": Case(lambda data: _converted("resnet20", data)),
    "TensorFlow int8 ResNet-8": Case(lambda data: _converted("resnet8", data)),
    "MLPerf Tiny int8 ResNet-8": Case(lambda data: _of_mlperf("pretrainedResnet_quant")),
    "MLPerf Tiny int8 MobileNetV1 0.25": Case(lambda data: _of_mlperf("vww_96_int8"), repeated=3, labelled=False),
    "MobileNetV1 W4A4 trained": _of_model(
        lambda data: _of_papers("mobilenet_v1", "SAT W4A4, two stages", data), "cifar100"
    ),
    "MobileNetV2 W4A4 trained": _of_model(
        lambda data: _of_papers("mobilenet_v2", "SAT W4A4, two stages", data), "cifar100"
    ),
    "MobileNetV3 W4A4 trained": _of_model(
        lambda data: _of_papers("gated", "MobileNetV3 W4A4", data, epochs=10, images=10_000)
    ),
}


def define_flags() -> None:
    """Where what the networks come from is."""
    flags.DEFINE_string("pretrained_dir", None, "Where the pretrained networks are.", required=True)
    flags.DEFINE_string("papers", "runs/papers", "Where the weights that `benchmarks.papers` trained are.")
    flags.DEFINE_string("trained", "runs/portability", "Where the weights that are trained here are kept.")
