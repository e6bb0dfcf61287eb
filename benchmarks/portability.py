"""One file on every runtime: the integers of all its tensors that differ, before and after, its accuracy and speed.

    python -m benchmarks.portability --data_dir=DIR --pretrained_dir=DIR [--only='ResNet-20 *'] [--images=500]

The files are those of `benchmarks.portable_pairs`: each is written as it is and made portable. LiteRT's default,
builtin and reference kernels run both, with one, two and four threads, and TensorFlow's interpreter and the runtimes of
`make judges` the portable one. Every pair is a file in `docs/results/portability/`, written as results come; what is
there of the same portable file, by its proof, is not measured again. The page of all is `docs/results/portability.md`.
"""

import dataclasses
import fnmatch
import functools
import json
from collections.abc import Callable, Collection, Mapping

import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from benchmarks import judges, latency, results
from benchmarks.papers.command import load
from benchmarks.portability_page import ARM, JUDGES, RESULTS, table
from benchmarks.portable_pairs import CASES, Case, Pair, define_flags
from examples import datasets
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed
from tflite_export.verification.interpreter import RESOLVERS

FLAGS = flags.FLAGS
DEFAULT = ("xnnpack", 1)
# Kernels and threads of LiteRT here, beside its default ones.
HERE = {
    f"{kernels}, {threads}": (kernels, threads)
    for kernels in RESOLVERS
    for threads in (1, 2, 4)
    if (kernels, threads) != DEFAULT and (kernels != "reference" or threads == 1)
}
SECONDS = 300  # that a judge may take
FEW = 100  # images that the original file is compared on


def exposed(content: bytes, but: Collection[str] = ()) -> bytes:
    """The file, for one image, with every int8 tensor that its operators write as an output, but for some names."""
    model = read_model(content)
    graph = model.subgraphs[0]
    written = [int(index) for operator in graph.operators for index in operator.outputs]
    graph.outputs = [
        index
        for index in written
        if graph.tensors[index].type == schema.TensorType.INT8 and graph.tensors[index].name.decode() not in but
    ]
    model.signatureDefs = []
    for tensor in graph.tensors:
        tensor.shapeSignature = None  # which says that the batch is of any size: TOSA has no such graphs
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


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A pair of files, and the images that it is measured on.

    Attributes:
      pair: both files.
      images: as the file takes them, all test images that the accuracy is measured on.
      labels: theirs; None if the file answers something else.
    """

    pair: Pair
    images: np.ndarray
    labels: np.ndarray | None

    @functools.cached_property
    def original_answers(self) -> np.ndarray:
        """The original's, by LiteRT's default."""
        return self.answers(self.pair.original)

    @functools.cached_property
    def expected(self) -> list[np.ndarray]:
        """Every integer of the portable file on the first images, by LiteRT's default."""
        return run_here(self.exposed(self.pair.portable), *DEFAULT, self.images[: FLAGS.images])

    def exposed(self, content: bytes) -> bytes:
        """A file with every output that the proof holds for."""
        return exposed(content, {name for name, _ in self.pair.proof.problems})

    def answers(self, content: bytes) -> np.ndarray:
        """Classes of all images, by LiteRT's default."""
        return run_here(content, *DEFAULT, self.images)[0].argmax(-1)

    def accuracy(self, answers: np.ndarray) -> float | None:
        """The share of right answers."""
        return None if self.labels is None else float(np.mean(answers == self.labels))


def original_integers(subject: Subject) -> dict:
    """Those of the original file that other kernels of LiteRT compute otherwise than its default."""
    content, few = subject.exposed(subject.pair.original), subject.images[:FEW]
    expected = run_here(content, *DEFAULT, few)
    return {kernels: count(expected, run_here(content, kernels, 1, few)) for kernels in ("builtin", "reference")}


def answers(subject: Subject) -> dict:
    """Accuracy of both files, and how many answers stay: in the portable one, and of the original on other kernels."""
    original, portable = subject.original_answers, subject.answers(subject.pair.portable)
    there = run_here(subject.pair.original, "reference", 1, subject.images[: FLAGS.images])[0].argmax(-1)
    return {
        "images": len(subject.images),
        "accuracy": [subject.accuracy(original), subject.accuracy(portable)],
        "same": float(np.mean(original == portable)),
        "same_of_reference": float(np.mean(original[: len(there)] == there)),
    }


def controls(subject: Subject) -> dict:
    """The same of originals whose scales were changed at random."""
    found = [subject.answers(content) for content in subject.pair.controls]
    return {
        "accuracy": [subject.accuracy(given) for given in found],
        "same": [float(np.mean(subject.original_answers == given)) for given in found],
    }


def milliseconds(subject: Subject) -> dict:
    """Of one image, one thread, the files taking turns."""
    return latency.milliseconds({"original": subject.pair.original, "portable": subject.pair.portable})


PARTS: Mapping[str, Callable[[Subject], dict]] = {
    "original": original_integers,
    "answers": answers,
    "controls": controls,
    "milliseconds": milliseconds,
}


def runtimes_left(found: Mapping) -> dict[str, int]:
    """The runtimes that were not asked about as many images yet, and how many that is."""
    wanted = {**dict.fromkeys(HERE, FLAGS.images), **JUDGES, **(ARM if FLAGS.arm else {})}
    asked = {name: value["asked"] for name, value in found.get("portable", {}).items()}
    return {name: images for name, images in wanted.items() if asked.get(name, 0) < images}


def measure(subject: Subject, found: dict, keep: Callable[[dict], None]) -> None:
    """Adds what is missing to what was found of a pair.

    Args:
      subject: the pair.
      found: of the same portable file; empty at first.
      keep: called with all there is whenever something is added.
    """
    found |= results.environment() | {"bytes": [len(subject.pair.original), len(subject.pair.portable)]}
    for name, part in PARTS.items():
        if name not in found:
            found[name] = part(subject)
            keep(found)
    content = subject.exposed(subject.pair.portable)
    for name, wanted in runtimes_left(found).items():
        images = subject.images[:wanted]
        if name in HERE:
            compared = count(subject.expected, run_here(content, *HERE[name], images))
        else:
            compared = _judged(name, content, images, subject.expected)
        found["portable"] = {**found.get("portable", {}), name: {"asked": wanted, **compared}}
        keep(found)


def _judged(name: str, content: bytes, images: np.ndarray, expected: list[np.ndarray]) -> dict:
    try:
        answers = judges.run_for(SECONDS, name, content, [images])
    except (judges.MissingJudgeError, judges.JudgeError) as error:
        return {"failed": str(error).splitlines()[-1][-200:]}
    return count(answers.outputs, expected)


def main(argv) -> None:
    """Measures what is left of every case."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    for case in CASES:
        path = RESULTS / f"{case.replace(' ', '_')}.json"
        found = results.read(path) or {}
        is_whole = not (set(PARTS) - set(found) or runtimes_left(found))
        if is_whole or not fnmatch.fnmatchcase(case, FLAGS.only):
            continue
        print(f"=== {case}", flush=True)
        data = load(CASES[case].dataset, FLAGS.data_dir)
        pair = CASES[case].make(data)
        proof = json.loads(json.dumps(dataclasses.asdict(pair.proof)))
        if found.get("proof") != proof:
            found = {"proof": proof}
        measure(_subject(CASES[case], pair, data), found, functools.partial(_keep, path))
    print(table())


def _subject(case: Case, pair: Pair, data: datasets.Images) -> Subject:
    images, labels = (values[: FLAGS.accuracy_images] for values in data.test)
    images = images.repeat(case.repeated, 1).repeat(case.repeated, 2)
    graph = read_model(pair.original).subgraphs[0]
    if graph.tensors[graph.inputs[0]].type == schema.TensorType.INT8:
        images = (images ^ 128).view(np.int8)
    return Subject(pair, images, labels if case.labelled else None)


def _keep(path, found: dict) -> None:
    results.write(path, found)
    RESULTS.with_suffix(".md").write_text(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    define_flags()
    flags.DEFINE_integer("images", 500, "Test images on LiteRT's kernels.", 1)
    flags.DEFINE_integer("accuracy_images", 10_000, "Test images for the accuracy.", 1)
    flags.DEFINE_string("only", "*", "The cases to measure, a shell pattern.")
    flags.DEFINE_bool("arm", False, "Also LiteRT on emulated 64-bit Arm.")
    app.run(main)
