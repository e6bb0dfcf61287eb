"""Trained networks in each family of kernels: integers that differ from the family's twin, answers, accuracy.

    python -m benchmarks.families --data_dir=DIR --pretrained_dir=DIR [--images=10000] [--only='ResNet-20 *']

A pretrained ResNet-20 (see `benchmarks.pretrained`), and a MobileNetV2 that starts from random weights, are calibrated,
trained for some steps and exported. LiteRT's default and its reference kernels run the file on the test images, every
tensor beside that of the family's twin; on the first of them the training model runs, too, layer by layer. Every
network is a file in `docs/results/families/`; one that is there with as many images is not measured again. The table of
all is `docs/results/families.md`.
"""

import dataclasses
import fnmatch
from collections.abc import Callable

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import pretrained, results
from examples import architectures, datasets
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.plan import KERNELS, Plan
from tflite_export.verification.interpreter import expose, open_interpreter, run
from tflite_export.verification.twin import twin_tensors
from tflite_export.verification.verify import BATCH, breaches, input_codes, verify

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "families"
CALIBRATION_IMAGES = 512
BATCH_SIZE = 64
BESIDE_MODEL = 1000  # images that the training model sees, too
RUN_HERE = ("xnnpack", "reference")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at the widths of a scheme.

    Attributes:
      network: a key of `NETWORKS`.
      scheme: a key of `satkeras.SCHEMES`.
      weight_bits: as `quantize_model` takes it.
      activation_bits: the same.
    """

    network: str
    scheme: str
    weight_bits: int | str
    activation_bits: int

    @property
    def title(self) -> str:
        """What names its row and its file."""
        return f"{self.network} {self.scheme} W{self.weight_bits}A{self.activation_bits}"


def _mobilenet_v2() -> keras.Model:
    return architectures.mobilenet_v2((32, 32, 3), 10, width=0.5, small_images=True)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "ResNet-20": lambda: _logits_of(pretrained.load("resnet20", FLAGS.pretrained_dir)),
    "MobileNetV2": _mobilenet_v2,
}
CASES = tuple(
    Case(network, scheme, weight_bits, activation_bits)
    for network in NETWORKS
    for scheme, widths in (
        ("sat", ((8, 8), (4, 4), (2, 2))),
        ("lsq", ((8, 8), (4, 4), (2, 2))),
        ("qn", (("3bit+-4", 2),)),
    )
    for weight_bits, activation_bits in widths
)


def _logits_of(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("logits").output)


def trained(case: Case, data: datasets.Images) -> keras.Model:
    """The network after calibration and `--steps` training steps."""
    keras.utils.set_random_seed(0)
    images = data.train[0][:CALIBRATION_IMAGES].astype(np.float32)
    model = satkeras.quantize_model(
        NETWORKS[case.network](),
        case.scheme,
        weight_bits=case.weight_bits,
        activation_bits=case.activation_bits,
        calibration_data=images,
    )
    if case.scheme == "qn":
        satkeras.set_thresholds(model, images)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9, clipnorm=1.0), loss)
    model.fit(datasets.batches(data, BATCH_SIZE, 0), steps_per_epoch=FLAGS.steps, verbose=0)
    if case.scheme == "qn":
        satkeras.freeze(model)
    return model


def measure(case: Case, data: datasets.Images) -> dict:
    """What each family that runs here computes, and what the twins of all answer."""
    model = trained(case, data)
    plan = make_plan(model)
    content = write_file(plan)
    images, labels = (values[: FLAGS.images] for values in data.test)
    beside = verify(
        model, plan, content, [images[:BESIDE_MODEL].astype(np.float32)], "xnnpack", labels[:BESIDE_MODEL], KERNELS
    )
    (x,) = plan.inputs
    codes = input_codes(x, images)
    return {
        "images": len(images),
        "steps": FLAGS.steps,
        "elements": len(images) * sum(int(np.prod(tensor.shape)) for tensor in plan.tensors),
        "differing": {kernels: differing(plan, content, codes, kernels) for kernels in RUN_HERE},
        "beside": beside.images,
        "accuracy": beside.model_accuracy,
        "worst_layer_share": beside.worst_layer_share,
        "breaches": breaches(beside),
        "families": {
            family.kernels: {"same_answers": family.same_answers, "accuracy": family.accuracy}
            for family in beside.families
        },
    }


def differing(plan: Plan, content: bytes, codes: np.ndarray, kernels: str) -> int:
    """How many integers of any tensor differ between LiteRT, running a file, and the twin of its kernels."""
    twin = twin_tensors(plan, kernels, len(codes))
    interpreter = open_interpreter(expose(plan, content), kernels)
    count = 0
    for start in range(0, len(codes), BATCH):
        batch = codes[start : start + BATCH]
        from_twin = twin([batch])
        for tensor, values in zip(plan.tensors, run(interpreter, batch), strict=True):
            count += int(np.count_nonzero(values != from_twin[tensor]))
    return count


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = results.read(path) or {}
        answers = [
            f"{found['families'][family]['accuracy']:.2%} ({found['families'][family]['same_answers']:.2%})"
            for family in KERNELS
        ]
        rows.append(
            (
                path.stem.replace("_", " "),
                f"{found['steps']:,}",
                f"{found['images']:,}",
                f"{found['elements']:,}",
                *(f"{found['differing'][kernels]:,}" for kernels in RUN_HERE),
                f"{found['worst_layer_share']:.1e}",
                f"{found['accuracy']:.2%}",
                *answers,
            )
        )
    return results.page(
        "Each family of kernels",
        "`python -m benchmarks.families`, CIFAR-10 test images, every tensor of every layer. *xnnpack*, *reference*: "
        "integers that differ between LiteRT, running the file with these kernels, and the family's twin. *Layer*: the "
        "largest share, in any layer, of integers that the training model's layer, fed the same input, rounds to "
        "another level. Then the accuracy in Keras, and that of each family's twin, in brackets its same answers as "
        f"Keras, on the first {BESIDE_MODEL:,} images. The networks are calibrated on 512 images and trained for some "
        "steps (`--steps`); the MobileNetV2 starts from random weights, so only its integers say something."
        "\n\nTargets: no integer differs; at 4 and 8 bits the same answers to 99.5 % of the images in xnnpack.",
        (
            "network",
            "steps",
            "images",
            "integers",
            "xnnpack",
            "reference",
            "layer",
            "Keras",
            *(f"{family}: accuracy (same)" for family in KERNELS),
        ),
        rows,
    )


def main(argv) -> None:
    """Measures every case that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    data = datasets.load("cifar10", FLAGS.data_dir)
    for case in CASES:
        path = RESULTS / f"{case.title.replace(' ', '_')}.json"
        known = results.read(path) or {"images": 0}
        if fnmatch.fnmatchcase(case.title, FLAGS.only) and known["images"] < FLAGS.images:
            print(f"=== {case.title}", flush=True)
            results.write(path, measure(case, data))
            RESULTS.with_suffix(".md").write_text(table())
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("pretrained_dir", None, "Where the trained ResNet-20 is.", required=True)
    flags.DEFINE_integer("images", 10_000, "How many test images.", 1, 10_000)
    flags.DEFINE_integer("steps", 100, "Training steps.", 0)
    flags.DEFINE_string("only", "*", "Pattern of the cases to measure.")
    app.run(main)
