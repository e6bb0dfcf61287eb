"""What an export wrote and its verification found: values, as JSON and as a table."""

import dataclasses
import json
import os
from collections.abc import Mapping

from satkeras.files import require_writable, write_whole
from satkeras.reports.summary import table
from tflite_export.portability.plans import Portability


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
      layer_farthest: how far the layer's float result is from the twin's integer at most, in levels.
      layer_bound: how far beyond half a level float32 explains.
      layer_beyond: integers farther than that: none, or the file is wrong.
      model_differs: integers that differ between the file and the training model, each fed nothing but the images.
    """

    name: str
    operator: str
    elements: int
    file_differs: int
    file_largest: int
    layer_differs: int | None
    layer_farthest: float
    layer_bound: float
    layer_beyond: int
    model_differs: int | None

    @property
    def layer_share(self) -> float | None:
        """The share of integers that differ from the training model's layer; None where there is none."""
        return None if self.layer_differs is None else self.layer_differs / self.elements


@dataclasses.dataclass(frozen=True)
class FamilyResult:
    """What one family of kernels answers, computed by its integer twin.

    Attributes:
      kernels: its name.
      same_answers: share of images where it answers as the training model does.
      accuracy: share of right answers; None without labels.
    """

    kernels: str
    same_answers: float
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Verification:
    """The twin, the training model and the interpreter on the same images.

    Attributes:
      images: how many.
      kernels: which of LiteRT's kernels ran: "xnnpack" (its default) or "reference".
      top1_agreement: share of images where the training model and the file answer alike.
      twin_top1_agreement: the same for the twin and the file.
      answer: what an answer is: the largest output, or the side of a threshold.
      tensors: one comparison for each operator, in the order of computation.
      model_accuracy: the training model's share of right answers; None without labels.
      families: what each family of kernels answers.
    """

    images: int
    kernels: str
    top1_agreement: float
    twin_top1_agreement: float
    answer: str
    tensors: tuple[TensorComparison, ...]
    model_accuracy: float | None = None
    families: tuple[FamilyResult, ...] = ()

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
        return max((tensor.layer_share or 0.0 for tensor in self.tensors), default=0.0)

    def _family_lines(self) -> list[str]:
        lines = [f"accuracy, training model: {self.model_accuracy:.2%}"] if self.model_accuracy is not None else []
        for family in self.families:
            accuracy = "" if family.accuracy is None else f", accuracy {family.accuracy:.2%}"
            lines.append(f"{family.kernels} kernels: same answers {family.same_answers:.2%}{accuracy}")
        return lines

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
                f"same answers ({self.answer}), training model and file: {self.top1_agreement:.2%}",
                *self._family_lines(),
                "",
                table(heads, rows),
                "",
                "file: twin against file. layer: training model's layer against twin, on the same input.",
                "model: training model against file, from the images on.",
            ]
        )


@dataclasses.dataclass(frozen=True)
class OperatorSummary:
    """One operator of the file.

    Attributes:
      name: the tensor that it writes, by its name in the file.
      operator: the builtin operator.
      version: of the operator.
      runs_in: who runs it in LiteRT's default interpreter, "XNNPACK" or "builtin" kernels.
      constant_bytes: of its kernel, bias and other constants, as stored.
      differing_share: of its integers, those that the training model's layer, fed the same input, rounds to another
        level; None where the training model has no such layer, or nothing was verified.
    """

    name: str
    operator: str
    version: int
    runs_in: str
    constant_bytes: int
    differing_share: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What an export wrote.

    Attributes:
      path: the file.
      file_bytes: its size.
      weight_bytes: how many of them are quantized weights.
      operators: how often each builtin operator occurs in the file.
      input_type: type of the file's inputs.
      output_type: type of its outputs.
      weight_storage: "int8" or "packed".
      min_runtime: the first TensorFlow whose runtime has all operators.
      operator_summaries: one for each operator of the file, in its order.
      warnings: what to know before the file is shipped.
      verification: None where the export was told to skip it.
      target: what the file is for, a row of `tflite_export.TARGETS`.
      target_notes: what its checker found.
      next_steps: the commands that come next.
      portability: the proof that every runtime computes these integers; None unless it was asked for.
    """

    path: str
    file_bytes: int
    weight_bytes: int
    operators: Mapping[str, int]
    input_type: str
    output_type: str
    weight_storage: str
    min_runtime: str
    operator_summaries: tuple[OperatorSummary, ...]
    warnings: tuple[str, ...] = ()
    verification: Verification | None = None
    target: str = "android"
    target_notes: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    portability: Portability | None = None

    def to_json(self) -> str:
        """Everything in the report, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def save_node_data(self, path: str | os.PathLike) -> None:
        """Writes, for each operator, the share of integers that differ from the training model's layer.

        The file is custom node data of Model Explorer (AI Edge): load it beside the `.tflite` file, and its operators
        are coloured.

        Args:
          path: where the JSON goes, whole or not at all.

        Raises:
          ValueError: the export was not verified, or the path cannot be written.
        """
        if self.verification is None:
            raise ValueError(
                "Node data need a verification. Received: a report without one; call export_tflite(model, path, "
                "verify_data=images)"
            )
        results = {
            summary.name: {"value": 100 * summary.differing_share}
            for summary in self.operator_summaries
            if summary.differing_share is not None
        }
        gradient = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d73027"}]
        write_whole(
            require_writable(path),
            json.dumps({"main": {"results": results, "gradient": gradient}}, indent=2).encode(),
        )

    def __str__(self):
        operators = ", ".join(f"{name} x{count}" for name, count in self.operators.items())
        outside = [summary.operator for summary in self.operator_summaries if summary.runs_in == "builtin"]
        builtin = ", ".join(f"{name} x{outside.count(name)}" for name in dict.fromkeys(outside)) or "none"
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes, {self.weight_bytes:,} of them weights ({self.weight_storage}), "
            f"{self.input_type} in, {self.output_type} out, TFLite {self.min_runtime} or newer",
            f"operators: {operators}",
            f"outside XNNPACK, in builtin kernels: {builtin}",
            *(f"note: {warning}" for warning in self.warnings),
            *(f"{self.target}: {note}" for note in self.target_notes),
            *(f"next: {step}" for step in self.next_steps),
            *([str(self.portability)] if self.portability else []),
        ]
        return "\n".join([*lines, "", str(self.verification)] if self.verification else lines)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
