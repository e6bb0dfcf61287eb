"""Two trained CIFAR-10 networks of others, as Keras models: MLPerf Tiny's ResNet-8 and a ResNet-20 from PyTorch."""

import pathlib

import numpy as np
import tf_keras as keras
from tf_keras import layers

# What the ResNet-20 was trained on: (x / 255 - mean) / std.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def load(name: str, folder: str | pathlib.Path) -> keras.Model:
    """A trained network on images 0 .. 255, ending in probabilities.

    Args:
      name: "resnet8" (87.19 % on the 10,000 test images) or "resnet20" (91.73 %).
      folder: where `mlperf_tiny_resnet8.h5` and `resnet20_cifar10.npz` are.
    """
    if name == "resnet8":
        return keras.models.load_model(pathlib.Path(folder) / "mlperf_tiny_resnet8.h5", compile=False)  # pyright: ignore
    with np.load(pathlib.Path(folder) / "resnet20_cifar10.npz") as arrays:
        return resnet20(dict(arrays))


def resnet20(arrays: dict[str, np.ndarray]) -> keras.Model:
    """ResNet-20 with parameter-free shortcuts (He et al. 2016, option A).

    The normalization of its input is a batch norm that does not train. A shortcut that halves the image and pads the
    channels with zeros is a strided 1x1 convolution with ones in the right places, which does not train either.

    Args:
      arrays: by their names in PyTorch, kernels as (height, width, input, output).
    """
    image = keras.Input((32, 32, 3), name="image")
    standardize = layers.BatchNormalization(epsilon=0.0, center=False, scale=False, trainable=False, name="standardize")
    x = _conv_bn(standardize(image), 16, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            name = f"stage{stage}_block{block + 1}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = layers.Conv2D(width, 1, 2, use_bias=False, trainable=False, name=f"{name}_shortcut")(x)
            x = layers.ReLU(name=f"{name}_conv1_relu")(_conv_bn(x, width, stride, f"{name}_conv1"))
            x = layers.Add(name=f"{name}_add")([shortcut, _conv_bn(x, width, 1, f"{name}_conv2")])
            x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Softmax(name="softmax")(layers.Dense(10, name="logits")(x))
    model = keras.Model(image, x, name="resnet20")
    standardize.set_weights([255 * MEAN, (255 * STD) ** 2])
    for layer in model.layers:
        weights = _weights(layer.name, arrays, layer)
        if weights is not None:
            layer.set_weights(weights)
    return model


def _conv_bn(x, width: int, stride: int, name: str):
    if stride == 2:
        # As PyTorch pads: one pixel on each side, where Keras would pad below and on the right alone.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    padding = "valid" if stride == 2 else "same"
    x = layers.Conv2D(width, 3, stride, padding=padding, use_bias=False, name=name)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _weights(name: str, arrays, layer) -> list[np.ndarray] | None:
    if name == "logits":
        return [arrays["linear.weight"].reshape(layer.kernel.shape), arrays["linear.bias"]]
    if name.endswith("_shortcut"):
        taken, given = layer.kernel.shape[2:]
        return [np.eye(taken, given, (given - taken) // 2, dtype=np.float32)[None, None]]
    if not name.startswith(("stem", "stage")) or not layer.weights:
        return None
    # stage2_block1_conv1_bn is layer2.0.bn1 there, stem is conv1.
    place, _, kind = name.removesuffix("_bn").rpartition("_")
    index = kind[-1] if place else "1"
    prefix = f"layer{place[5]}.{int(place[-1]) - 1}." if place else ""
    if not name.endswith("_bn"):
        return [arrays[f"{prefix}conv{index}.weight"]]
    return [arrays[f"{prefix}bn{index}.{role}"] for role in ("weight", "bias", "running_mean", "running_var")]
