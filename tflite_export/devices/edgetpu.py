"""Which operators of a file Coral's Edge TPU runs, by the rules that its compiler documents.

The compiler (edgetpu_compiler 16.0, the last) is not asked: what it would do is predicted from its table of operators,
their versions, and limits. It knows operators as TensorFlow 2.6 had them and refuses a whole file for a newer one. It
maps one part of the graph to the TPU; what the first unsupported operator computes, and all that depends on it, stays
on the CPU.

References:
  coral.ai/docs/edgetpu/models-intro, with the operators of compiler 16; TensorFlow 2.6's runtime_version.cc; pairs of
  files before and after the compiler in github.com/google-coral/test_data.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.devices.contract import Checked
from tflite_export.file.graph import StoredOperator, stored_operators

EIGHT_BITS = ("INT8", "UINT8")
SRAM_BYTES = 7_670_000  # of 8 MB, what compiler logs report as left for parameters
LARGEST_SOFTMAX = 16_000
# Enlarging by 2 is mapped in the public files, by 15 and 33 it is not ("to avoid loss in precision").
LARGEST_ENLARGEMENT = 2


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an operator runs.

    Attributes:
      name: of the operator: the Keras layer's.
      builtin: its name in TFLite's schema.
      device: "TPU", or "CPU".
      reason: why it stays on the CPU, in the compiler's words and ours; "" on the TPU.
    """

    name: str
    builtin: str
    device: str
    reason: str = ""


def check(model: schema.ModelT) -> Checked:
    """What the compiler would make of a file that was read.

    Problems are operators for which it refuses the whole file; operators that stay on the CPU are notes.
    """
    operators = list(stored_operators(model))
    unknown = unknown_to_the_compiler(operators)
    if unknown:
        return Checked(tuple(unknown))
    return Checked(notes=tuple(_notes(placements(operators), parameter_bytes(operators))))


def _notes(placed: Sequence[Placement], parameters: int) -> Iterator[str]:
    on_cpu = [one for one in placed if one.device == "CPU"]
    yield (
        f"by the compiler's documented rules {len(placed) - len(on_cpu)} of {len(placed)} operators run on the Edge "
        "TPU; the compiler itself was not asked, and no device"
    )
    for one in on_cpu:
        yield f"on the CPU: {one.name} ({one.builtin}): {one.reason}"
    if parameters > SRAM_BYTES:
        yield f"parameters of {parameters:,} bytes: what exceeds about {SRAM_BYTES:,} is sent with every image"


def unknown_to_the_compiler(operators: Iterable[StoredOperator]) -> list[tuple[str, str]]:
    """`(name, reason)` of the operators for which the compiler refuses the whole file."""
    found = []
    for operator in operators:
        known = KNOWN_VERSIONS.get(operator.builtin)
        if known is not None and operator.version > known:
            found.append(
                (
                    operator.name,
                    f"{operator.builtin} version {operator.version} is newer than version {known}, the last that "
                    "edgetpu_compiler 16 can read",
                )
            )
        wide = [x for x in (*operator.inputs, *operator.outputs) if x is not None and x.type in ("INT4", "INT2")]
        found += [(operator.name, f"{x.name} is {x.type}: the compiler reads no weights below 8 bits") for x in wide]
    return found


def placements(operators: Sequence[StoredOperator]) -> list[Placement]:
    """Where each operator runs, in the file's order.

    Operators that are not supported may come before the part of the TPU, which then begins after them.
    """
    found, started, after = [], set(), set()  # tensors that the TPU's part reaches; those that lie behind it
    for operator in operators:
        reason = unsupported(operator)
        reads = set(operator.activations)
        if reads & after:
            reason = reason or "More than one subgraph is not supported: what it reads comes from the CPU"
        if reason and reads & (started | after):
            after.update(operator.outputs)
        elif not reason:
            started.update(operator.outputs)
        found.append(Placement(operator.name, operator.builtin, "CPU" if reason else "TPU", reason))
    return found


def parameter_bytes(operators: Iterable[StoredOperator]) -> int:
    """Bytes of the constants, each once; beyond `SRAM_BYTES` they are sent with every image."""
    return sum(len(one.data) for one in {x for operator in operators for x in operator.constants})


def unsupported(operator: StoredOperator) -> str:
    """Why the TPU cannot run an operator, whatever comes before it; "" if it can."""
    if operator.builtin not in SUPPORTED:
        return "Operation not supported"
    version, limit = SUPPORTED[operator.builtin]
    if operator.version > version:
        return f"Operation version not supported: {operator.version}, at most {version}"
    return _wrong_type(operator) or _wrong_shape(operator) or limit(operator)


def _wrong_type(operator: StoredOperator) -> str:
    taken = (
        (*EIGHT_BITS, "INT16") if operator.builtin == "UNIDIRECTIONAL_SEQUENCE_LSTM" else EIGHT_BITS
    )  # a cell's state
    weights = tuple(x for x in operator.constants if x.type != "INT32")  # biases, shapes and axes are
    wrong = [x for x in (*operator.activations, *operator.outputs, *weights) if x.type not in taken]
    if wrong:
        return f"Operation is working on an unsupported data type: {wrong[0].name} is {wrong[0].type}"
    return ""


def _wrong_shape(operator: StoredOperator) -> str:
    for x in (*operator.activations, *operator.outputs):
        if any(size < 1 for size in x.shape):
            return f"Tensors of fixed size are required: {x.name} is {x.shape}"
        if any(size > 1 for size in x.shape[:-3]):
            return f"Only the three innermost dimensions may be larger than 1: {x.name} is {x.shape}"
    return ""


# Limits of single operators: "" or the reason.


def _none(operator: StoredOperator) -> str:
    return ""


def _kernel(operator: StoredOperator) -> str:
    """Of convolutions."""
    if any(x is not None and not x.is_constant for x in operator.inputs[1:]):
        return "Weights and biases must be constants"
    options = operator.options
    if options.dilationHFactor != options.dilationWFactor:
        return f"One dilation for height and width is required: {options.dilationHFactor}, {options.dilationWFactor}"
    return ""


def _dense(operator: StoredOperator) -> str:
    if any(x is not None and not x.is_constant for x in operator.inputs[1:]):
        return "Weights and biases must be constants"
    if operator.options.weightsFormat:
        return "The default format of weights is required"
    if any(size > 1 for size in operator.outputs[0].shape[:-1]):
        return f"An output of one dimension is required: {operator.outputs[0].shape}"
    return ""


def _no_fused_activation(operator: StoredOperator) -> str:
    return "A fused activation is not supported" if operator.options.fusedActivationFunction else ""


def _concatenation(operator: StoredOperator) -> str:
    constants = operator.constants
    if constants and (len(operator.inputs) != 2 or any(one.data.any() for one in constants)):
        return "A constant must be all zeros, and one of two inputs"
    return _no_fused_activation(operator)


def _mean(operator: StoredOperator) -> str:
    x, axes = operator.inputs[:2]
    if not operator.constants:
        return "Axes must be constants"
    rank = len(x.shape)
    reduced = {int(axis) % rank for axis in axes.data.view(np.int32)}
    if 0 in reduced and x.shape[0] > 1:
        return "The batch cannot be reduced"
    if rank - 1 in reduced and x.shape[-1] % 4:
        return f"A multiple of 4 channels is required to reduce them: {x.shape[-1]}"
    return ""


def _not_batch(operator: StoredOperator) -> str:
    """Of reductions and paddings."""
    pads = operator.inputs[1]
    if operator.builtin == "PAD" and pads.is_constant and pads.data.view(np.int32)[:2].any():
        return "The batch cannot be padded"
    return _mean(operator) if operator.builtin != "PAD" else ""


def _softmax(operator: StoredOperator) -> str:
    (x,) = operator.activations
    size = math.prod(x.shape)
    if size != x.shape[-1] or size > LARGEST_SOFTMAX:
        return f"An input of one dimension, at most {LARGEST_SOFTMAX} elements, is required: {x.shape}"
    return ""


def _strided_slice(operator: StoredOperator) -> str:
    options, strides = operator.options, operator.inputs[3]
    if (
        options.ellipsisMask
        or options.newAxisMask
        or not strides.is_constant
        or (strides.data.view(np.int32) != 1).any()
    ):
        return "Strides of 1, no ellipsis and no new axis are required"
    return ""


def _enlargement(operator: StoredOperator) -> str:
    (_, *before, _), (_, *now, _) = operator.activations[0].shape, operator.outputs[0].shape
    if any(new > LARGEST_ENLARGEMENT * old for new, old in zip(now, before, strict=True)):
        return (
            "Operation is otherwise supported, but not mapped due to some unspecified limitation: enlarging by more "
            f"than {LARGEST_ENLARGEMENT} is not known to be mapped ({before} to {now})"
        )
    return ""


def _alpha(operator: StoredOperator) -> str:
    is_one_a_channel = all(math.prod(alpha.shape) == alpha.shape[-1] for alpha in operator.constants)
    return "" if operator.constants and is_one_a_channel else "One slope a channel is required"


# The last version that is mapped, for 8 bits, and what else is asked.
SUPPORTED: dict[str, tuple[int, Callable[[StoredOperator], str]]] = {
    "ADD": (2, _none),
    "AVERAGE_POOL_2D": (2, _no_fused_activation),
    "CONCATENATION": (2, _concatenation),
    "CONV_2D": (3, _kernel),
    "DEPTHWISE_CONV_2D": (3, _kernel),
    "EXPAND_DIMS": (1, _none),
    "FULLY_CONNECTED": (4, _dense),
    "L2_NORMALIZATION": (2, _no_fused_activation),
    "LOGISTIC": (2, _none),
    "MAXIMUM": (2, _none),
    "MAX_POOL_2D": (2, _no_fused_activation),
    "MEAN": (2, _mean),
    "MINIMUM": (2, _none),
    "MUL": (3, _none),
    "PACK": (2, _none),
    "PAD": (2, _not_batch),
    "PRELU": (1, _alpha),
    "QUANTIZE": (1, _none),
    "REDUCE_MAX": (2, _not_batch),
    "REDUCE_MIN": (2, _not_batch),
    "RELU": (2, _none),
    "RELU6": (2, _none),
    "RELU_N1_TO_1": (1, _none),
    "RESHAPE": (1, _none),
    "RESIZE_BILINEAR": (3, _enlargement),
    "RESIZE_NEAREST_NEIGHBOR": (3, _enlargement),
    "SLICE": (2, _none),
    "SOFTMAX": (2, _softmax),
    "SPACE_TO_DEPTH": (2, _none),
    "SPLIT": (3, _none),
    "SQUEEZE": (1, _none),
    "STRIDED_SLICE": (2, _strided_slice),
    "SUB": (2, _none),
    "SUM": (2, _not_batch),
    "TANH": (2, _none),
    "TILE": (2, _none),  # in no documented table, and mapped in a public file
    "TRANSPOSE": (2, _none),
    "TRANSPOSE_CONV": (3, _none),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (1, _none),
}
# The last version in TensorFlow 2.6, of which a newer one stops the compiler.
KNOWN_VERSIONS = {
    **{"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 9, "ADD": 4, "SUB": 5, "MUL": 5, "CONCATENATION": 3},
    **{"AVERAGE_POOL_2D": 3, "MAX_POOL_2D": 3, "LOGISTIC": 3, "TANH": 3, "SOFTMAX": 3, "RELU": 3, "RELU6": 3},
    **{"MEAN": 3, "SUM": 2, "PAD": 4, "RESHAPE": 1, "RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4, "SLICE": 5},
    **{"STRIDED_SLICE": 6, "SPLIT": 4, "PACK": 3, "QUANTIZE": 2, "DEQUANTIZE": 4, "TRANSPOSE": 5, "TRANSPOSE_CONV": 3},
    **{"MAXIMUM": 4, "MINIMUM": 4, "TILE": 2},
}
