"""One file on every runtime: the integers of all its tensors that differ, before and after, and its accuracy.

    python -m benchmarks.portability --data_dir=DIR --pretrained_dir=DIR [--only='ResNet-20 *'] [--images=500]

A pretrained ResNet-20 (see `benchmarks.pretrained`), calibrated at several widths, int8 files that TensorFlow's
converter makes of it and of MLPerf Tiny's ResNet-8 after training, and networks that `benchmarks.papers` has trained,
where their weights are. Each is written as it is and made portable. LiteRT's
default, builtin and reference kernels run both, with one, two and four threads, and `make judges`' runtimes the
portable one. Every network is a file in `docs/results/portability/`; one that is there with as many images is not
measured again. The table of all is `docs/results/portability.md`.
"""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

import satkeras
import tflite_export
from benchmarks import judges, pretrained, results
from benchmarks.papers.command import load
from benchmarks.papers.rows import Place, trained_model
from benchmarks.papers.tables import TABLES
from examples import datasets
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed, write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.portability.plans import Portability, prove
from tflite_export.portability.tables import with_tables
from tflite_export.portable_files import rewritten
from tflite_export.verification.interpreter import RESOLVERS

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "portability"
CALIBRATION_IMAGES = 512
THREADS = (1, 2, 4)
JUDGES = {"tflite_runtime": 20, "tflm": 50, "tosa": 3}  # and on how many images
ARM = {"arm": 3}
CONTROLS = 3
SECONDS = 300  # that a judge may take


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


def _calibrated(weight_bits, activation_bits, grid, ends, data: datasets.Images) -> Pair:
    """ResNet-20, calibrated only, its first and last layers of `ends` bits."""
    keras.utils.set_random_seed(0)
    scheme = dataclasses.replace(
        satkeras.SCHEMES["sat"],
        weights=DoReFaWeightQuantizer(grid=grid),
        lone_weights=SATWeightQuantizer(grid=grid),
        first_layer_bits=ends,
        last_layer_bits=ends,
    )
    model = satkeras.quantize_model(
        _float_network("resnet20"),
        scheme,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration_data=data.train[0][:CALIBRATION_IMAGES].astype(np.float32),
    )
    return _pair_of(model)


def _of_papers(table: str, row: str, data: datasets.Images) -> Pair:
    """A network that `benchmarks.papers` has trained, by its first seed."""
    place = Place(results.FOLDER / "papers" / table, pathlib.Path(FLAGS.papers) / table, TABLES[table].epochs)
    return _pair_of(trained_model(TABLES[table], row, place, 0, data.classes))


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
    images = data.train[0][:200].astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(_float_network(name))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
    original = bytes(converter.convert())
    return Pair(original, *rewritten(original))


CASES: dict[str, Callable[[datasets.Images], Pair]] = {
    "ResNet-20 W4A4 symmetric": lambda data: _calibrated(4, 4, "symmetric", 7, data),
    "ResNet-20 W4A4 odd": lambda data: _calibrated(4, 4, "odd", 7, data),
    "ResNet-20 W2A2 odd": lambda data: _calibrated(2, 2, "odd", 7, data),
    "ResNet-20 W2A2 ternary": lambda data: _calibrated(2, 2, "symmetric", 7, data),
    "ResNet-20 W7A8": lambda data: _calibrated(7, 8, "symmetric", 7, data),
    "ResNet-20 W8A8": lambda data: _calibrated(8, 8, "symmetric", 8, data),
    "TensorFlow int8 ResNet-20": lambda data: _converted("resnet20", data),
    "TensorFlow int8 ResNet-8": lambda data: _converted("resnet8", data),
    "ResNet-20 W2A2 trained": lambda data: _of_papers("resnet20", "SAT W2A2", data),
    "MobileNetV1 W4A4 trained": lambda data: _of_papers("mobilenet_v1", "SAT W4A4, two stages", data),
    "MobileNetV2 W4A4 trained": lambda data: _of_papers("mobilenet_v2", "SAT W4A4, two stages", data),
}
ON_CIFAR100 = "MobileNet"


def exposed(content: bytes) -> bytes:
    """The file with every int8 tensor that its operators write as an output."""
    model = read_model(content)
    graph = model.subgraphs[0]
    written = [int(index) for operator in graph.operators for index in operator.outputs]
    graph.outputs = [index for index in written if graph.tensors[index].type == schema.TensorType.INT8]
    model.signatureDefs = []
    return packed(model)


def run_here(content: bytes, kernels: str, threads: int, images: np.ndarray) -> list[np.ndarray]:
    """The outputs of LiteRT's kernels for images, in the file's order."""
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=RESOLVERS[kernels], num_threads=threads
    )
    interpreter.allocate_tensors()
    (slot,) = (detail["index"] for detail in interpreter.get_input_details())
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    found = []
    for image in images:
        interpreter.set_tensor(slot, image[None])
        interpreter.invoke()
        found.append([interpreter.get_tensor(index) for index in outputs])
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def count(one: list[np.ndarray], other: list[np.ndarray]) -> dict[str, int]:
    """How many integers were compared, on as many images as both have, and how many differ."""
    images = min(len(one[0]), len(other[0]))
    pairs = [(a[:images], b[:images]) for a, b in zip(one, other, strict=True)]
    return {
        "images": images,
        "integers": sum(a.size for a, _ in pairs),
        "differing": sum(int(np.count_nonzero(a != b)) for a, b in pairs),
    }


def measure(case: str, data: datasets.Images) -> dict:
    """Both files of a case on all runtimes."""
    pair = CASES[case](data)
    images = data.test[0][: FLAGS.images]
    before, after = exposed(pair.original), exposed(pair.portable)
    few = images[:100]
    original = run_here(before, "xnnpack", 1, few)
    found = {
        "images": FLAGS.images,
        "proof": dataclasses.asdict(pair.proof),
        "bytes": [len(pair.original), len(pair.portable)],
        "original": {
            kernels: count(original, run_here(before, kernels, 1, few)) for kernels in ("builtin", "reference")
        },
        "portable": {},
    }
    expected = run_here(after, "xnnpack", 1, images)
    for kernels in RESOLVERS:
        for threads in THREADS if kernels != "reference" else THREADS[:1]:
            if (kernels, threads) != ("xnnpack", 1):
                found["portable"][f"{kernels}, {threads}"] = count(expected, run_here(after, kernels, threads, images))
    for name, some in (JUDGES | (ARM if FLAGS.arm else {})).items():
        found["portable"][name] = _judged(name, after, images[:some], expected)
    test, labels = (values[: FLAGS.accuracy_images] for values in data.test)
    answers = [run_here(content, "xnnpack", 1, test)[0].argmax(-1) for content in (pair.original, pair.portable)]
    controls = [run_here(content, "xnnpack", 1, test)[0].argmax(-1) for content in pair.controls]
    there = run_here(pair.original, "reference", 1, images)[0].argmax(-1)
    return found | {
        "accuracy_images": len(test),
        "accuracy": [float(np.mean(given == labels)) for given in answers],
        "control_accuracy": [float(np.mean(given == labels)) for given in controls],
        "control_same_answers": [float(np.mean(answers[0] == given)) for given in controls],
        "same_answers": float(np.mean(answers[0] == answers[1])),
        "same_answers_of_reference": float(np.mean(answers[0][: len(there)] == there)),
    }


def _judged(name: str, content: bytes, images: np.ndarray, expected: list[np.ndarray]) -> dict:
    try:
        answers = judges.run_for(SECONDS, name, content, [images])
    except (judges.MissingJudgeError, judges.JudgeError) as error:
        return {"failed": str(error).splitlines()[-1][-200:]}
    return count(answers.outputs, expected)


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = results.read(path) or {}
        proof, original = found["proof"], found["original"]
        here = [value for name, value in found["portable"].items() if ", " in name]
        rows.append(
            (
                path.stem.replace("_", " "),
                f"{proof['operators']}, {proof['channels']:,}",
                f"{proof['sums']:,}",
                f"{proof['as_they_were']:,} / {proof['by_bias']:,} / {proof['moved']:,} / {proof['made_even']:,}",
                f"{proof['largest_move']:.2%}, {proof['largest_bias_move']:.2f}",
                " / ".join(
                    f"{original[kernels]['differing'] / original[kernels]['integers']:.1%}"
                    for kernels in ("builtin", "reference")
                ),
                f"{here[0]['images']}: {sum(value['differing'] for value in here):,} of "
                f"{sum(value['integers'] for value in here):,}",
                *(_cell(found["portable"].get(name)) for name in (*JUDGES, *ARM)),
                " → ".join(f"{accuracy:.2%}" for accuracy in found["accuracy"]),
                _percentages(found, "control_accuracy"),
                f"{found['same_answers_of_reference']:.2%}, {found['same_answers']:.2%}",
                _percentages(found, "control_same_answers"),
                f"{found['bytes'][1] / found['bytes'][0]:.3f}",
            )
        )
    return results.page(
        "One file, the same integers on every runtime",
        "`python -m benchmarks.portability`: a pretrained ResNet-20, calibrated on 512 images, int8 files "
        "of TensorFlow's converter, and networks trained by `benchmarks.papers`, made portable "
        "([portable.md](../portable.md)); every operator's output. "
        "*Channels*: as they were / by their bias alone / scale moved / weights made even. *Moves*: the largest "
        "relative change of a weight scale, the largest move of a bias in output levels. *Before*: integers of the "
        "original file that LiteRT's builtin and reference kernels compute otherwise than its default, 100 images. "
        "*LiteRT*: images, and integers that differ from the default's, over its builtin kernels with 1, 2 and 4 "
        "threads, the default with 2 and 4, and its reference kernels. The other judges: images, integers that differ. "
        "*Same answers*: the original on reference kernels as on default ones, and the portable file as the original. "
        "*Controls*: the original with every channel's scale changed at random by up to 0.1 %, three seeds. "
        "\n\nTarget: no integer differs.",
        (
            "file",
            "operators, channels",
            "sums proved",
            "channels",
            "moves",
            "before",
            "LiteRT",
            *(judges.JUDGES[name].title for name in (*JUDGES, *ARM)),
            "accuracy",
            "accuracy of controls",
            "same answers",
            "controls' same answers",
            "size",
        ),
        rows,
    )


def _percentages(found: dict, name: str) -> str:
    return ", ".join(f"{share:.2%}" for share in found.get(name, []))


def _cell(value: dict | None) -> str:
    if value is None:
        return "not run"
    return "refused" if "failed" in value else f"{value['images']}: {value['differing']:,}"


def main(argv) -> None:
    """Measures every case that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    for case in CASES:
        path = RESULTS / f"{case.replace(' ', '_')}.json"
        known = results.read(path) or {"images": 0}
        if fnmatch.fnmatchcase(case, FLAGS.only) and known["images"] < FLAGS.images:
            print(f"=== {case}", flush=True)
            data = load("cifar100" if case.startswith(ON_CIFAR100) else "cifar10", FLAGS.data_dir)
            results.write(path, measure(case, data) | results.environment())
            RESULTS.with_suffix(".md").write_text(table())
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("pretrained_dir", None, "Where the pretrained networks are.", required=True)
    flags.DEFINE_string("papers", "runs/papers", "Where the weights that `benchmarks.papers` trained are.")
    flags.DEFINE_integer("images", 500, "Test images on LiteRT's kernels.", 1)
    flags.DEFINE_integer("accuracy_images", 10_000, "Test images for the accuracy.", 1)
    flags.DEFINE_string("only", "*", "The cases to measure, a shell pattern.")
    flags.DEFINE_bool("arm", False, "Also LiteRT on an emulated 64-bit Arm, three images.")
    app.run(main)
