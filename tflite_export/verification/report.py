"""What an export and its verification found: values, as JSON and as a table."""

import dataclasses
import json
from collections.abc import Mapping

from satkeras.reports.summary import table


@dataclasses.dataclass(frozen=True)
class TensorComparison:
    """One operator's result, compared element by element.

    Attributes:
      name: the tensor; the quantizer's or layer's name in the quantized model.
      operator: the builtin operator that writes it.
      elements: how many integers were compared.
      file_differs: integers that differ between the twin and the file.
      file_largest: the largest such difference, in levels.
      layer_differs: integers that differ between the twin and the training model's layer, both fed the twin's input;
        None where the training model has no such layer.
      layer_largest: the largest such difference, in levels.
      model_differs: integers that differ between the file and the training model, each fed nothing but the images.
    """

    name: str
    operator: str
    elements: int
    file_differs: int
    file_largest: int
    layer_differs: int | None
    layer_largest: int | None
    model_differs: int | None


@dataclasses.dataclass(frozen=True)
class Verification:
    """The twin, the training model and the interpreter on the same images.

    Attributes:
      images: how many.
      kernels: which of LiteRT's kernels ran: "default" (XNNPACK), "builtin" or "reference".
      top1_agreement: share of images where the training model and the file have the same largest output.
      twin_top1_agreement: the same for the twin and the file.
      tensors: one comparison for each operator, in the order of computation.
    """

    images: int
    kernels: str
    top1_agreement: float
    twin_top1_agreement: float
    tensors: tuple[TensorComparison, ...]

    @property
    def differing(self) -> int:
        """Integers that differ between the twin and the file, over all tensors."""
        return sum(tensor.file_differs for tensor in self.tensors)

    @property
    def first_divergence(self) -> str | None:
        """The first tensor where the twin and the file differ, None if they never do."""
        return next((tensor.name for tensor in self.tensors if tensor.file_differs), None)

    @property
    def worst_layer_share(self) -> float:
        """The largest share of elements, over all layers, where the training model's layer and the twin differ."""
        shares = [t.layer_differs / t.elements for t in self.tensors if t.layer_differs is not None]
        return max(shares, default=0.0)

    def __str__(self):
        rows = [
            (
                tensor.name,
                tensor.operator,
                f"{tensor.elements:,}",
                f"{tensor.file_differs:,}",
                str(tensor.file_largest),
                _count(tensor.layer_differs),
                _count(tensor.model_differs),
            )
            for tensor in self.tensors
        ]
        heads = ("tensor", "operator", "elements", "file", "levels", "layer", "model")
        where = f"first at {self.first_divergence}" if self.differing else "none"
        return "\n".join(
            [
                f"{self.images} images, LiteRT's {self.kernels} kernels",
                f"integers that differ between twin and file: {self.differing:,} ({where})",
                f"top-1 agreement, training model and file: {self.top1_agreement:.2%}",
                "",
                table(heads, rows),
                "",
                "file: twin against file. layer: training model's layer against twin, on the same input.",
                "model: training model against file, from the images on.",
            ]
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What `export_tflite` made.

    Attributes:
      path: the file.
      file_bytes: its size.
      weight_bytes: how many of them are int8 weights.
      operators: how often each builtin operator occurs in the plan.
      input_type: type of the file's inputs.
      output_type: type of its outputs.
      verification: None unless there was data to verify with.
    """

    path: str
    file_bytes: int
    weight_bytes: int
    operators: Mapping[str, int]
    input_type: str
    output_type: str
    verification: Verification | None = None

    def to_json(self) -> str:
        """Everything in the report, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        operators = ", ".join(f"{name} x{count}" for name, count in self.operators.items())
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes, {self.weight_bytes:,} of them weights, "
            f"{self.input_type} in, {self.output_type} out",
            f"operators: {operators}",
        ]
        return "\n".join([*lines, "", str(self.verification)] if self.verification else lines)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
