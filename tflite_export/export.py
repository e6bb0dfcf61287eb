"""The verbs: a quantized model as a file, and as a model of its integers."""

import collections
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

import satkeras
from satkeras._compat import keras
from satkeras.calibration.data import InputData, input_arrays
from satkeras.files import require_writable, write_whole
from satkeras.models.checks import opened, require_quantized
from satkeras.reports.summary import widths
from tflite_export.devices.contract import Exact
from tflite_export.errors import ExportError
from tflite_export.file.graph import BUILTINS
from tflite_export.file.metadata import METADATA, Labels, metadata_of, read_labels
from tflite_export.file.reader import check_model
from tflite_export.file.writer import TYPES, model_of, packed
from tflite_export.lowering.gpu_safe import with_larger_kernels
from tflite_export.lowering.lower import make_plan
from tflite_export.lowering.packing import pack_weights
from tflite_export.plan import KERNELS, Plan
from tflite_export.portability.plans import Portability, prove
from tflite_export.portability.tables import with_tables
from tflite_export.targets import TARGETS, Target
from tflite_export.verification.interpreter import RESOLVERS
from tflite_export.verification.kernels import kernel_problems
from tflite_export.verification.report import OperatorSummary, Report, Verification
from tflite_export.verification.twin import build_twin
from tflite_export.verification.verify import breaches, input_codes, random_images, verify

WEIGHT_STORAGE = ("int8", "packed")
COMPRESSIONS = ("none", "lut")


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    verify_data: InputData | Literal[False] | None = None,
    verify_labels: np.ndarray | None = None,
    target: str = "android",
    labels: Sequence[str] | str | os.PathLike | Mapping | None = None,
    input_type: str | None = None,
    output_type: str | None = None,
    weight_storage: str | None = None,
    compress: str | None = None,
    gpu_safe: bool = False,
    kernels: str = "xnnpack",
    allow_differences: bool = False,
    portable: bool = False,
) -> Report:
    """Writes a trained quantized model as a full-integer `.tflite` file, batch 1, that computes its integers.

    The file appears whole or not at all, and only if it is exact:

    * every kernel and bias in it is the training model's quantized one, times its batch norms' factors;
    * each layer of the training model, fed the integers that the file feeds it, gives the file's integers, but where
      the float32 result lies within rounding error of the middle between two levels;
    * LiteRT, running the file, computes the integers of its twin (`integer_model`), every tensor of them.

    Args:
      model: what `satkeras.quantize_model` returned, trained.
      path: where the file goes; its folder must exist.
      verify_data: images for the last two, and for the report's answers: an array of shape (n, height, width, channels)
        in the units the model was trained with, a list or dict of arrays for several inputs, or a finite
        `tf.data.Dataset` of batches (labels are ignored). None: a few images of noise. False: only the first is
        checked.
      verify_labels: the right answers for `verify_data`, (n,), class numbers; the report then has accuracies.
      target: what takes the file, a row of `tflite_export.TARGETS`; it says what the next three are unless they are
        given, and what is checked.
      labels: the names of the classes, for the file's metadata: a list, the path of a text file with one a line, or a
        dict of these by the names of the outputs.
      input_type: "uint8", "int8" or "float32".
      output_type: the same.
      weight_storage: "int8", or "packed": dense layers and 1x1 convolutions with stride 1 whose integers fit 4 or 2
        bits are stored in them, as FULLY_CONNECTED; for size, in runtimes from TensorFlow 2.21 on.
      compress: "lut", for target "micro": kernels as indices into a table for each channel. "none" otherwise.
      gpu_safe: for target "android": 2x2 kernels with zeros in the place of strided 1x1 ones, which LiteRT's GPU
        delegates compute wrongly; the same integers.
      kernels: whose kernels run the file: "xnnpack", LiteRT's default, or "reference", its reference kernels.
      allow_differences: writes a file that is not exact, too; its report says what differs. For those who study it.
      portable: only a file that gives the same integers on every runtime, proved by enumeration; `portable_model` makes
        the model for it. The report has the proof.

    Returns:
      What was written, and how file, twin and training model agree; print it, or take `to_json()`.

    Raises:
      ExportError: a layer cannot be lowered exactly (all are named), or the file is not exact, or not portable.
      TypeError: not a tf_keras model, no path, or verify data of no known kind.
      ValueError: a model without quantizers, a path that cannot be written, verify data or labels that do not fit the
        model, or an argument that is none of its values, or not one that the target takes.
    """
    path = require_writable(path)
    _require_one_of("target", target, list(TARGETS))
    _require_one_of("kernels", kernels, [family for family in KERNELS if family in RESOLVERS])
    row = TARGETS[target]
    input_type = _chosen(row, "input_type", input_type, sorted(TYPES))
    output_type = _chosen(row, "output_type", output_type, sorted(TYPES))
    weight_storage = _chosen(row, "weight_storage", weight_storage, WEIGHT_STORAGE)
    compress = _chosen(row, "compress", compress, COMPRESSIONS)
    model = opened(model)
    require_quantized(model, "export_tflite")
    plan = make_plan(model)
    if input_type == "float32":
        _require_codes_of_floats(plan)
    if weight_storage == "packed":
        plan = pack_weights(plan)
    plan = row.adapt(plan)
    if row.chosen("gpu_safe", gpu_safe):
        plan = with_larger_kernels(plan)
    lines = _labels(row, labels, plan)
    portability = None
    if portable:
        plan = with_tables(plan)
        portability = _require_portable(plan)
    images = _verification_images(verify_data, model, plan)
    bits = " ".join(f"W{of_weights}A{of_inputs}" for of_weights, of_inputs in widths(model) if of_weights is not None)
    description = f"satkeras {satkeras.__version__}, {bits}"
    metadata = {METADATA: metadata_of(plan, lines, model.name, description)} if row.has_metadata else {}
    planned = model_of(plan, input_type, output_type, description, metadata)
    content = packed(planned)
    stored = check_model(planned, content)
    checked = row.check(stored)
    if checked.problems:
        raise ExportError(f"target={row.name!r} cannot take the file, and it is not written", checked.problems)
    problems = kernel_problems(model, plan, stored)
    verification = None
    if images is not None:
        families = KERNELS if verify_data is not None else ()
        verification = verify(model, plan, content, images, kernels, verify_labels, families)
        problems += breaches(verification)
    if problems and not allow_differences:
        raise ExportError("The file would not be exact, and is not written", problems)
    delivered = row.deliver(Exact(plan, stored, content, path, lines, compress))
    for file in delivered.files:
        require_writable(file)
    for file, its_content in delivered.files.items():
        write_whole(file, its_content)
    summaries = tuple(_operator_summaries(plan, stored, verification))
    return Report(
        path=str(path),
        file_bytes=len(delivered.files[path]),
        weight_bytes=plan.weight_bytes,
        operators=dict(collections.Counter(summary.operator for summary in summaries)),
        input_type=input_type,
        output_type=output_type,
        weight_storage=weight_storage,
        min_runtime=_min_runtime(stored),
        operator_summaries=summaries,
        warnings=tuple(warning for operator in plan.operators for warning in operator.warnings()),
        verification=verification,
        target=row.name,
        target_notes=(*checked.notes, *delivered.notes),
        next_steps=tuple(step.format(file=shlex.quote(str(path))) for step in row.next_steps),
        portability=portability,
    )


def integer_model(model: keras.Model, kernels: str = "xnnpack") -> keras.Model:
    """The twin of the file: a tf_keras model that computes every tensor of it in exact integer arithmetic.

    What it scores is what the file scores, at a speed fit for `evaluate`.

    Args:
      model: what `satkeras.quantize_model` returned, trained.
      kernels: the family of kernels whose arithmetic it follows. "xnnpack": LiteRT's default, Android's CPUs; it rounds
        a float32 product once. "reference": LiteRT's reference kernels; they round twice, in fixed point, but
        FULLY_CONNECTED once. "tflm": TFLite Micro and TOSA; they round twice everywhere.

    Returns:
      A model that takes the input's codes (uint8, 0 .. 255) and gives the int8 values of the outputs, held in float32.

    Raises:
      ExportError: as `export_tflite` does.
      ValueError: no such family.
    """
    _require_one_of("kernels", kernels, KERNELS)
    model = opened(model)
    require_quantized(model, "integer_model")
    return build_twin(make_plan(model), kernels)


def _require_portable(plan: Plan) -> Portability:
    found = prove(plan)
    if not found.whole:
        raise ExportError(
            "The file would not give the same integers on every runtime. tflite_export.portable_model(model) is a copy "
            "that does wherever scales and biases can help: export that one, with weight_storage='int8'. What stays in "
            "this list then needs another layer, or portable=False",
            found.problems,
        )
    return found


def _require_codes_of_floats(plan: Plan) -> None:
    """Raises where a float input would reach other codes in the file than in training."""
    moved = [x.name for x in plan.inputs if x.offset]
    if moved:
        raise ExportError(
            "input_type='float32' needs an input_range in which 0.0 is one of the 256 codes, as in (-1, 127/128): "
            "TFLite would round the others half a step away. Take input_type='uint8' and feed pixels as they are",
            [(name, "0.0 lies between two codes of its range") for name in moved],
        )


def _chosen(row: Target, name: str, given: str | None, known: Sequence[str]) -> str:
    """An argument, or else the target's own value."""
    if given is not None:
        _require_one_of(name, given, known)
    return row.chosen(name, given)


def _labels(row: Target, given, plan: Plan) -> Labels:
    if given is not None and not row.labels_in:
        raise ValueError(
            f"target={row.name!r} has no place for labels: leave them out, or take one of "
            f"{[other.name for other in TARGETS.values() if other.labels_in]}. Received: labels={given!r:.80}"
        )
    return read_labels(given, plan)


def _require_one_of(name: str, given, known) -> None:
    if not isinstance(given, str) or given not in known:
        raise ValueError(f"{name} must be one of {list(known)}. Received: {name}={given!r}")


def _verification_images(data, model: keras.Model, plan: Plan) -> list[np.ndarray] | None:
    if data is False:
        return None
    if data is None:
        return random_images(plan)
    images = input_arrays(data, model, "verify_data")
    for x, values in zip(plan.inputs, images, strict=True):
        input_codes(x, values)  # raises before the long work what does not fit
    return images


def _operator_summaries(
    plan: Plan, model: schema.ModelT, verification: Verification | None
) -> Iterator[OperatorSummary]:
    graph = model.subgraphs[0]
    compared = verification.tensors if verification is not None else (None,) * len(plan.operators)
    before = sum(graph.tensors[index].type != schema.TensorType.INT8 for index in graph.inputs)
    places = (before + place for place in plan.places)
    planned = dict(zip(places, zip(plan.operators, compared, strict=True), strict=True))
    for place, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        stands_for, comparison = planned.get(place, (None, None))
        delegated = stands_for.runs_in_xnnpack if stands_for is not None else _reads_or_writes_floats(operator, graph)
        buffers = [model.buffers[graph.tensors[index].buffer].data for index in operator.inputs]
        yield OperatorSummary(
            name=graph.tensors[operator.outputs[0]].name.decode(),
            operator=BUILTINS[code.builtinCode],
            version=code.version,
            runs_in="XNNPACK" if delegated else "builtin",
            constant_bytes=sum(len(data) for data in buffers if data is not None),
            differing_share=None if comparison is None else comparison.layer_share,
        )


def _reads_or_writes_floats(operator, graph) -> bool:
    """Whether a QUANTIZE or DEQUANTIZE is one from or to float, which XNNPACK takes; from uint8 it does not."""
    ends = (*operator.inputs, *operator.outputs)
    return any(graph.tensors[index].type == schema.TensorType.FLOAT32 for index in ends)


def _min_runtime(model: schema.ModelT) -> str:
    """The metadata of that name."""
    entry = (model.metadata or [])[0]
    return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
