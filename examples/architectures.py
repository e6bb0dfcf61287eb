"""Image classifiers written with tf_keras: MobileNetV1/V2 and (pre-activation) residual networks.

Every constructor returns an uncompiled functional model that ends in logits, unless ``softmax=True``.
"""

from collections.abc import Callable
from functools import partial
from math import prod

import tensorflow as tf
import tf_keras
from tf_keras import layers

BlockTable = tuple[tuple[int, ...], ...]
Branch = tuple[tuple[int, int, int], ...]
Norm = Callable[..., layers.Layer]

MOBILENET_V1_BLOCKS = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""One (channels, repeats, stride) per group of depthwise-separable blocks; only its first block is strided."""

MOBILENET_V2_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""One (expansion, channels, repeats, stride) per group of inverted residuals; only its first block is strided."""

RESNET18_STAGES = ((64, 2), (128, 2), (256, 2), (512, 2))
RESNET20_STAGES = ((16, 3), (32, 3), (64, 3))
RESNET50_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""One (width, blocks) per stage; the first block of every stage but the first has stride 2."""

BOTTLENECK_EXPANSION = 4


def mobilenet_v1(
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    blocks: BlockTable = MOBILENET_V1_BLOCKS,
    small_images: bool = False,
    dropout: float = 0.0,
    batch_norm_momentum: float = 0.99,
    batch_norm_epsilon: float = 1e-3,
    softmax: bool = False,
) -> tf_keras.Model:
    """Builds MobileNetV1 (Howard et al., 2017).

    Args:
        input_shape: Height, width and channels of the images.
        classes: Number of outputs.
        width: Multiplier of every channel count, rounded to a multiple of 8.
        blocks: (channels, repeats, stride) of each group of depthwise-separable blocks.
        small_images: Gives the stem stride 1, for images of at most about 64 pixels.
        dropout: Rate of the dropout before the classifier; 0 leaves the layer out.
        batch_norm_momentum: Momentum of the moving statistics.
        batch_norm_epsilon: Epsilon of the batch normalizations.
        softmax: Ends the model in probabilities instead of logits.
    """
    norm = partial(layers.BatchNormalization, momentum=batch_norm_momentum, epsilon=batch_norm_epsilon)
    image = tf_keras.Input(input_shape, name="image")
    x = _conv_bn_relu6(norm, image, "stem", _scaled(32, width), 3, stride=1 if small_images else 2)
    for index, (channels, stride) in enumerate(_unrolled(blocks), 1):
        x = _depthwise_bn_relu6(norm, x, f"block_{index}_depthwise", stride)
        x = _conv_bn_relu6(norm, x, f"block_{index}_pointwise", _scaled(channels, width), 1)
    return tf_keras.Model(image, _classifier(x, classes, softmax, dropout), name="mobilenet_v1")


def mobilenet_v2(
    input_shape: tuple[int, int, int],
    classes: int,
    width: float = 1.0,
    blocks: BlockTable = MOBILENET_V2_BLOCKS,
    last_channels: int = 1280,
    small_images: bool = False,
    dropout: float = 0.0,
    batch_norm_momentum: float = 0.99,
    batch_norm_epsilon: float = 1e-3,
    softmax: bool = False,
) -> tf_keras.Model:
    """Builds MobileNetV2 (Sandler et al., 2018).

    The arguments missing here are those of `mobilenet_v1`.

    Args:
        blocks: (expansion, channels, repeats, stride) of each group of inverted residuals.
        last_channels: Channels of the last 1x1 convolution, which only a width above 1 multiplies.
        small_images: Gives the stem and the first strided group stride 1, for images of at most about 64 pixels.
    """
    norm = partial(layers.BatchNormalization, momentum=batch_norm_momentum, epsilon=batch_norm_epsilon)
    image = tf_keras.Input(input_shape, name="image")
    x = _conv_bn_relu6(norm, image, "stem", _scaled(32, width), 3, stride=1 if small_images else 2)
    groups = _without_first_stride(blocks) if small_images else blocks
    for index, (expansion, channels, stride) in enumerate(_unrolled(groups), 1):
        x = _inverted_residual(norm, x, f"block_{index}", expansion, _scaled(channels, width), stride)
    x = _conv_bn_relu6(norm, x, "last", _scaled(last_channels, max(width, 1.0)), 1)
    return tf_keras.Model(image, _classifier(x, classes, softmax, dropout), name="mobilenet_v2")


def resnet18(input_shape: tuple[int, int, int], classes: int, **options) -> tf_keras.Model:
    """Builds ResNet-18; see `residual_network` for the options."""
    return residual_network(input_shape, classes, RESNET18_STAGES, name="resnet18", **options)


def resnet20(input_shape: tuple[int, int, int], classes: int, **options) -> tf_keras.Model:
    """Builds the CIFAR ResNet-20 with projection shortcuts; see `residual_network` for the options."""
    return residual_network(input_shape, classes, RESNET20_STAGES, small_images=True, name="resnet20", **options)


def resnet50(input_shape: tuple[int, int, int], classes: int, **options) -> tf_keras.Model:
    """Builds ResNet-50 v1.5; see `residual_network` for the options."""
    return residual_network(input_shape, classes, RESNET50_STAGES, bottleneck=True, name="resnet50", **options)


def preact_resnet20(input_shape: tuple[int, int, int], classes: int, **options) -> tf_keras.Model:
    """Builds the pre-activation form of `resnet20`; see `residual_network` for the options."""
    return residual_network(
        input_shape, classes, RESNET20_STAGES, preactivation=True, small_images=True, name="preact_resnet20", **options
    )


def preact_resnet50(input_shape: tuple[int, int, int], classes: int, **options) -> tf_keras.Model:
    """Builds the pre-activation form of `resnet50`; see `residual_network` for the options."""
    return residual_network(
        input_shape, classes, RESNET50_STAGES, bottleneck=True, preactivation=True, name="preact_resnet50", **options
    )


def residual_network(
    input_shape: tuple[int, int, int],
    classes: int,
    stages: BlockTable,
    bottleneck: bool = False,
    preactivation: bool = False,
    small_images: bool = False,
    batch_norm_momentum: float = 0.99,
    batch_norm_epsilon: float = 1e-5,
    softmax: bool = False,
    name: str = "residual_network",
) -> tf_keras.Model:
    """Builds a residual network (He et al., 2016), or its pre-activation form (He et al., 2016b).

    Shortcuts that change shape are 1x1 convolutions. A bottleneck has its stride in the 3x3 convolution (v1.5).

    Args:
        input_shape: Height, width and channels of the images.
        classes: Number of outputs.
        stages: (width, blocks) of each stage.
        bottleneck: Uses bottleneck blocks instead of pairs of 3x3 convolutions.
        preactivation: Normalizes and activates before each convolution, and once more before the pooling.
        small_images: Starts with a 3x3 convolution of stride 1 instead of a strided 7x7 and a max pooling.
        batch_norm_momentum: Momentum of the moving statistics.
        batch_norm_epsilon: Epsilon of the batch normalizations.
        softmax: Ends the model in probabilities instead of logits.
        name: Name of the model.
    """
    norm = partial(layers.BatchNormalization, momentum=batch_norm_momentum, epsilon=batch_norm_epsilon)
    image = tf_keras.Input(input_shape, name="image")
    x = _conv(image, "stem", stages[0][0], 3 if small_images else 7, stride=1 if small_images else 2)
    if not preactivation:
        x = _bn_relu(norm, x, "stem")
    if not small_images:
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (width, blocks) in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            label = f"stage{stage}_block{block}"
            convs = _branch(width, stride=2 if stage > 1 and block == 1 else 1, bottleneck=bottleneck)
            if preactivation:
                x = _preactivation_block(norm, x, label, convs, opens_stage=block == 1)
            else:
                x = _block(norm, x, label, convs)
    if preactivation:
        x = _bn_relu(norm, x, "last")
    return tf_keras.Model(image, _classifier(x, classes, softmax), name=name)


def _branch(width: int, stride: int, bottleneck: bool) -> Branch:
    """Lists the convolutions of one residual branch."""
    if bottleneck:
        return (width, 1, 1), (width, 3, stride), (BOTTLENECK_EXPANSION * width, 1, 1)
    return (width, 3, stride), (width, 3, 1)


def _block(norm: Norm, x: tf.Tensor, name: str, convs: Branch) -> tf.Tensor:
    """Adds conv-BN-ReLU-...-conv-BN to the shortcut, then activates."""
    shortcut = _shortcut(x, name, convs)
    if shortcut is not x:
        shortcut = norm(name=f"{name}_shortcut_bn")(shortcut)
    for index, conv in enumerate(convs, 1):
        if index > 1:
            x = layers.ReLU(name=f"{name}_conv{index - 1}_relu")(x)
        x = _conv(x, f"{name}_conv{index}", *conv)
        x = norm(name=f"{name}_conv{index}_bn")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _preactivation_block(norm: Norm, x: tf.Tensor, name: str, convs: Branch, opens_stage: bool) -> tf.Tensor:
    """Adds BN-ReLU-conv-... to the shortcut, which starts behind the first ReLU where a stage opens."""
    activated = _bn_relu(norm, x, f"{name}_preact")
    shortcut = _shortcut(activated if opens_stage else x, name, convs)
    x = activated
    for index, conv in enumerate(convs, 1):
        if index > 1:
            x = _bn_relu(norm, x, f"{name}_conv{index - 1}")
        x = _conv(x, f"{name}_conv{index}", *conv)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _shortcut(x: tf.Tensor, name: str, convs: Branch) -> tf.Tensor:
    """Returns x itself, or its 1x1 convolution where the branch changes the shape."""
    channels = convs[-1][0]
    stride = prod(stride for _, _, stride in convs)
    if stride == 1 and channels == x.shape[-1]:
        return x
    return _conv(x, f"{name}_shortcut", channels, 1, stride)


def _inverted_residual(norm: Norm, x: tf.Tensor, name: str, expansion: int, channels: int, stride: int) -> tf.Tensor:
    """Expands, filters depthwise and projects linearly; adds the input where the shapes agree."""
    shortcut = x
    if expansion != 1:
        x = _conv_bn_relu6(norm, x, f"{name}_expand", expansion * x.shape[-1], 1)
    x = _depthwise_bn_relu6(norm, x, f"{name}_depthwise", stride)
    x = _conv(x, f"{name}_project", channels, 1)
    x = norm(name=f"{name}_project_bn")(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv_bn_relu6(norm: Norm, x: tf.Tensor, name: str, channels: int, kernel: int, stride: int = 1) -> tf.Tensor:
    return _bn_relu(norm, _conv(x, name, channels, kernel, stride), name, max_value=6.0)


def _depthwise_bn_relu6(norm: Norm, x: tf.Tensor, name: str, stride: int) -> tf.Tensor:
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=name)(x)
    return _bn_relu(norm, x, name, max_value=6.0)


def _conv(x: tf.Tensor, name: str, channels: int, kernel: int, stride: int = 1) -> tf.Tensor:
    return layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)


def _bn_relu(norm: Norm, x: tf.Tensor, name: str, max_value: float | None = None) -> tf.Tensor:
    return layers.ReLU(max_value, name=f"{name}_relu")(norm(name=f"{name}_bn")(x))


def _classifier(x: tf.Tensor, classes: int, softmax: bool, dropout: float = 0.0) -> tf.Tensor:
    """Pools and classifies."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(classes, name="logits")(x)
    return layers.Softmax(name="softmax")(x) if softmax else x


def _scaled(channels: int, width: float) -> int:
    """Rounds width * channels to a multiple of 8 that is at least 90% of it."""
    scaled = max(8, int(width * channels + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * width * channels else scaled + 8


def _unrolled(groups: BlockTable) -> list[tuple[int, ...]]:
    """Lists the blocks of all groups; within a group only the first block keeps the stride."""
    return [(*rest, stride if repeat == 0 else 1) for *rest, repeats, stride in groups for repeat in range(repeats)]


def _without_first_stride(groups: BlockTable) -> BlockTable:
    """Sets the stride of the first strided group to 1."""
    first = next((index for index, group in enumerate(groups) if group[-1] != 1), None)
    return tuple((*group[:-1], 1) if index == first else group for index, group in enumerate(groups))
