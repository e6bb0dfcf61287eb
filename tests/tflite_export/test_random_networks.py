"""Random small networks through the whole chain: quantize, calibrate, export, compare integers.

A fixed hundred here, a thousand with a fresh seed in the nightly run. None may differ, in XNNPACK's kernels or the
reference ones, and 99 of 100 must have a file; of the fixed ones 99 have.
"""

import collections
import dataclasses
import os
import re
import secrets

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables
from satkeras.models.insertion import quantizer_variables, quantizes_tensor
from satkeras.models.layers import TABLE
from satkeras.training.phases import set_thresholds, staircases
from tflite_export.errors import ExportError
from tflite_export.file.reader import check_file, read_model
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.lowering.packing import pack_weights
from tflite_export.portability.plans import prove
from tflite_export.portability.tables import with_tables
from tflite_export.portable_models import portable_model
from tflite_export.verification.interpreter import RESOLVERS, expose, open_interpreter, run
from tflite_export.verification.kernels import kernel_problems
from tflite_export.verification.twin import twin_tensors
from tflite_export.verification.verify import breaches, input_codes, verify

IMAGES = 4
# What a drawn network may be refused for: its batch norms are wild, and its ranges sometimes far apart.
REASONS = "so small beside their bias|ADD takes|ADD cannot read|is no level of its input's grid"
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


def compared(model: tf_keras.Model, images: list[np.ndarray], packed: bool) -> list[str]:
    """The operators of a file that is exact in all that is compared.

    Raises:
      ExportError: it has no file.
    """
    plan = make_plan(model)
    plan = pack_weights(plan) if packed else plan
    content = write_file(plan)
    check_file(plan, content, "uint8", "int8")
    assert kernel_problems(model, plan, read_model(content)) == []
    assert breaches(verify(model, plan, content, images)) == []
    if not packed:
        codes = [input_codes(x, values) for x, values in zip(plan.inputs, images, strict=True)]
        from_twin = twin_tensors(plan, "reference")(codes)
        from_file = run(open_interpreter(expose(plan, content), "reference"), *codes)
        for tensor, values in zip(plan.tensors, from_file, strict=True):
            np.testing.assert_array_equal(values, from_twin[tensor], tensor.name)
    return [operator.builtin for operator in plan.operators]


def outcomes(seeds) -> tuple[collections.Counter, dict[str, list[str]]]:
    """How often each operator was exact, and the reasons of those networks that were refused."""
    operators: collections.Counter = collections.Counter()
    refused: dict[str, list[str]] = {}
    for seed in seeds:
        what, model, images = drawn(seed)
        try:
            operators.update(compared(model, images, packed=seed % 5 == 0))
        except ExportError as error:
            refused[what] = [f"{name}: {reason}" for name, reason in error.problems]
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
    for reasons in refused.values():
        assert all(re.search(REASONS, reason) for reason in reasons), refused
    return operators, refused


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_a_fixed_hundred(first):
    """In tens, so that several processes share them."""
    operators, refused = outcomes(range(first, first + 10))
    # Seed 57 draws a gamma of 1e-9 beside a bias that ends between two levels.
    assert len(refused) <= (first == 50), refused
    assert {"CONV_2D", "RESHAPE"} <= set(operators)


@pytest.mark.slow
def test_a_thousand_others(capsys):
    """RANDOM_NETWORKS_SEED=... draws the networks of an earlier night again."""
    seed = int(os.environ.get("RANDOM_NETWORKS_SEED") or secrets.randbelow(2**31))
    operators, refused = outcomes(range(1000 * seed, 1000 * seed + 1000))
    with capsys.disabled():
        print(f"\nRANDOM_NETWORKS_SEED={seed}: {len(refused)} of 1000 refused {refused}\n{dict(operators)}")
    assert len(refused) <= 10
    # Whatever the lowering writes was among them.
    known = {"ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAXIMUM", "MAX_POOL_2D"}
    assert known | {"MUL", "PAD", "RESHAPE", "SOFTMAX"} <= set(operators)


def unportable(seeds) -> dict[str, list[str]]:
    """Why networks are not portable, but for the operators that have no portable form at all.

    On those that are, all of LiteRT's kernels agree in every tensor.
    """
    found = {}
    for seed in seeds:
        what, model, _ = drawn(seed)
        plan = with_tables(make_plan(portable_model(model)))
        problems = prove(plan).problems
        reasons = [f"{name}: {reason}" for name, reason in problems if not re.search(NO_PORTABLE_FORM, reason)]
        if not problems:
            rng, content = np.random.default_rng(seed), expose(plan, write_file(plan))
            codes = [rng.integers(0, 256, (30, *x.shape)).astype(np.uint8) for x in plan.inputs]
            first, *others = (run(open_interpreter(content, kernels), *codes) for kernels in RESOLVERS)
            for other in others:
                for tensor, one, same in zip(plan.tensors, first, other, strict=True):
                    np.testing.assert_array_equal(one, same, f"{what}: {tensor.name}")
        if reasons:
            found[what] = reasons
    return found


NO_PORTABLE_FORM = "SOFTMAX is computed in several ways"


def test_some_are_portable():
    assert unportable(range(20, 23)) == {}


@pytest.mark.slow
def test_a_hundred_are_portable():
    # Seed 57 has no file at all.
    found = unportable(seed for seed in range(100) if seed != 57)
    assert len(found) <= 2, found
