"""Random small networks, quantized, calibrated, and with steps of any size."""

import dataclasses

import numpy as np
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables
from satkeras.models.insertion import quantizer_variables, quantizes_tensor
from satkeras.models.layers import TABLE
from satkeras.training.phases import set_thresholds, staircases

IMAGES = 4
WEIGHT_BITS = {"qn": ["ternary", "3bit+-2", "3bit+-4", 1, 2, 3, 4, 5, 8]}
ACTIVATION_BITS = {"qn": [1, 2, 3, 4, 8]}


@dataclasses.dataclass(frozen=True)
class Network:
    """Draws the layers of a network, one after the other; each method takes a tensor and gives another."""

    rng: np.random.Generator

    def one_of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def width(self) -> int:
        return int(self.rng.integers(1, 7))

    def model(self) -> tf_keras.Model:
        size = int(self.rng.integers(5, 9))
        inputs = [layers.Input((size, size + 1, self.one_of(1, 2, 3))) for _ in range(self.one_of(1, 1, 1, 2))]
        x = self.convolved(inputs[0], same_size=len(inputs) > 1)
        if len(inputs) > 1:
            x = self.joined(x, self.convolved(inputs[1], x.shape[-1], same_size=True))
        for _ in range(self.one_of(0, 1, 1, 2)):
            x = self.one_of(*BLOCKS)(self, x)
        outputs = [self.head(x) for _ in range(self.one_of(1, 1, 1, 2))]
        if self.chance(0.1):
            outputs.append(x)
        return tf_keras.Model(inputs, outputs)

    def convolved(self, x, width=None, same_size=False):
        """A convolution, depthwise or not, and what may follow it."""
        width = width or self.width()
        kernel, keeps = self.one_of(1, 2, 3, (1, 3)), same_size or min(x.shape[1:3]) < 4
        options = {"padding": "same" if keeps else self.one_of("same", "same", "valid"), "use_bias": self.chance(0.5)}
        if not keeps and self.chance(0.3):
            options["strides"] = 2
        elif not keeps and self.chance(0.1):
            options |= {"dilation_rate": 2, "padding": "same"}
        if self.chance(0.25) and width == x.shape[-1]:
            x = layers.DepthwiseConv2D(kernel, **options)(x)
        else:
            x = layers.Conv2D(width, kernel, **options)(x)
        if self.chance(0.7):
            x = layers.BatchNormalization()(x)
        return self.activated(x)

    def activated(self, x):
        kind = self.one_of("none", "relu", "relu", "relu6")
        return x if kind == "none" else layers.ReLU(6.0 if kind == "relu6" else None)(x)

    def joined(self, x, y):
        """A sum, or where the table has it a concatenation."""
        if layers.Concatenate in TABLE and self.chance(0.4):
            return layers.Concatenate()([x, y])
        x = layers.Add()([x, y])
        return layers.ReLU()(x) if self.chance(0.5) else x

    def residual(self, x):
        return self.joined(x, self.convolved(x, x.shape[-1], same_size=True))

    def preactivated(self, x):
        return self.convolved(layers.ReLU()(layers.BatchNormalization()(x)))

    def pooled(self, x):
        pool = self.one_of(layers.MaxPooling2D, layers.AveragePooling2D)
        padding = "same" if min(x.shape[1:3]) < 3 else self.one_of("same", "valid")
        x = pool(self.one_of(2, (1, 2), 3), strides=self.one_of(1, 2), padding=padding)(x)
        return self.convolved(x) if self.chance(0.5) else x

    def padded(self, x):
        x = layers.ZeroPadding2D(self.one_of(1, ((0, 1), (0, 1)), ((1, 0), (2, 0))))(x)
        return layers.Conv2D(self.width(), 3, strides=self.one_of(1, 2), padding="same")(x)

    def called_twice(self, x):
        shared = layers.Conv2D(x.shape[-1], 3, padding="same", activation=self.one_of("relu", None))
        return shared(shared(x))

    def equal_branches(self, x):
        """Two convolutions with the same weights, which nothing may merge."""
        start = tf_keras.initializers.RandomNormal(seed=1)
        branches = [layers.Conv2D(3, 1, activation="relu", kernel_initializer=start)(x) for _ in range(2)]
        return self.joined(*branches)

    def branches_of_two_widths(self, x):
        """A tensor that its readers want in different ways."""
        y = layers.Conv2D(3, 1, activation="relu")(x)
        return self.joined(y, layers.ReLU()(layers.Conv2D(3, 3, padding="same")(x)))

    def relu_of_a_stored_tensor(self, x):
        x = layers.MaxPooling2D(2, strides=1, padding="same")(layers.Conv2D(self.width(), 1)(x))
        return layers.ReLU()(x)

    def head(self, x):
        kind = self.one_of("mean", "mean", "max", "flat", "convolution", "keepdims")
        if kind == "convolution":
            return layers.Conv2D(self.width(), 1)(x)
        if kind == "keepdims":
            return layers.Conv2D(self.width(), 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
        pools = {"mean": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D, "flat": layers.Flatten}
        x = layers.Dropout(0.5)(pools[kind]()(x))
        if self.chance(0.3):
            x = self.activated(layers.BatchNormalization()(layers.Dense(self.width())(x)))
        x = layers.Dense(self.one_of(1, 2, 5))(x)
        return layers.Softmax()(x) if x.shape[-1] > 1 and self.chance(0.4) else x


BLOCKS = (
    Network.convolved,
    Network.residual,
    Network.preactivated,
    Network.pooled,
    Network.padded,
    Network.called_twice,
    Network.equal_branches,
    Network.branches_of_two_widths,
    Network.relu_of_a_stored_tensor,
)


def disturb(model: tf_keras.Model, rng: np.random.Generator) -> None:
    """Batch norms of both signs, dead and tiny channels, channels of zero weights."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma = rng.choice([1, -1, 0, 1e-3, -3, 1e-9], count, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
            variance = rng.uniform(0.01, 4, count) * rng.choice([1, 1, 1, 0], count)
            layer.set_weights([gamma, rng.normal(0, 1, count), rng.normal(0, 1, count), variance])
        elif layer.get_weights():
            kernel, *rest = layer.get_weights()
            kernel[..., 0] *= rng.choice([0, 1, 1, 1])
            layer.set_weights([kernel, *(rng.normal(0, 1, values.shape) for values in rest)])


def scale_steps(model: tf_keras.Model, rng: np.random.Generator) -> None:
    """Learned clip values and steps where no calibration would have put them."""
    for layer in model.layers:
        if quantizes_tensor(layer) and not output_variables(layer)[0].reads_8_bits:
            for declared, variable in quantizer_variables(layer):
                if declared.learned and declared.role in ("clip", "step"):
                    variable.assign(variable * rng.choice([0.1, 0.5, 1, 1, 1, 3]))


def drawn(seed: int) -> tuple[str, tf_keras.Model, list[np.ndarray]]:
    """What a network is, the network, and images for it."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(seed % 2**31)
    rng = np.random.default_rng(seed)
    network = Network(rng)
    model = network.model()
    disturb(model, rng)
    scheme = network.one_of(*satkeras.SCHEMES)
    widths = {
        "weight_bits": network.one_of(*WEIGHT_BITS.get(scheme, range(2, 9))),
        "activation_bits": network.one_of(*ACTIVATION_BITS.get(scheme, range(2, 9))),
    }
    low, high = network.one_of((0, 255), (0, 1), (0, 1), (-1, 127 / 128))
    codes = [rng.integers(0, 256, (IMAGES, *x.shape[1:])) for x in model.inputs]
    images = [(low + values * ((high - low) / 255)).astype(np.float32) for values in codes]
    quantized = satkeras.quantize_model(model, scheme, **widths, input_range=(low, high), calibration_data=images)
    if staircases(quantized):
        set_thresholds(quantized, images)
    scale_steps(quantized, rng)
    return f"seed {seed}, {scheme} {widths}", quantized, images
