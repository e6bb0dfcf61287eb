"""TensorFlow's operators of values: sums, products, activations; each row with its function's signature."""

import numpy as np

from satkeras._compat import CustomScaleLayer, is_symbolic, keras
from satkeras.models.core import Clip
from satkeras.models.rewrites.affine import affine
from satkeras.models.rewrites.call import Call, Refused, activation

_layers = keras.layers


def _merged(cls, with_constant=None):
    """The row of a function of two tensors, or of a tensor and a constant."""

    def row(call: Call, x, y, name=None):
        if is_symbolic(x) and is_symbolic(y):
            return merge(call, cls, [x, y])
        if with_constant is None:
            raise Refused(f"tf.{call.layer.symbol} of a constant has no kernel that is exact; make both sides tensors")
        constant = np.asarray(y if is_symbolic(x) else x)
        return with_constant(call, x if is_symbolic(x) else y, constant, is_symbolic(x))

    return row


def merge(call: Call, cls, tensors: list):
    """A core layer of several tensors; of sequences that are images, on the images."""
    images = [call.core.images.get(id(x)) for x in tensors]
    if None in images:
        return call.apply(cls, tensors)
    return call.sequence(call.apply(cls, images))


def _add_constant(call: Call, x, constant, _):
    return affine(call, x, 1.0, constant)


def _subtract_constant(call: Call, x, constant, tensor_first: bool):
    return affine(call, x, 1.0, -constant) if tensor_first else affine(call, x, -1.0, constant)


def _multiply_constant(call: Call, x, constant, _):
    return affine(call, x, constant, 0.0)


def _larger_than_constant(call: Call, x, constant, _):
    return _clipped(call, x, _number(constant), None)


def _smaller_than_constant(call: Call, x, constant, _):
    return _clipped(call, x, None, _number(constant))


def _number(constant) -> float:
    if np.size(constant) != 1:
        raise Refused(f"needs one number as its limit, has {np.size(constant)}")
    return float(np.ravel(constant)[0])


def _clipped(call: Call, x, low: float | None, high: float | None):
    if low == 0 and (high is None or high > 0):
        return activation(call, _layers.ReLU, x, max_value=high)
    return activation(call, Clip, x, low=low, high=high)


def _divide(call: Call, x, y, name=None):
    if is_symbolic(y):
        raise Refused("there is no exact division by a tensor; multiply by what is computed instead")
    return affine(call, x, 1 / np.asarray(y, np.float64), 0.0)


def _negative(call: Call, x, name=None):
    return affine(call, x, -1.0, 0.0)


def _absolute(call: Call, x, name=None):
    return merge(call, _layers.Maximum, [x, affine(call, x, -1.0, 0.0)])


def _add_n(call: Call, inputs, name=None):
    return merge(call, _layers.Add, list(inputs))


def _square(call: Call, x, name=None):
    return merge(call, _layers.Multiply, [x, x])


def _power(call: Call, x, y, name=None):
    if is_symbolic(y) or np.size(y) != 1 or float(np.ravel(y)[0]) != 2:
        raise Refused("needs a square, x ** 2: other powers have no operator")
    return _square(call, x)


def _bias_add(call: Call, value, bias, data_format=None, name=None):
    if data_format not in (None, "NHWC", "N...C"):
        raise Refused(f"needs data_format='NHWC', has {data_format!r}")
    return affine(call, value, 1.0, np.asarray(bias))


def _relu(call: Call, features, name=None):
    return activation(call, _layers.ReLU, features)


def _relu6(call: Call, features, name=None):
    return activation(call, _layers.ReLU, features, max_value=6.0)


def _leaky_relu(call: Call, features, alpha=0.2, name=None):
    return activation(call, _layers.LeakyReLU, features, alpha=float(alpha))


def _clip(call: Call, t, clip_value_min, clip_value_max, name=None):
    return _clipped(call, t, _number(clip_value_min), _number(clip_value_max))


def _softmax(call: Call, logits, axis=None, name=None):
    return activation(call, _layers.Softmax, logits, axis=-1 if axis is None else int(axis))


def _unit(call: Call, x, axis=None, epsilon=1e-12, name=None, dim=None):
    axis = dim if axis is None else axis
    if axis is None or np.ravel(axis).tolist() not in ([-1], [len(x.shape) - 1]):
        raise Refused(f"needs axis=-1, has axis={axis}")
    return activation(call, _layers.UnitNormalization, x)


def _named(function: str):
    def row(call: Call, features, name=None):
        return activation(call, _layers.Activation, features, activation=function)

    return row


def _swish(call: Call, features, beta=1.0, name=None):
    if float(beta) != 1:
        raise Refused(f"needs beta=1, has {float(beta):g}")
    return activation(call, _layers.Activation, features, activation="swish")


def _gelu(call: Call, features, approximate=False, name=None):
    if approximate:
        raise Refused("needs approximate=False")
    return activation(call, _layers.Activation, features, activation="gelu")


def _identity(call: Call, input, *others, **options):  # noqa: A002 - TensorFlow's name
    return input


def _cast(call: Call, x, dtype, name=None):
    if x.dtype.is_floating:
        return x
    raise Refused(f"needs a floating-point tensor, gets {x.dtype.name}; give the model float images")


def _scaled_sum(call: Call, inputs):
    stream, branch = inputs
    return merge(call, _layers.Add, [stream, affine(call, branch, call.layer.scale, 0.0)])


REWRITES = {CustomScaleLayer: _scaled_sum}
OPERATORS = {
    **dict.fromkeys(("__operators__.add", "math.add"), _merged(_layers.Add, _add_constant)),
    "math.subtract": _merged(_layers.Subtract, _subtract_constant),
    "math.multiply": _merged(_layers.Multiply, _multiply_constant),
    "math.maximum": _merged(_layers.Maximum, _larger_than_constant),
    "math.minimum": _merged(_layers.Minimum, _smaller_than_constant),
    **dict.fromkeys(("math.truediv", "math.divide", "realdiv"), _divide),
    "math.negative": _negative,
    "math.abs": _absolute,
    "math.add_n": _add_n,
    "math.square": _square,
    **dict.fromkeys(("math.pow", "pow"), _power),
    "nn.bias_add": _bias_add,
    "nn.relu": _relu,
    "nn.relu6": _relu6,
    "nn.leaky_relu": _leaky_relu,
    "nn.elu": _named("elu"),
    "nn.gelu": _gelu,
    "nn.silu": _swish,
    "nn.softmax": _softmax,
    "math.l2_normalize": _unit,
    "math.sigmoid": _named("sigmoid"),
    "math.tanh": _named("tanh"),
    "math.exp": _named("exponential"),
    **dict.fromkeys(("math.softplus", "nn.softplus"), _named("softplus")),
    "nn.selu": _named("selu"),
    "nn.softsign": _named("softsign"),
    "clip_by_value": _clip,
    "cast": _cast,
    **dict.fromkeys(("identity", "stop_gradient", "convert_to_tensor"), _identity),
}
