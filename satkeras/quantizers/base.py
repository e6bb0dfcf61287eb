"""What every quantizer is: a frozen value on tfmot's interface that also states its integer grid."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, tfmot, value_of
from satkeras.quantizers.quant_params import QuantParams

Role: TypeAlias = Literal["clip", "step", "scale", "threshold", "offset", "range", "state", "count"]


@dataclasses.dataclass(frozen=True)
class QuantizerVariable:
    """A variable that a quantizer keeps in its layer.

    Attributes:
      name: the key that the quantizer finds it under, and the end of the Keras variable's name.
      role: "clip": the largest value that is not clipped; "step": the real size of one integer step; "scale": another
        factor of the tensor or of its levels; "threshold": where one level ends and the next begins; "offset": what is
        added; "range": a statistic of the data, averaged over replicas; "state": where the training stands; "count":
        how often something happened, on all replicas together.
      initial: its first value.
      learned: whether gradient descent moves it.
      decayed: whether an optimizer's weight decay applies to it, see `satkeras.undecayed_variables`.
      from_data: whether data set it; 0 means that none were seen yet.
      l2: factor of its square in the model's loss.
      shape: its shape.
      dtype: its TensorFlow type.
    """

    name: str
    role: Role
    initial: float = 0.0
    learned: bool = True
    decayed: bool = False
    from_data: bool = False
    l2: float = 0.0
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    def create(self, layer, name: str) -> tf.Variable:
        """Adds the variable to a Keras layer under a name."""
        statistic = self.role in ("range", "count")
        return layer.add_weight(
            name=name,
            shape=self.shape,
            dtype=self.dtype,
            initializer=keras.initializers.Constant(self.initial),
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            trainable=self.learned,
            synchronization=tf.VariableSynchronization.ON_READ if statistic else tf.VariableSynchronization.AUTO,
            aggregation=self._aggregation,
        )

    @property
    def _aggregation(self) -> tf.VariableAggregation:
        if self.role == "count":
            return tf.VariableAggregation.SUM
        # Whole numbers have no mean; they are set alike on all replicas.
        floating = tf.as_dtype(self.dtype).is_floating
        return tf.VariableAggregation.MEAN if floating else tf.VariableAggregation.ONLY_FIRST_REPLICA


class Quantizer(tfmot.quantization.keras.quantizers.Quantizer, abc.ABC):
    """A tfmot quantizer that states the integer grid its results lie on.

    A subclass is a frozen dataclass. It keeps no state of its own: the variables that it declares belong to the layer,
    and tfmot hands them back on every call.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # subclasses are dataclasses

    num_bits: int | None

    @property
    def declared_variables(self) -> tuple[QuantizerVariable, ...]:
        """The variables that the quantizer keeps in its layer. None by default."""
        return ()

    def build(self, tensor_shape, name, layer):
        """Creates the declared variables in `layer`; returns them by name."""
        return {one.name: one.create(layer, f"{name}_{one.name}") for one in self.declared_variables}

    @property
    def replaces_relu(self) -> bool:
        """Whether its learned clip takes the place of a ReLU before it, maximum and all."""
        return False

    @property
    def keeps_input(self) -> bool:
        """Whether its backward pass reads the tensor that it quantizes."""
        return True

    @property
    def ends_at_largest(self) -> bool:
        """Whether it has one grid for the kernel that ends at the largest weight: see `equalize_channels`."""
        return False

    @property
    def shift(self) -> float:
        """By how much the tensor that it reads lies above the one that it returns."""
        return 0.0

    @property
    def marks_problems(self) -> bool:
        """Whether under XLA, which has no errors, its result is NaN where training should stop."""
        return False

    @property
    def reads_8_bits(self) -> bool:
        """Whether its levels are not evenly spaced in its input, which is therefore stored at 8 bits."""
        return False

    def specialized(self, **facts) -> "Quantizer":
        """The quantizer for one tensor, told those facts about it that it has a field for."""
        fields = {field.name for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: fact for name, fact in facts.items() if name in fields})

    @abc.abstractmethod
    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantizes `inputs` (float tensor) onto the grid; `weights` are the variables that `build` returned."""

    def latent_of(self, weight: np.ndarray, variables: Mapping[str, Any]) -> np.ndarray:
        """The latent weight whose quantized weight is closest to a pretrained `weight`; may set `variables`.

        By default the weight itself, for quantizers that transform nothing but the grid.
        """
        return weight

    def unrounded(self, latent, variables: Mapping[str, Any]) -> tf.Tensor:
        """What a latent weight stands for before it is rounded, in the units of the quantized weight.

        By default the latent weight itself. `unrounded(latent_of(weight))` is the pretrained weight.
        """
        return tf.convert_to_tensor(latent)

    def calibrate(self, values: np.ndarray, variables: Mapping[str, Any]) -> None:
        """Sets `variables` to suit the tensor. Does nothing by default.

        Args:
          values: values that the tensor takes for some inputs, any shape; for a weight, the latent weight.
          variables: what `build` returned.
        """

    @property
    @abc.abstractmethod
    def levels(self) -> tuple[int, int]:
        """The smallest and largest integer of the grid.

        Raises:
          ValueError: `num_bits` is None: the quantizer does not round.
        """

    @property
    def spacing(self) -> int:
        """How far the levels of the grid lie apart, in integers."""
        return 1

    @property
    def has_zero(self) -> bool:
        """Whether 0.0 is a level, so that the zeros of a pruned kernel stay."""
        return (self.zero_point - self.levels[0]) % self.spacing == 0

    @abc.abstractmethod
    def scale(self, variables: Mapping[str, Any], latent: Any = None) -> tf.Tensor:
        """The real size of one integer step: float32, a scalar or one for each channel.

        Args:
          variables: what `build` returned, or the values of it.
          latent: the latent weight, for a weight quantizer.
        """

    def integers(self, latent, variables: Mapping[str, Any]) -> tf.Tensor:
        """The integers of a quantized weight, as float32 and in its shape; for graphs, see `quant_params` for NumPy.

        Args:
          latent: the latent weight.
          variables: what `build` returned.

        Raises:
          ValueError: `num_bits` is None.
        """
        steps = tf.round(self(latent, False, variables) / self._scale_along(latent, variables))
        return steps + float(self.zero_point)

    def nearest_levels(self, integers) -> tf.Tensor:
        """The levels of the grid nearest to a float32 tensor in integers."""
        lowest, highest = map(float, self.levels)
        steps = tf.round((integers - lowest) / float(self.spacing)) * float(self.spacing)
        return tf.clip_by_value(lowest + steps, lowest, highest)

    def latent_at(self, integers, latent, variables: Mapping[str, Any]) -> tf.Tensor:
        """Latent weights in the middle of what rounds to these integers, the tensor's scale being that of `latent`.

        By default the quantized weights themselves, for quantizers that transform nothing but the grid.

        Args:
          integers: levels, a float32 tensor of the weight's shape.
          latent: the latent weight.
          variables: what `build` returned.
        """
        return (integers - float(self.zero_point)) * self._scale_along(latent, variables)

    def _scale_along(self, latent, variables) -> tf.Tensor:
        """`scale`, in a shape that goes with the weight's."""
        scale = tf.convert_to_tensor(self.scale(variables, latent))
        axis = self.channel_axis(len(latent.shape))
        return tf.reshape(scale, [-1] + [1] * (len(latent.shape) - axis - 1)) if scale.shape.rank else scale

    @property
    def zero_point(self) -> int:
        """The integer that stands for 0.0."""
        return 0

    def channel_axis(self, rank: int) -> int | None:
        """The axis that `scale` runs along in a tensor of this rank, None for one scale per tensor."""
        return None

    def is_initialized(self, variables: Mapping[str, Any]) -> bool:
        """Whether every variable that data set has seen some."""
        return all(value_of(variables[one.name]).any() for one in self.declared_variables if one.from_data)

    def quant_params(self, variables: Mapping[str, Any], latent: np.ndarray | None = None) -> QuantParams:
        """The integer grid of the quantized tensor; the arguments are those of `scale`.

        Raises:
          ValueError: the quantizer has `num_bits=None` (it does not round), has seen no data yet, or its variables are
            not finite.
        """
        qmin, qmax = self.levels
        for name, value in variables.items():
            if not np.isfinite(value).all():
                raise ValueError(f"its {name} is {value}: the training diverged; load weights from before")
        if not self.is_initialized(variables):
            unknown = " and ".join(one.name for one in self.declared_variables if one.from_data)
            raise ValueError(
                f"its {unknown} is still unknown: train the model for at least one step (in which a frozen layer "
                "learns nothing), or give quantize_model calibration_data, before it is exported"
            )
        scale = np.asarray(self.scale(variables, latent))
        axis = self.channel_axis(np.ndim(latent)) if scale.ndim else None
        return QuantParams(scale, self.zero_point, qmin, qmax, axis, self.spacing)

    def get_config(self):
        return dataclasses.asdict(self)

    @property
    def width(self) -> int | None:
        """How many bits hold an integer of the grid; None for full precision."""
        return self.num_bits

    def require_rounding(self) -> int:
        """The width, or a ValueError if this quantizer does not round."""
        if self.width is None:
            raise ValueError(
                "its num_bits is None: it is kept in full precision and has no integer grid; give it 2 to 8 bits"
            )
        return self.width


def check_num_bits(quantizer: Quantizer, lowest: int = 2, highest: int = 8) -> None:
    """Raises unless `quantizer.num_bits` is None or an integer within `lowest` .. `highest`."""
    bits = quantizer.num_bits
    if bits is None:
        return
    name = type(quantizer).__name__
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(
            f"{name} needs an integer num_bits or None (full precision). Received: num_bits={bits!r}"
            + (". Levels that have a name are those of scheme='qn'" if isinstance(bits, str) else "")
        )
    if not lowest <= bits <= highest:
        raise ValueError(f"{name} works with {lowest} to {highest} bits. Received: num_bits={bits}")
