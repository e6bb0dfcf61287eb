"""MEAN over height and width, on which no two runtimes agree, as a pool or a weighted sum of ones."""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.foreign.graph import FileGraph

_ONE = 127  # the whole of int8 for a weight, so that sums lie 127 steps apart


def replace_mean(file: FileGraph, place: int) -> bool:
    """Replaces the MEAN at a place among the operators, if it is one of whole images; whether it was.

    On its input's grid a mean is an AVERAGE_POOL_2D; on another a DEPTHWISE_CONV_2D of ones, whose scale can be moved.
    A RESHAPE follows where the mean drops height and width.
    """
    operator = file.operators[place]
    x, axes = (int(index) for index in operator.inputs)
    (output,) = (int(index) for index in operator.outputs)
    shape, reduced = [int(size) for size in file.tensor(x).shape], file.values(axes)
    if reduced is None or len(shape) != 4 or sorted(int(axis) % 4 for axis in reduced.ravel()) != [1, 2]:
        return False
    if not (file.is_int8(x) and file.is_int8(output)):
        return False
    height, width, channels = shape[1:]
    same_grid = (file.scale(x), file.zero_point(x)) == (file.scale(output), file.zero_point(output))
    keeps = len(file.tensor(output).shape) == 4
    pooled = output if keeps else file.add_tensor(output, f"{file.name(output)}/pooled", (shape[0], 1, 1, channels))
    new = _pool(file, x, pooled, height, width) if same_grid else _ones(file, x, pooled, height, width, channels)
    file.operators[place : place + 1] = [new] if keeps else [new, _reshape(file, pooled, output)]
    return True


def _pool(file: FileGraph, x: int, output: int, height: int, width: int):
    options = schema.Pool2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
    options.filterHeight, options.filterWidth = height, width
    return _operator(file.code("AVERAGE_POOL_2D", 2), [x], output, options, "Pool2DOptions")


def _ones(file: FileGraph, x: int, output: int, height: int, width: int, channels: int):
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, 1, 1
    options.depthMultiplier, options.dilationHFactor, options.dilationWFactor = 1, 1, 1
    scale = np.full(channels, 1 / (_ONE * height * width), np.float32)
    ones = np.full((1, height, width, channels), _ONE, np.int8)
    name = file.name(output)
    kernel = file.add_constant(None, f"{name}/ones", ones, scale, 3)
    bias = file.add_constant(None, f"{name}/bias", np.zeros(channels, np.int32), file.scale(x) * scale)
    code = file.code("DEPTHWISE_CONV_2D", 3)
    return _operator(code, [x, kernel, bias], output, options, "DepthwiseConv2DOptions")


def _reshape(file: FileGraph, pooled: int, output: int):
    shape = narrowed(file.tensor(output).shape, np.int32)
    options = schema.ReshapeOptionsT()
    options.newShape = shape.tolist()
    constant = file.add_constant(None, f"{file.name(output)}/shape", shape, np.ones(1))
    file.tensor(constant).quantization = None
    return _operator(file.code("RESHAPE", 1), [pooled, constant], output, options, "ReshapeOptions")


def _operator(code: int, inputs: list[int], output: int, options, kind: str):
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
    operator.builtinOptions, operator.builtinOptionsType = options, getattr(schema.BuiltinOptions, kind)
    return operator
