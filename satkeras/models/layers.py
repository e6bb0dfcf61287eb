"""The layers satkeras knows: a table with a row for each Keras class."""

import dataclasses
import enum
from collections.abc import Callable

from satkeras._compat import keras
from satkeras.models.activations import Elementwise, GeneralReLU, Sigmoid, Tanh, name_of, steps_of
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.core import (
    BILINEAR_FACTORS,
    BilinearUpSampling2D,
    Clip,
    DepthToSpace,
    Mean,
    OnItsInputsGrid,
    Slice,
    SpaceToDepth,
)
from satkeras.models.graph import Node

_layers = keras.layers
SMALLEST_SLOPE = 1 / 256
LARGEST_UNIT = 2**31 // 255**2  # values that L2_NORMALIZATION can add the squares of
# Layers that do nothing at inference.
ONLY_IN_TRAINING = (
    _layers.ActivityRegularization,
    _layers.AlphaDropout,
    _layers.Dropout,
    _layers.GaussianDropout,
    _layers.GaussianNoise,
    _layers.Identity,
    _layers.RandomBrightness,
    _layers.RandomContrast,
    _layers.RandomFlip,
    _layers.RandomRotation,
    _layers.RandomTranslation,
    _layers.RandomZoom,
    _layers.SpatialDropout1D,
    _layers.SpatialDropout2D,
    _layers.SpatialDropout3D,
)


class Kind(enum.Enum):
    """What a layer does to quantized tensors."""

    INPUT = "makes the model's input"
    LINEAR = "multiplies its input by a kernel; its input gets the low bit width"
    BATCH_NORM = "scales and shifts each channel; folds into the linear layer before it"
    RELU = "fuses into the layer before it"
    COMPUTE = "computes new values from stored tensors; its result gets a grid of its own"
    JOIN = "joins tensors, or chooses among them, all on one grid, which is its result's"
    ON_GRID = "computes new values on its input's grid"
    FIXED = "computes values on a grid that its operator fixes"
    PASS = "moves, pads or selects values; its output has its input's scale"


@dataclasses.dataclass(frozen=True)
class Row:
    """How one Keras class is handled.

    Attributes:
      kind: its role.
      problem: given a node, says why this use of the layer is not supported, or None.
      signed: whether its result has negative values; None: if one of its inputs has.
      grid: for a FIXED layer the size of a step, and the int8 value of 0.0.
    """

    kind: Kind
    problem: Callable[[Node], str | None] = lambda node: None
    signed: bool | None = None
    grid: tuple[float, int] | None = None


def row_of(layer: keras.layers.Layer) -> Row | None:
    """The row of a layer's class, None if it has none; satkeras' own layers may have that of the Keras class inside."""
    own = type(layer)
    classes = own.__mro__ if own.__module__.startswith("satkeras.") else (own,)
    return next((TABLE[cls] for cls in classes if cls in TABLE), None)


def fixed_grid(layer: keras.layers.Layer) -> tuple[float, int]:
    """The size of a step of a FIXED layer's result, and the int8 value of 0.0."""
    row = row_of(layer)
    if row is None or row.grid is None:
        raise ValueError(f"Layer {layer.name!r} has no grid of its own")
    return row.grid


def kind_of(node: Node) -> Kind | None:
    """The role of a node's layer, None for a class without a row."""
    row = row_of(node.layer)
    return None if row is None else row.kind


def float_class(layer: keras.layers.Layer) -> type:
    """The class that a layer has in a float model; Keras' own for those that satkeras puts in its place."""
    known = [cls for cls in type(layer).__mro__ if cls in TABLE] or [type(layer)]
    return next((cls for cls in known if not cls.__module__.startswith("satkeras.")), known[0])


def problem_of(node: Node) -> str | None:
    """Why the node is not supported, or None."""
    row = TABLE.get(type(node.layer))
    if row is None:
        return "no rule for this class"
    if row.kind is not Kind.INPUT and node.layer.dtype == "float64":
        return "computes in float64; build it with dtype='float32'"
    return row.problem(node)


def _input_rank(node: Node) -> int:
    return len(node.inputs[0].shape) + 1


def _activation_problem(node: Node) -> str | None:
    activation = node.layer.activation
    if node.layer.activity_regularizer is not None and activation is not keras.activations.linear:
        return "has an activity_regularizer and an activation, which is split off: make the activation a layer"
    if isinstance(activation, keras.layers.Layer) and row_of(activation) is not None:
        return problem_of(dataclasses.replace(node, layer=activation))
    if steps_of(activation) is None:
        return f"activation {name_of(activation)!r} has no rule"
    return None


def _channels_problem(node: Node) -> str | None:
    if getattr(node.layer, "data_format", "channels_last") != "channels_last":
        return "needs data_format='channels_last'"
    return None


def _convolution_problem(node: Node) -> str | None:
    if getattr(node.layer, "groups", 1) != 1:
        return "grouped convolutions need CONV_2D version 6, newer than TF 2.6's"
    if getattr(node.layer, "depth_multiplier", 1) != 1:
        return "needs depth_multiplier=1"
    return _channels_problem(node) or _activation_problem(node)


def _transposed_problem(node: Node) -> str | None:
    layer = node.layer
    if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
        return "needs output_padding=None and dilation_rate=1: use UpSampling2D and a Conv2D"
    if any(size < stride for size, stride in zip(layer.kernel_size, layer.strides, strict=True)):
        return (
            f"needs a kernel as large as its strides, has {tuple(layer.kernel_size)} and {tuple(layer.strides)}: use "
            "UpSampling2D and a Conv2D"
        )
    return _channels_problem(node) or _activation_problem(node)


def _dense_problem(node: Node) -> str | None:
    if _input_rank(node) != 2:
        return f"needs inputs of shape (batch, features), gets rank {_input_rank(node)}; put a Flatten before it"
    return _activation_problem(node)


def _batch_norm_problem(node: Node) -> str | None:
    axes = [axis % _input_rank(node) for axis in _as_list(node.layer.axis)]
    if axes != [_input_rank(node) - 1]:
        return f"needs axis=-1, has axis={node.layer.axis}"
    if _input_rank(node) not in (2, 3, 4):
        return f"needs inputs of rank 2 to 4, gets rank {_input_rank(node)}"
    return None


def _relu_problem(node: Node) -> str | None:
    layer = node.layer
    if layer.negative_slope and not layer.threshold and layer.max_value is None:
        return _leaky_problem(float(layer.negative_slope))
    return None


def _slope_problem(node: Node) -> str | None:
    return _leaky_problem(float(node.layer.alpha))


def _leaky_problem(slope: float) -> str | None:
    if not SMALLEST_SLOPE <= slope <= 1:
        return f"LEAKY_RELU's slope lies within 1/256 .. 1, has {slope:g}: use ReLU for one that is smaller"
    return None


def _merge_problem(node: Node) -> str | None:
    """Tensors of one shape, or one of (1, 1, channels) beside images."""
    shapes = [parent.shape for parent in node.inputs]
    if len(shapes) < 2 or len({len(shape) for shape in shapes}) > 1:
        return f"needs two or more inputs of one rank, gets {shapes}"
    return None


def _join_problem(node: Node) -> str | None:
    return "needs two or more inputs" if len(node.inputs) < 2 else None


def _softmax_problem(node: Node) -> str | None:
    if _as_list(node.layer.axis) not in ([-1], [_input_rank(node) - 1]):
        return f"needs axis=-1, has axis={node.layer.axis}"
    return None


def _unit_problem(node: Node) -> str | None:
    if _as_list(node.layer.axis) not in ([-1], [_input_rank(node) - 1]):
        return f"needs axis=-1, has axis={node.layer.axis}"
    count = node.inputs[0].shape[-1]
    if count is not None and count > LARGEST_UNIT:
        return f"needs at most {LARGEST_UNIT} values, whose squares fit 32 bits, has {count}: normalize behind the file"
    return None


def _upsampling_problem(node: Node) -> str | None:
    factors, interpolation = tuple(node.layer.size), node.layer.interpolation
    if interpolation == "bilinear" and not set(factors) <= set(BILINEAR_FACTORS):
        return f"bilinear by {factors} rounds otherwise in every runtime: by 2, 4 or 8 it does not, nor does 'nearest'"
    if interpolation not in ("bilinear", "nearest"):
        return f"interpolation={interpolation!r} has no operator; use 'bilinear' or 'nearest'"
    return _channels_problem(node)


def _as_list(axis) -> list[int]:
    return list(axis) if isinstance(axis, (list, tuple)) or hasattr(axis, "__iter__") else [axis]


TABLE: dict[type, Row] = {
    _layers.InputLayer: Row(Kind.INPUT),
    _layers.Conv2D: Row(Kind.LINEAR, _convolution_problem, signed=True),
    _layers.DepthwiseConv2D: Row(Kind.LINEAR, _convolution_problem, signed=True),
    _layers.Conv2DTranspose: Row(Kind.LINEAR, _transposed_problem, signed=True),
    _layers.Dense: Row(Kind.LINEAR, _dense_problem, signed=True),
    _layers.BatchNormalization: Row(Kind.BATCH_NORM, _batch_norm_problem, signed=True),
    _layers.Rescaling: Row(Kind.BATCH_NORM, signed=True),
    ChannelScale: Row(Kind.BATCH_NORM, signed=True),
    _layers.ReLU: Row(Kind.RELU, _relu_problem, signed=False),
    _layers.Add: Row(Kind.COMPUTE, _merge_problem),
    _layers.Average: Row(Kind.COMPUTE, _merge_problem),
    _layers.Subtract: Row(Kind.COMPUTE, _merge_problem, signed=True),
    _layers.Multiply: Row(Kind.COMPUTE, _merge_problem),
    _layers.Concatenate: Row(Kind.JOIN, _join_problem),
    _layers.Maximum: Row(Kind.JOIN, _merge_problem),
    _layers.Minimum: Row(Kind.JOIN, _merge_problem),
    _layers.AveragePooling2D: Row(Kind.ON_GRID, _channels_problem),
    _layers.GlobalAveragePooling2D: Row(Kind.ON_GRID, _channels_problem),
    BilinearUpSampling2D: Row(Kind.ON_GRID, _upsampling_problem),
    _layers.LeakyReLU: Row(Kind.ON_GRID, _slope_problem),
    _layers.PReLU: Row(Kind.ON_GRID),
    OnItsInputsGrid: Row(Kind.ON_GRID),
    _layers.ELU: Row(Kind.COMPUTE, signed=True),
    _layers.ThresholdedReLU: Row(Kind.COMPUTE, signed=False),
    Mean: Row(Kind.COMPUTE, _channels_problem),
    Elementwise: Row(Kind.COMPUTE, signed=True),
    Clip: Row(Kind.COMPUTE, signed=True),
    GeneralReLU: Row(Kind.COMPUTE, signed=True),
    _layers.Softmax: Row(Kind.FIXED, _softmax_problem, signed=False, grid=(1 / 256, -128)),
    _layers.UnitNormalization: Row(Kind.FIXED, _unit_problem, signed=True, grid=(1 / 128, 0)),
    Sigmoid: Row(Kind.FIXED, signed=False, grid=(1 / 256, -128)),
    Tanh: Row(Kind.FIXED, signed=True, grid=(1 / 128, 0)),
    _layers.Activation: Row(Kind.PASS, _activation_problem),
    _layers.MaxPooling2D: Row(Kind.PASS, _channels_problem),
    _layers.GlobalMaxPooling2D: Row(Kind.PASS, _channels_problem),
    _layers.UpSampling2D: Row(Kind.PASS, _upsampling_problem),
    _layers.ZeroPadding2D: Row(Kind.PASS, _channels_problem),
    _layers.Cropping2D: Row(Kind.PASS, _channels_problem),
    _layers.Permute: Row(Kind.PASS),
    _layers.Flatten: Row(Kind.PASS, _channels_problem),
    _layers.Reshape: Row(Kind.PASS),
    Slice: Row(Kind.PASS),
    DepthToSpace: Row(Kind.PASS),
    SpaceToDepth: Row(Kind.PASS),
} | dict.fromkeys(ONLY_IN_TRAINING, Row(Kind.PASS))
