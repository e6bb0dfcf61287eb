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

import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from benchmarks import judges, results
from benchmarks.papers.command import load
from benchmarks.portable_pairs import CASES, define_flags
from examples import datasets
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed
from tflite_export.verification.interpreter import RESOLVERS

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "portability"
THREADS = (1, 2, 4)
JUDGES = {"tflite_runtime": 20, "tflm": 50, "tosa": 3}  # and on how many images
ARM = {"arm": 3}
SECONDS = 300  # that a judge may take


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
    pair = CASES[case].make(data)
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
            data = load(CASES[case].dataset, FLAGS.data_dir)
            results.write(path, measure(case, data) | results.environment())
            RESULTS.with_suffix(".md").write_text(table())
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    define_flags()
    flags.DEFINE_integer("images", 500, "Test images on LiteRT's kernels.", 1)
    flags.DEFINE_integer("accuracy_images", 10_000, "Test images for the accuracy.", 1)
    flags.DEFINE_string("only", "*", "The cases to measure, a shell pattern.")
    flags.DEFINE_bool("arm", False, "Also LiteRT on an emulated 64-bit Arm, three images.")
    app.run(main)
