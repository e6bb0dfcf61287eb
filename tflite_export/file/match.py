"""Which operator of a file stands for which operator of its plan."""

import dataclasses

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.plan import (
    Add,
    Constant,
    ConstantOperator,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
    MaxPool,
    Operator,
    Pad,
    Plan,
    Reshape,
    Tensor,
    Window,
)

# What separates a number computed in float32 in another order from the plan's.
CLOSE = 1e-5

_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1"}
_PADDINGS = {0: "SAME", 1: "VALID"}


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which part of the file stands for which part of the plan.

    The converter drops, merges and moves RESHAPEs, so a tensor and its reshaped copies count as one.

    Attributes:
      operators: (planned operator, operator of the file), no RESHAPEs.
      tensors: (planned activation, tensor of the file): the inputs as int8, what the operators write, and what
        RESHAPEs of the file make of them.
      boundaries: (planned activation, tensor of the file): the file's inputs and outputs of another type than int8.
    """

    operators: list
    tensors: list
    boundaries: list


def names_of(enum) -> dict[int, str]:
    """The names of a flatbuffer enum's values."""
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


BUILTINS = names_of(schema.BuiltinOperator)
TENSOR_TYPES = names_of(schema.TensorType)


def match_operators(plan: Plan, model) -> Matches:
    """Finds the plan's operators in a file by following the tensors from the inputs on.

    Raises:
      ExportError: the file has other operators than planned, or constants that differ by more than float32 rounding.
    """
    graph = model.subgraphs[0]
    reshaped = {op.outputs[0]: op.inputs[0] for op in graph.operators if _builtin(op, model) == "RESHAPE"}
    waiting = [op for op in graph.operators if op.outputs[0] not in reshaped and not _is_boundary(op, model)]
    root_of = _input_indices(plan, model)
    operators, problems = [], []
    for planned in plan.operators:
        taken = [root_of.get(id(x)) for x in planned.inputs]
        if isinstance(planned, Reshape):
            root_of[id(planned.output)] = taken[0]
            continue
        found = next((op for op in waiting if _computes(planned, taken, op, model, reshaped)), None)
        if found is None:
            problems.append((planned.output.name, f"the file has no such {planned.builtin} at its place"))
            continue
        waiting.remove(found)
        root_of[id(planned.output)] = found.outputs[0]
        operators.append((planned, found))
    extra = [f"{_builtin(op, model)} -> {graph.tensors[op.outputs[0]].name.decode()}" for op in waiting]
    problems += [("file", f"unplanned operator {name}") for name in extra]
    if problems:
        raise ExportError("The converter made something else than was planned", problems)
    planned_at = {root_of[id(x)]: x for x in (*plan.inputs, *(planned.output for planned, _ in operators))}
    roots = {index: _root(index, reshaped) for index in (*planned_at, *reshaped)}
    tensors = [(planned_at[root], graph.tensors[index]) for index, root in roots.items()]
    crossings = [op for op in graph.operators if _is_boundary(op, model)]
    ends = [(op.outputs[0], op.inputs[0]) for op in crossings if op.inputs[0] in graph.inputs]
    ends += [(op.inputs[0], op.outputs[0]) for op in crossings if op.inputs[0] not in graph.inputs]
    boundaries = [(planned_at[roots[inside]], graph.tensors[outside]) for inside, outside in ends]
    return Matches(operators, tensors, boundaries)


def _root(index: int, reshaped: dict[int, int]) -> int:
    """The tensor that a tensor of the file is a reshaped copy of."""
    while index in reshaped:
        index = reshaped[index]
    return index


def scales_of(tensor, planned) -> tuple[np.ndarray, np.ndarray]:
    """The stored scales and the planned ones, in one shape."""
    stored = np.asarray(tensor.quantization.scale, np.float32)
    if len(stored) == 1:
        # One scale for all channels is only right if all are equal.
        return np.broadcast_to(stored, planned.shape), planned
    return stored, planned


def _input_indices(plan: Plan, model) -> dict[int, int]:
    """The file's int8 tensor of each planned input: the input itself, or what its QUANTIZE writes."""
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs or [None]
    if signature is None:
        indices = list(graph.inputs)
    else:
        by_name = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
        indices = [by_name[f"input_{i}"] for i in range(len(plan.inputs))]
    quantized = {op.inputs[0]: op.outputs[0] for op in graph.operators if _builtin(op, model) == "QUANTIZE"}
    return {id(x): quantized.get(index, index) for x, index in zip(plan.inputs, indices, strict=True)}


def _is_boundary(operator, model) -> bool:
    """QUANTIZE of an input, or QUANTIZE or DEQUANTIZE to an output of another type."""
    graph, name = model.subgraphs[0], _builtin(operator, model)
    if name == "QUANTIZE" and operator.inputs[0] in graph.inputs:
        return True
    return name in ("QUANTIZE", "DEQUANTIZE") and operator.outputs[0] in graph.outputs


def _builtin(operator, model) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return BUILTINS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _computes(planned: Operator, taken: list, operator, model, reshaped: dict[int, int]) -> bool:
    """Whether an operator of the file is the planned one, constants equal up to float32 rounding."""
    roots = [_root(index, reshaped) for index in operator.inputs[: len(taken)]]
    if _builtin(operator, model) != planned.builtin or roots != taken:
        return False
    tensors, options = model.subgraphs[0].tensors, operator.builtinOptions
    if (
        isinstance(planned, (LinearOperator, Add, ConstantOperator))
        and _ACTIVATIONS.get(options.fusedActivationFunction) != planned.activation
    ):
        return False
    if isinstance(planned, (Convolution, DepthwiseConvolution, MaxPool)):
        size = planned.pool if isinstance(planned, MaxPool) else planned.weights.shape[:2]
        if not _same_window(planned.window, size, options):
            return False
    if isinstance(planned, MaxPool) and (options.filterHeight, options.filterWidth) != tuple(planned.pool):
        return False
    if isinstance(planned, Pad):
        paddings = _constant(tensors[operator.inputs[1]], np.int32, model)
        if not np.array_equal(paddings, [(0, 0), *planned.paddings, (0, 0)]):
            return False
    if isinstance(planned, ConstantOperator) and not _close_constant(planned, tensors[operator.inputs[1]], model):
        return False
    if isinstance(planned, LinearOperator):
        kernel, bias = constants_of(operator, model)
        if not _close_constants(planned, kernel, bias, model):
            return False
    return _close_activation(planned.output, tensors[operator.outputs[0]])


def _close_constants(planned: LinearOperator, kernel, bias, model) -> bool:
    stored = kernel_of(planned, kernel, model)
    biases = biases_of(planned, bias, model).astype(np.float64)
    if not np.array_equal(stored, planned.weights) or biases.shape != planned.bias.shape:
        return False
    if not planned.weights.any():
        return _same_constants_in_reals(planned, kernel, biases)
    slack = np.maximum(CLOSE * np.abs(planned.bias), 1.0 * (np.abs(planned.bias) > 2**22))
    return np.allclose(*scales_of(kernel, planned.weight_scale), rtol=CLOSE, atol=0) and bool(
        (np.abs(biases - planned.bias) <= slack).all()
    )


def _same_constants_in_reals(planned: LinearOperator, kernel, biases: np.ndarray) -> bool:
    """Whether an operator without weights adds the planned constants, to a step of the file's.

    The converter may give a kernel of zeros scales of its own, and the bias with them. But the biases still tell apart
    two such operators that read the same input.
    """
    stored_scale, _ = scales_of(kernel, planned.weight_scale)
    step = stored_scale.astype(np.float64) * planned.inputs[0].scale
    constants = planned.bias * planned.bias_scale.astype(np.float64)
    return bool((np.abs(biases * step - constants) <= step + CLOSE * np.abs(constants)).all())


def _close_constant(planned: ConstantOperator, tensor, model) -> bool:
    if TENSOR_TYPES[tensor.type] != "INT8" or model.buffers[tensor.buffer].data is None:
        return False
    integers = _constant(tensor, np.int8, model).ravel().tolist()
    return integers == [planned.constant.integer] and _close_activation(planned.constant, tensor)


def _close_activation(planned: Tensor | Constant, tensor) -> bool:
    quantization = tensor.quantization
    return (
        quantization is not None
        and quantization.scale is not None
        and len(quantization.scale) == 1
        and np.isclose(quantization.scale[0], planned.scale, rtol=CLOSE, atol=0)
        and quantization.zeroPoint[0] == planned.zero_point
    )


def _same_window(window: Window, size: tuple[int, ...], options) -> bool:
    dilations = (getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1))
    strides = (options.strideH, options.strideW)
    return (
        strides == tuple(window.strides)
        and dilations == tuple(window.dilations)
        # A single weight has nothing to pad, and the converter may say either.
        and (_PADDINGS[options.padding] == window.padding or tuple(size) == (1, 1))
    )


def constants_of(operator, model) -> tuple:
    """The tensors of a linear operator's kernel and bias; None for a bias that the converter left out."""
    tensors = model.subgraphs[0].tensors
    kernel, bias = (tensors[index] if index >= 0 else None for index in operator.inputs[1:3])
    return kernel, bias


def biases_of(planned: LinearOperator, bias, model) -> np.ndarray:
    """The stored biases; one that was left out is all zero."""
    return np.zeros_like(planned.bias) if bias is None else _constant(bias, np.int32, model)


def _constant(tensor, dtype, model) -> np.ndarray:
    data = model.buffers[tensor.buffer].data
    return np.frombuffer(bytes(bytearray(data)), dtype).reshape(tensor.shape)


def kernel_of(planned: LinearOperator, tensor, model) -> np.ndarray:
    """The stored kernel in the plan's layout."""
    if TENSOR_TYPES[tensor.type] != "INT8" or model.buffers[tensor.buffer].data is None:
        return np.zeros(0)
    stored = _constant(tensor, np.int8, model)
    if isinstance(planned, Convolution):
        return stored.transpose(1, 2, 3, 0)
    if isinstance(planned, FullyConnected):
        return stored.T
    return stored[0]
