"""The network that both train, and its weights as Aidge wants them."""

import numpy as np
import tf_keras as keras
from tf_keras import layers

WIDTHS = (8, 16, 32)


def residual_network(classes: int) -> keras.Model:
    """ResNet-8's blocks without batch norm and average pooling: Aidge's CPU backend has no gradient of either.

    Half of ResNet-8's channels and a stem of stride 2, because of Aidge's time for a step. Images are 0 .. 255.
    """
    image = keras.Input((32, 32, 3), name="image")
    x = _conv(layers.Rescaling(1 / 255, name="divide")(image), "stem", WIDTHS[0], stride=2)
    x = layers.ReLU(name="stem_relu")(x)
    for block, width in enumerate(WIDTHS, 1):
        name, stride = f"block{block}", 1 if block == 1 else 2
        branch = layers.ReLU(name=f"{name}_conv1_relu")(_conv(x, f"{name}_conv1", width, stride))
        branch = _conv(branch, f"{name}_conv2", width)
        if stride > 1:
            x = _conv(x, f"{name}_shortcut", width, stride, size=1)
        x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, branch]))
    return keras.Model(image, layers.Dense(classes, name="logits")(layers.Flatten(name="flat")(x)))


def _conv(x, name: str, width: int, stride: int = 1, size: int = 3):
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    return layers.Conv2D(width, size, stride, name=name, **options)(x)


def weights_for_aidge(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of `residual_network` by Aidge's names: channels before height and width, outputs first."""
    arrays = {}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            arrays[f"{layer.name}_w"] = layer.kernel.numpy().transpose(3, 2, 0, 1)
    logits = model.get_layer("logits")
    _, height, width, channels = model.get_layer("flat").input_shape
    kernel = logits.kernel.numpy().reshape(height, width, channels, -1).transpose(3, 2, 0, 1)
    return arrays | {"logits_w": kernel.reshape(len(kernel), -1), "logits_b": logits.bias.numpy()}


def images_for_aidge(images: np.ndarray) -> np.ndarray:
    """uint8 (..., height, width, channels) as float32 (..., channels, height, width), 0 .. 1."""
    return np.moveaxis(images, -1, -3).astype(np.float32) / np.float32(255)
