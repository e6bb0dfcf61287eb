"""Networks of every kind of block, trained for a step: their files compute what they compute, by both kernels."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.models.activations import hard_swish
from satkeras.models.core import Clip, DepthToSpace, Slice, SpaceToDepth
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.verify import breaches, verify

SCHEMES = [{"scheme": "sat"}, {"scheme": "int8", "weight_bits": 8, "activation_bits": 8}]


def conv(x, channels=4, size=1, **options):
    return layers.Conv2D(channels, size, padding="same", **options)(x)


def norm(x):
    return layers.BatchNormalization()(x)


def joined(x):
    y = layers.ReLU(6.0)(norm(conv(x, use_bias=False)))
    pooled = layers.MaxPooling2D(3, 1, padding="same")(conv(x, activation="relu"))
    y = layers.Concatenate()([y, layers.Concatenate()([norm(conv(x)), conv(x)]), pooled])
    y = layers.ReLU()(norm(conv(y)))
    y = layers.Maximum()([conv(y, activation="relu"), conv(y, activation="relu"), layers.ReLU(2.0)(conv(y))])
    y = layers.Minimum()([conv(y), norm(conv(y))])
    return layers.Concatenate(axis=1)([conv(y), conv(y, activation="relu")])


def densely_connected(x):
    for _ in range(2):
        y = layers.ReLU()(norm(x))
        y = conv(layers.ReLU()(norm(conv(y, 6, use_bias=False))), 3, 3, use_bias=False)
        x = layers.Concatenate()([x, y])
    return norm(x)


def computed(x):
    a, b = conv(x), conv(x, activation="relu")
    y = layers.Add()([a, b, conv(x)])
    y = layers.Average()([y, layers.Subtract()([a, b]), b])
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    y = layers.Multiply()([conv(y), conv(gate, activation="sigmoid")])
    y = layers.Multiply()([y, y])
    return layers.ReLU()(layers.Add()([y, gate]))


def moved(x):
    y = layers.UpSampling2D()(conv(x))
    y = layers.Cropping2D(((1, 3), (0, 4)))(layers.ZeroPadding2D(2)(y))
    y = SpaceToDepth(2)(conv(y))
    y = layers.Permute((2, 1, 3))(DepthToSpace(2)(y))
    y = Slice((0, 2, 1), (8, 8, 4), (2, 1, 1))(y)
    y = layers.Reshape((4, 6, 3, 1))(y)
    y = layers.Reshape((4, 6, 3))(layers.Permute((1, 2, 4, 3))(y))
    return layers.GlobalMaxPooling2D(keepdims=True)(conv(y))


def gated(x):
    y = layers.Activation(hard_swish)(norm(conv(x)))
    y = layers.Activation("tanh")(conv(conv(y, activation="swish")))
    y = conv(Clip(-0.5, 0.7)(layers.UnitNormalization()(y)))
    y = conv(layers.Softmax()(conv(y, activation="hard_sigmoid")), activation="sigmoid")
    return layers.Concatenate()([y, layers.Activation("sigmoid")(conv(x))])


def sloped(x):
    leaky = layers.LeakyReLU(0.1)
    y = leaky(norm(conv(leaky(norm(conv(x))))))
    y = layers.PReLU("uniform", shared_axes=[1, 2])(conv(y))
    y = layers.ReLU(4.0, negative_slope=0.2, threshold=0.5)(conv(y, activation="elu"))
    return layers.AveragePooling2D(2)(layers.LeakyReLU(0.3)(conv(y, activation="gelu")))


def normalized(x):
    y = norm(conv(norm(norm(x))))
    y = norm(layers.MaxPooling2D(2)(y))
    y = norm(layers.Reshape((16, 4))(norm(layers.Concatenate()([conv(y, 2), conv(y, 2)]))))
    return layers.Reshape((4, 4, 4))(layers.Rescaling(0.5, 0.1)(y))


def enlarged(x):
    y = layers.Conv2DTranspose(4, 3, 2, padding="same", activation="relu")(conv(x))
    y = layers.Conv2DTranspose(3, 2, 2, use_bias=False)(y)
    y = layers.Conv2DTranspose(3, 3, padding="valid")(layers.ReLU(6.0)(norm(y)))
    bilinear = layers.UpSampling2D((2, 1), interpolation="bilinear")
    return conv(bilinear(conv(bilinear(conv(layers.MaxPooling2D(4)(y))), activation="relu")))


BLOCKS = [joined, densely_connected, computed, moved, gated, sloped, normalized, enlarged]


@pytest.fixture(scope="module", params=BLOCKS, ids=lambda block: block.__name__)
def model(request):
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.ReLU()(norm(layers.Conv2D(4, 3, padding="same", use_bias=False)(image)))
    x = layers.GlobalAveragePooling2D()(conv(request.param(x), activation="relu"))
    return tf_keras.Model(image, layers.Dense(3)(x))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme["scheme"])
def test_a_block_is_exact(model, scheme, trained, random_images):
    images = random_images(model, 8)
    quantized = trained(model, images=images, calibration_data=images[0], **scheme)
    plan = make_plan(quantized)
    content = write_file(plan)
    for kernels in ("xnnpack", "reference"):
        verification = verify(quantized, plan, content, images, kernels)
        assert breaches(verification) == []
        assert all(np.isfinite(tensor.layer_farthest) for tensor in verification.tensors)


def test_a_maximum_that_ends_the_grid_is_no_operator(exported):
    """Of a range that is the ReLU's maximum; float32's 6 / 255 times 255 is a little more than 6."""
    image = layers.Input((6, 6, 3), name="image")
    x = layers.ReLU(6.0, name="relu6")(layers.Conv2D(4, 3, name="conv")(image))
    model = tf_keras.Model(image, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)))
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32)
    quantized = satkeras.quantize_model(model, "int8", calibration_data=images)
    quantized.get_layer("quant_relu6_output")._output_quantizer_vars["range"].assign(6.0)
    found = exported(quantized)
    assert found.differing == 0
    assert "MINIMUM" not in {tensor.operator for tensor in found.tensors}
