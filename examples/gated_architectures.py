"""Small image classifiers with gates and smooth activations, for images of some 32 pixels.

What MobileNetV3 and EfficientNet add to MobileNetV2: squeeze-and-excite, hard-swish or swish, windows of 5 pixels. Both
end in logits.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf
import tf_keras
from tf_keras import layers

from examples.architectures import Norm

Activation = Callable[[tf.Tensor], tf.Tensor]


def _relu(x: tf.Tensor) -> tf.Tensor:
    return layers.ReLU()(x)


def _swish(x: tf.Tensor) -> tf.Tensor:
    return layers.Activation("swish")(x)


def _sigmoid(x: tf.Tensor) -> tf.Tensor:
    return layers.Activation("sigmoid")(x)


def _hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """As tf_keras.applications writes MobileNetV3's; Keras's own "hard_sigmoid" has another slope."""
    return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)


def _hard_swish(x: tf.Tensor) -> tf.Tensor:
    return layers.Multiply()([x, _hard_sigmoid(x)])


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted residual.

    Attributes:
      expanded: channels within; as many as it is given, and there is no expansion.
      channels: that it gives.
      kernel: height and width of the depthwise window.
      stride: of that window.
      activation: within.
      gated: whether squeeze-and-excite follows the window.
    """

    expanded: int
    channels: int
    kernel: int = 3
    stride: int = 1
    activation: Activation = _relu
    gated: bool = True


MOBILENET_V3_BLOCKS = (
    Block(16, 16, stride=2),
    Block(72, 24, stride=2, gated=False),
    Block(88, 24, gated=False),
    Block(96, 40, 5, 2, _hard_swish),
    Block(240, 40, 5, 1, _hard_swish),
    Block(120, 48, 5, 1, _hard_swish),
)
"""Of MobileNetV3-Small (Howard et al., 2019, table 2) one block of each of the first rows."""

EFFICIENTNET_BLOCKS = (
    Block(16, 16, activation=_swish),
    Block(96, 24, 3, 2, _swish),
    Block(144, 24, 3, 1, _swish),
    Block(144, 40, 5, 2, _swish),
    Block(240, 40, 5, 1, _swish),
)
"""The first rows of EfficientNet-B0 (Tan and Le, 2019, table 1), from a stem of half the channels."""


def small_mobilenet_v3(
    input_shape: tuple[int, int, int], classes: int, batch_norm_momentum: float = 0.99
) -> tf_keras.Model:
    """Builds a network like MobileNetV3-Small, with a stem of stride 1."""
    norm = partial(layers.BatchNormalization, momentum=batch_norm_momentum)
    image = tf_keras.Input(input_shape, name="image")
    x = _hard_swish(_conv_bn(norm, image, "stem", 16, 3))
    x = _blocks(norm, x, MOBILENET_V3_BLOCKS, _hard_sigmoid)
    x = _hard_swish(_conv_bn(norm, x, "last", 288, 1))
    return tf_keras.Model(image, _classifier(x, classes), name="small_mobilenet_v3")


def small_efficientnet(
    input_shape: tuple[int, int, int], classes: int, batch_norm_momentum: float = 0.99
) -> tf_keras.Model:
    """Builds a network like EfficientNet-B0, with a stem of stride 2."""
    norm = partial(layers.BatchNormalization, momentum=batch_norm_momentum)
    image = tf_keras.Input(input_shape, name="image")
    x = _swish(_conv_bn(norm, image, "stem", 16, 3, stride=2))
    x = _blocks(norm, x, EFFICIENTNET_BLOCKS, _sigmoid)
    x = _swish(_conv_bn(norm, x, "last", 160, 1))
    return tf_keras.Model(image, _classifier(x, classes), name="small_efficientnet")


def _blocks(norm: Norm, x: tf.Tensor, blocks: Sequence[Block], gate: Activation) -> tf.Tensor:
    for index, block in enumerate(blocks, 1):
        x = _block(norm, x, f"block_{index}", block, gate)
    return x


def _block(norm: Norm, x: tf.Tensor, name: str, block: Block, gate: Activation) -> tf.Tensor:
    """Expands, filters depthwise, weighs the channels and projects; adds the input where the shapes agree."""
    shortcut = x
    if block.expanded != x.shape[-1]:
        x = block.activation(_conv_bn(norm, x, f"{name}_expand", block.expanded, 1))
    depthwise = layers.DepthwiseConv2D(
        block.kernel, block.stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )
    x = block.activation(norm(name=f"{name}_depthwise_bn")(depthwise(x)))
    if block.gated:
        x = _squeeze_and_excite(x, f"{name}_squeeze", max(8, block.expanded // 4), gate)
    x = _conv_bn(norm, x, f"{name}_project", block.channels, 1)
    if block.stride == 1 and shortcut.shape[-1] == block.channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _squeeze_and_excite(x: tf.Tensor, name: str, squeezed: int, gate: Activation) -> tf.Tensor:
    """Weighs each channel by what the means of all say (Hu et al., 2018)."""
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    means = layers.Conv2D(squeezed, 1, activation="relu", name=f"{name}_reduce")(means)
    weights = gate(layers.Conv2D(x.shape[-1], 1, name=f"{name}_expand")(means))
    return layers.Multiply(name=f"{name}_excite")([x, weights])


def _conv_bn(norm: Norm, x: tf.Tensor, name: str, channels: int, kernel: int, stride: int = 1) -> tf.Tensor:
    conv = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)
    return norm(name=f"{name}_bn")(conv(x))


def _classifier(x: tf.Tensor, classes: int) -> tf.Tensor:
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
