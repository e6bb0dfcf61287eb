"""What a device or its tools ask of a file: one row a target.

`print(tflite_export.TARGETS)` shows the table; `docs/targets.md` is written from it:

    python -m tflite_export.targets > docs/targets.md
"""

import dataclasses
from collections.abc import Callable

from tensorflow.lite.python import schema_py_generated as schema

from satkeras.reports.summary import table
from tflite_export.devices import edgetpu, ethos_u, gpu, micro
from tflite_export.devices.contract import Checked, Delivered, Exact
from tflite_export.file.metadata import with_label_files
from tflite_export.lowering.input_grid import for_mean_and_std_of_128
from tflite_export.plan import Plan
from tflite_export.portability.tables import with_centred_tables


def _unchecked(model: schema.ModelT) -> Checked:
    return Checked()


def _as_it_is(plan: Plan) -> Plan:
    return plan


def _one_file(exact: Exact) -> Delivered:
    return Delivered({exact.path: with_label_files(exact.content, exact.plan, exact.labels)})


@dataclasses.dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
      name: what `export_tflite(target=)` calls it.
      runs_on: what takes the file.
      input_type: types that its inputs may have, the default first.
      output_type: the same for outputs.
      weight_storage: how weights may be stored, the default first.
      gpu_safe: whether strided 1x1 convolutions may be avoided, the default first.
      compress: how weights may be compressed, the default first.
      labels_in: where labels go: "metadata" (and then the file has TFLite metadata), "header", or "" if nowhere.
      adapt: a pass over the plan, before there is a file.
      limits: what is checked before there is a file, in words.
      check: does so.
      deliver: makes of an exact file what is stored.
      next_steps: the commands that come next; `{file}` is the file.
      remark: what the report says of every file.
    """

    name: str
    runs_on: str
    input_type: tuple[str, ...]
    output_type: tuple[str, ...]
    weight_storage: tuple[str, ...] = ("int8",)
    gpu_safe: tuple[bool, ...] = (False,)
    compress: tuple[str, ...] = ("none",)
    labels_in: str = ""
    adapt: Callable[[Plan], Plan] = _as_it_is
    limits: str = ""
    check: Callable[[schema.ModelT], Checked] = _unchecked
    deliver: Callable[[Exact], Delivered] = _one_file
    next_steps: tuple[str, ...] = ()
    remark: str = ""

    @property
    def has_metadata(self) -> bool:
        """Whether the file has TFLite metadata."""
        return self.labels_in == "metadata"

    def chosen(self, argument: str, given):
        """The value of an argument that the row has choices for: what was given, or else the first of them.

        Raises:
          ValueError: the target cannot take it.
        """
        choices = getattr(self, argument)
        if given is None:
            return choices[0]
        if given not in choices:
            others = [row.name for row in TARGETS.values() if given in getattr(row, argument)]
            raise ValueError(
                f"target={self.name!r} takes {argument}={' or '.join(map(repr, choices))}; {given!r} is for the "
                f"targets {others}. Received: {argument}={given!r}; leave it out, or take one of these"
            )
        return given


class Targets(dict[str, Target]):
    """The rows by their names; printed, a table."""

    def __str__(self):
        heads = ("target", "runs on", "input", "output", "weights", "labels in", "checked")
        rows = [
            (
                row.name,
                row.runs_on,
                *(_choices(types) for types in (row.input_type, row.output_type, row.weight_storage)),
                row.labels_in or "none",
                row.limits,
            )
            for row in self.values()
        ]
        return table(heads, rows)


_ANY = ("uint8", "int8", "float32")
_WHOLE = ("int8", "uint8")
TARGETS = Targets(
    (row.name, row)
    for row in (
        Target(
            "android",
            "LiteRT and MediaPipe, on phones and any CPU",
            _ANY,
            _ANY,
            ("int8", "packed"),
            gpu_safe=(False, True),
            labels_in="metadata",
            limits="every integer, in LiteRT; convolutions that GPU delegates compute wrongly are named",
            check=gpu.check,
            next_steps=("pip install ai-edge-litert && litert-benchmark --model {file}",),
            remark="With labels, MediaPipe's ImageClassifier names the classes; it takes RGB images alone. The "
            "normalization in the metadata gives every pixel, 0 to 255, its own code.",
        ),
        Target(
            "coral",
            "Coral's Edge TPU, after edgetpu_compiler",
            ("uint8",),
            ("uint8", "int8", "float32"),
            labels_in="metadata",
            adapt=for_mean_and_std_of_128,
            limits="operators, versions, shapes and constants, by edgetpu_compiler's documented rules",
            check=edgetpu.check,
            next_steps=("edgetpu_compiler {file}",),
            remark="Inputs have scale 1/128 and zero point 128, whatever range the model was trained on: the "
            "preprocessing of Coral's classify_image.py with its default flags (mean 128, std 128) gives every pixel "
            "its own code. No compiler and no Edge TPU was asked; the report names what stays on the CPU.",
        ),
        Target(
            "micro",
            "TFLite Micro, on microcontrollers",
            ("int8", "uint8", "float32"),
            ("int8", "uint8", "float32"),
            compress=("none", "lut"),
            labels_in="header",
            limits="operators that TFLite Micro has",
            check=micro.check,
            deliver=micro.deliver,
            next_steps=(
                "python -m venv tflm && tflm/bin/pip install tflite-micro",
                "python -m tflite_export.devices.micro {file} --python=tflm/bin/python",
            ),
            remark="Beside the file there are `.cc`, its bytes as an aligned array, and `.h`, with the operators that "
            "a `MicroMutableOpResolver` must register, the size of the arena, and labels. The arena is measured where "
            'the package tflite-micro is installed, and estimated elsewhere. `compress="lut"` stores kernels as '
            "indices into a table for each channel; the arena then holds the largest kernel, too.",
        ),
        Target(
            "ethos-u",
            "Arm's Ethos-U, after Vela",
            ("int8", "uint8"),
            ("int8", "uint8"),
            limits="operators, by Vela's stated constraints; int8 weights, since packed ones crash Vela",
            check=ethos_u.check,
            next_steps=(
                "python -m venv vela && vela/bin/pip install ethos-u-vela",
                "vela/bin/vela {file} --accelerator-config ethos-u55-128 --show-cpu-operations",
            ),
            remark="Vela compresses weights: the fewer bits they trained with, the fewer bytes it stores, although the "
            "file holds them as int8. Vela was not asked; it prints the share on the NPU, bytes and cycles.",
        ),
        Target(
            "tosa",
            "TOSA compilers: Coral NPU, Torq and others",
            ("int8", "uint8"),
            ("int8", "uint8"),
            adapt=with_centred_tables,
            limits="every integer, in LiteRT; no converter is asked",
            next_steps=(
                "python -m venv tosa && tosa/bin/pip install tosa-converter-for-tflite",
                "tosa/bin/tosa-converter-for-tflite {file} -o {file}.mlir --text",
            ),
            remark="TOSA rounds twice, as TFLite Micro does. With `verify_data` the report has the share of answers "
            "that stay the same there (`integer_model(q, kernels='tflm')`).",
        ),
        Target(
            "litert-packed",
            "LiteRT from TensorFlow 2.21 on",
            _ANY,
            _ANY,
            ("packed",),
            gpu_safe=(False, True),
            labels_in="metadata",
            check=gpu.check,
            limits="weights of 4 and 2 bits where stock kernels are exact",
            next_steps=("pip install ai-edge-litert && litert-benchmark --model {file}",),
        ),
    )
)


def page() -> str:
    """`docs/targets.md`."""
    lines = [
        "# Targets",
        "",
        '`tflite_export.export_tflite(q, "model.tflite", target="coral")`. This page is written from the table in',
        "`tflite_export/targets.py` (`python -m tflite_export.targets > docs/targets.md`). The first type of a row is",
        "the default; an argument of `export_tflite` chooses another.",
        "",
        "| target | runs on | input | output | weights | labels in | checked |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in TARGETS.values():
        types = (_choices(types) for types in (row.input_type, row.output_type, row.weight_storage))
        cells = (f"`{row.name}`", row.runs_on, *types, row.labels_in or "none", row.limits)
        lines.append(f"| {' | '.join(cells)} |")
    for row in TARGETS.values():
        lines += ["", f"## {row.name}", ""]
        lines += [f"{row.remark}\n"] if row.remark else []
        lines += ["Next:", "", "```", *(step.format(file="model.tflite") for step in row.next_steps), "```"]
    return "\n".join(lines) + "\n"


def _choices(values: tuple[str, ...]) -> str:
    return ", ".join(values)


if __name__ == "__main__":
    print(page(), end="")
