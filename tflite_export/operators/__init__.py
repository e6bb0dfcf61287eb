"""The operators of a file, one class each."""

from tflite_export.operators.elementwise import Add, AddConstant, Maximum, Minimum, MultiplyConstant
from tflite_export.operators.linear import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator, Window
from tflite_export.operators.movement import Concatenation, Pad, Reshape
from tflite_export.operators.pooling import AveragePool, MaxPool
from tflite_export.operators.tables import Softmax

__all__ = [
    "Add",
    "AddConstant",
    "AveragePool",
    "Concatenation",
    "Convolution",
    "DepthwiseConvolution",
    "FullyConnected",
    "LinearOperator",
    "MaxPool",
    "Maximum",
    "Minimum",
    "MultiplyConstant",
    "Pad",
    "Reshape",
    "Softmax",
    "Window",
]
