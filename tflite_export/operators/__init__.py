"""The operators of a file, one class each."""

from tflite_export.operators.elementwise import Add, AddConstant, Multiply, MultiplyConstant, Subtract
from tflite_export.operators.extrema import Maximum, MaximumOfTwo, Minimum, MinimumOfTwo
from tflite_export.operators.linear import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator, Origin
from tflite_export.operators.lookup import Lookup
from tflite_export.operators.movement import (
    Concatenation,
    DepthToSpace,
    Pad,
    Reshape,
    ResizeNearestNeighbor,
    SpaceToDepth,
    StridedSlice,
    Transpose,
)
from tflite_export.operators.pooling import AveragePool, MaxPool
from tflite_export.operators.resizing import ResizeBilinear
from tflite_export.operators.tables import HardSwish, L2Normalization, LeakyRelu, Logistic, PRelu, Softmax, Tanh
from tflite_export.operators.transposed import TransposeConvolution
from tflite_export.operators.window import Window

__all__ = [
    "Add",
    "AddConstant",
    "AveragePool",
    "Concatenation",
    "Convolution",
    "DepthToSpace",
    "DepthwiseConvolution",
    "FullyConnected",
    "HardSwish",
    "L2Normalization",
    "LeakyRelu",
    "LinearOperator",
    "Logistic",
    "Lookup",
    "MaxPool",
    "Maximum",
    "MaximumOfTwo",
    "Minimum",
    "MinimumOfTwo",
    "Multiply",
    "MultiplyConstant",
    "Origin",
    "PRelu",
    "Pad",
    "Reshape",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "Softmax",
    "SpaceToDepth",
    "StridedSlice",
    "Subtract",
    "Tanh",
    "Transpose",
    "TransposeConvolution",
    "Window",
]
