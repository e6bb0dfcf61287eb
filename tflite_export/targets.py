"""What a device or its tools ask of a file: one row a target.

`print(tflite_export.TARGETS)` shows the table; `docs/targets.md` is written from it:

    python -m tflite_export.targets > docs/targets.md
"""

import dataclasses
from collections.abc import Callable

from tensorflow.lite.python import schema_py_generated as schema

from satkeras.reports.summary import table
from tflite_export.devices import edgetpu
from tflite_export.devices.checked import Checked
from tflite_export.lowering.input_grid import for_mean_and_std_of_128
from tflite_export.plan import Plan


def _unchecked(model: schema.ModelT) -> Checked:
    return Checked()


def _as_it_is(plan: Plan) -> Plan:
    return plan


@dataclasses.dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
      name: what `export_tflite(target=)` calls it.
      runs_on: what takes the file.
      input_types: types that its inputs may have, the default first.
      output_types: the same for outputs.
      weight_storage: how weights may be stored, the default first.
      has_metadata: whether the file has TFLite metadata, and label files.
      adapt: a pass over the plan, before there is a file.
      limits: what is checked before there is a file, in words.
      check: does so.
      next_steps: the commands that come next; `{file}` is the file.
      remark: what the report says of every file.
    """

    name: str
    runs_on: str
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]
    weight_storage: tuple[str, ...] = ("int8",)
    has_metadata: bool = False
    adapt: Callable[[Plan], Plan] = _as_it_is
    limits: str = ""
    check: Callable[[schema.ModelT], Checked] = _unchecked
    next_steps: tuple[str, ...] = ()
    remark: str = ""

    def chosen(self, argument: str, given: str | None, allowed: tuple[str, ...]) -> str:
        """An argument's value: what was given, or else the row's default.

        Raises:
          ValueError: the target cannot take it.
        """
        if given is None:
            return allowed[0]
        if given not in allowed:
            raise ValueError(
                f"target={self.name!r} takes {argument}={' or '.join(map(repr, allowed))}. Received: "
                f"{argument}={given!r}; leave it out, or take another target"
            )
        return given


class Targets(dict[str, Target]):
    """The rows by their names; printed, a table."""

    def __str__(self):
        heads = ("target", "runs on", "input", "output", "weights", "labels", "checked")
        rows = [
            (
                row.name,
                row.runs_on,
                *(_choices(types) for types in (row.input_types, row.output_types, row.weight_storage)),
                "yes" if row.has_metadata else "no",
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
            has_metadata=True,
            limits="every integer, in LiteRT",
            next_steps=("pip install ai-edge-litert && litert-benchmark --model {file}",),
        ),
        Target(
            "coral",
            "Coral's Edge TPU, after edgetpu_compiler",
            ("uint8",),
            ("uint8", "int8", "float32"),
            has_metadata=True,
            adapt=for_mean_and_std_of_128,
            limits="operators, versions, shapes and constants, by edgetpu_compiler's documented rules",
            check=edgetpu.check,
            next_steps=("edgetpu_compiler {file}",),
            remark="Inputs have scale 1/128 and zero point 128, whatever range the model was trained on: the "
            "preprocessing of Coral's classify_image.py with its default flags (mean 128, std 128) gives every pixel "
            "its own code. No compiler and no Edge TPU was asked; the report names what stays on the CPU.",
        ),
        Target(
            "litert-packed",
            "LiteRT from TensorFlow 2.21 on",
            _ANY,
            _ANY,
            ("packed",),
            has_metadata=True,
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
        "| target | runs on | input | output | weights | labels and metadata | checked |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in TARGETS.values():
        types = (_choices(types) for types in (row.input_types, row.output_types, row.weight_storage))
        cells = (f"`{row.name}`", row.runs_on, *types, "yes" if row.has_metadata else "no", row.limits)
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
