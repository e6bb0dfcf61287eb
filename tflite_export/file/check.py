"""The file against the plan: every operator, version, integer, scale and zero point."""

import numpy as np
from tensorflow.lite.tools import flatbuffer_utils

from tflite_export.errors import ExportError
from tflite_export.file.match import TENSOR_TYPES, biases_of, constants_of, kernel_of, match_operators, scales_of
from tflite_export.plan import ConstantOperator, LinearOperator, Operator, Plan, Tensor


def check_file(plan: Plan, content: bytes, input_type: str, output_type: str) -> None:
    """Compares the bytes of a file with the plan, exactly.

    Raises:
      ExportError: naming everything that differs.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    matches = match_operators(plan, model)
    problems = []
    for planned, operator in matches.operators:
        problems += [(planned.output.name, reason) for reason in _operator_differences(planned, operator, model)]
    for planned, tensor in matches.tensors:
        problems += [(planned.name, reason) for reason in _activation_differences(planned, tensor)]
    for planned, tensor in matches.boundaries:
        problems += [(planned.name, reason) for reason in _boundary_differences(planned, tensor)]
    problems += _type_problems(model, input_type, output_type)
    if problems:
        raise ExportError("The file is not what was planned", problems)


def _operator_differences(planned: Operator, operator, model) -> list[str]:
    differences = []
    version = model.operatorCodes[operator.opcodeIndex].version
    if version > planned.newest_version:
        differences.append(f"{planned.builtin} version {version}; TF 2.6 knows up to {planned.newest_version}")
    if isinstance(planned, LinearOperator):
        kernel, bias = constants_of(operator, model)
        stored = {
            "weights": (kernel_of(planned, kernel, model), planned.weights),
            "bias": (biases_of(planned, bias, model), planned.bias),
            "weight scales": scales_of(kernel, planned.weight_scale),
        }
        if bias is not None:
            stored["bias scales"] = scales_of(bias, planned.bias_scale)
        differences += [f"its {name} differ" for name, pair in stored.items() if not np.array_equal(*pair)]
        if any(np.any(tensor.quantization.zeroPoint) for tensor in (kernel, bias) if tensor is not None):
            differences.append("its weights have a zero point")
    if isinstance(planned, ConstantOperator):
        scale = np.float32(model.subgraphs[0].tensors[operator.inputs[1]].quantization.scale[0])
        if scale != planned.constant.scale:
            differences.append(f"the scale of its constant is {scale}, planned {planned.constant.scale}")
    return differences


def _activation_differences(planned: Tensor, tensor) -> list[str]:
    stored = (
        TENSOR_TYPES[tensor.type],
        [float(np.float32(scale)) for scale in tensor.quantization.scale],
        list(tensor.quantization.zeroPoint),
        int(np.prod(tensor.shape)),
    )
    wanted = ("INT8", [float(planned.scale)], [planned.zero_point], int(np.prod(planned.shape)))
    names = ("type", "scale", "zero point", "number of elements")
    return [
        f"its {name} is {found}, planned {expected}"
        for name, found, expected in zip(names, stored, wanted, strict=True)
        if found != expected
    ]


def uint8_zero_point(planned: Tensor) -> int:
    """The zero point of a planned tensor held in uint8: every integer is 128 more."""
    return planned.zero_point + 128


def _boundary_differences(planned: Tensor, tensor) -> list[str]:
    """What a caller reads to turn images into codes and codes into scores; float boundaries have nothing to read."""
    if TENSOR_TYPES[tensor.type] != "UINT8":
        return []
    stored = np.float32(tensor.quantization.scale[0]), tensor.quantization.zeroPoint[0]
    wanted = planned.scale, uint8_zero_point(planned)
    return [] if stored == wanted else [f"scale and zero point of its uint8 form are {stored}, planned {wanted}"]


def _type_problems(model, input_type: str, output_type: str) -> list[tuple[str, str]]:
    graph = model.subgraphs[0]
    problems = []
    for indices, wanted in ((graph.inputs, input_type), (graph.outputs, output_type)):
        for tensor in (graph.tensors[index] for index in indices):
            if TENSOR_TYPES[tensor.type] != wanted.upper():
                problems.append((tensor.name.decode(), f"has type {TENSOR_TYPES[tensor.type]}, asked for {wanted}"))
    allowed = {"INT8", "INT32", input_type.upper(), output_type.upper()}
    for tensor in graph.tensors:
        if TENSOR_TYPES[tensor.type] not in allowed:
            problems.append((tensor.name.decode(), f"has type {TENSOR_TYPES[tensor.type]}"))
    if len(model.subgraphs) != 1:
        problems.append(("file", f"has {len(model.subgraphs)} subgraphs"))
    return problems
