"""Operators that move values, on their input's grid.

RESHAPE, TRANSPOSE, PAD, STRIDED_SLICE, CONCATENATION, RESIZE_NEAREST_NEIGHBOR, DEPTH_TO_SPACE, SPACE_TO_DEPTH.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Operator):
    """RESHAPE."""

    builtin = "RESHAPE"
    same_everywhere = True
    version = 1
    runtime = "1.5.0"

    def compute(self, values, kernels):
        return tf.reshape(values[0], (-1, *self.output.shape))

    def constants(self):
        return (Constant(f"{self.output.name}/shape", narrowed((1, *self.output.shape), np.int32)),)

    def options(self):
        options = schema.ReshapeOptionsT()
        options.newShape = [1, *self.output.shape]
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class Transpose(Operator):
    """TRANSPOSE.

    Attributes:
      permutation: which of its input's axes each axis of the output is, 1 being the first after the batch's.
    """

    builtin = "TRANSPOSE"
    same_everywhere = True
    permutation: tuple[int, ...]

    def compute(self, values, kernels):
        return tf.transpose(values[0], (0, *self.permutation))

    def constants(self):
        return (Constant(f"{self.output.name}/permutation", narrowed((0, *self.permutation), np.int32)),)

    def options(self):
        return schema.TransposeOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Operator):
    """PAD with zeros, that is with the zero point.

    Attributes:
      paddings: before and after, for height and width.
    """

    builtin = "PAD"
    same_everywhere = True
    paddings: tuple[tuple[int, int], tuple[int, int]]

    def compute(self, values, kernels):
        return tf.pad(values[0], ((0, 0), *self.paddings, (0, 0)), constant_values=self.output.zero_point)

    def constants(self):
        paddings = narrowed([(0, 0), *self.paddings, (0, 0)], np.int32)
        return (Constant(f"{self.output.name}/paddings", paddings),)

    def options(self):
        return schema.PadOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenation(Operator):
    """CONCATENATION of two or more tensors on one grid.

    Attributes:
      axis: the axis that they are joined along, the batch's being 0.
    """

    builtin = "CONCATENATION"
    same_everywhere = True
    axis: int

    @property
    def runs_in_xnnpack(self) -> bool:  # type: ignore[override]
        """XNNPACK joins up to five tensors."""
        return len(self.inputs) <= 5

    def compute(self, values, kernels):
        return tf.concat(values, self.axis)

    def options(self):
        options = schema.ConcatenationOptionsT()
        options.axis = self.axis
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class StridedSlice(Operator):
    """STRIDED_SLICE: `x[begin:end:stride]` on every axis but the batch's.

    Attributes:
      begin: 0 or more.
      end: up to the size of its axis.
      strides: 1 or more.
    """

    builtin = "STRIDED_SLICE"
    same_everywhere = True
    begin: tuple[int, ...]
    end: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def runs_in_xnnpack(self) -> bool:  # type: ignore[override]
        """XNNPACK leaves out nothing in between."""
        return set(self.strides) == {1}

    def compute(self, values, kernels):
        slices = (slice(*ends) for ends in zip(self.begin, self.end, self.strides, strict=True))
        return values[0][(slice(None), *slices)]

    def constants(self):
        rows = {"begin": (0, *self.begin), "end": (1, *self.end), "strides": (1, *self.strides)}
        return tuple(Constant(f"{self.output.name}/{name}", narrowed(row, np.int32)) for name, row in rows.items())

    def options(self):
        return schema.StridedSliceOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class ResizeNearestNeighbor(Operator):
    """RESIZE_NEAREST_NEIGHBOR: for each pixel of the output, the one of the input that its centre lies in."""

    builtin = "RESIZE_NEAREST_NEIGHBOR"
    same_everywhere = True
    version = 3  # the first with half_pixel_centers
    runtime = "2.3.0"
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        rows, columns = (
            _nearest(*sizes) for sizes in zip(self.inputs[0].shape[:2], self.output.shape[:2], strict=True)
        )
        return tf.gather(tf.gather(values[0], rows, axis=1), columns, axis=2)

    def constants(self):
        return (Constant(f"{self.output.name}/size", narrowed(self.output.shape[:2], np.int32)),)

    def options(self):
        options = schema.ResizeNearestNeighborOptionsT()
        options.halfPixelCenters = True
        return options


def _nearest(old: int, new: int) -> np.ndarray:
    """The kernel's float32 arithmetic."""
    centres = (np.arange(new).astype(np.float32) + np.float32(0.5)) * (np.float32(old) / np.float32(new))
    return np.minimum(narrowed(np.floor(centres), np.int32), old - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class DepthToSpace(Operator):
    """DEPTH_TO_SPACE.

    Attributes:
      block: height and width of the pixels that the channels of one become.
    """

    builtin = "DEPTH_TO_SPACE"
    same_everywhere = True
    version = 1  # LiteRT's reference kernels know no other
    runtime = "2.1.0"
    block: int

    def compute(self, values, kernels):
        return tf.nn.depth_to_space(values[0], self.block)

    def options(self):
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = self.block
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceToDepth(Operator):
    """SPACE_TO_DEPTH.

    Attributes:
      block: height and width of the pixels that become the channels of one.
    """

    builtin = "SPACE_TO_DEPTH"
    same_everywhere = True
    block: int

    def compute(self, values, kernels):
        return tf.nn.space_to_depth(values[0], self.block)

    def options(self):
        options = schema.SpaceToDepthOptionsT()
        options.blockSize = self.block
        return options
