"""Tests of the example architectures against published sizes and the models of tf_keras.applications."""

from functools import cache
from math import prod

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from examples import architectures

ALLOWED_LAYERS = {
    layers.InputLayer,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.Dense,
    layers.BatchNormalization,
    layers.ReLU,
    layers.Add,
    layers.ZeroPadding2D,
    layers.MaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.Flatten,
    layers.Dropout,
    layers.Softmax,
}
IMAGENET = ("mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "preact_resnet50")
CIFAR = ("mobilenet_v1", "mobilenet_v2", "resnet18", "resnet20", "resnet50", "preact_resnet20", "preact_resnet50")


@cache
def imagenet(name: str) -> tf_keras.Model:
    return getattr(architectures, name)((224, 224, 3), 1000)


@cache
def cifar(name: str) -> tf_keras.Model:
    options = {} if name.endswith("resnet20") else {"small_images": True}
    return getattr(architectures, name)((32, 32, 3), 10, **options)


@pytest.fixture(scope="module", params=[(imagenet, name) for name in IMAGENET] + [(cifar, name) for name in CIFAR])
def model(request: pytest.FixtureRequest) -> tf_keras.Model:
    build, name = request.param
    return build(name)


def reference(name: str, **options) -> tf_keras.Model:
    return getattr(tf_keras.applications, name)(weights=None, classifier_activation=None, **options)


def trainable_size(model: tf_keras.Model) -> int:
    return sum(prod(weight.shape) for weight in model.trainable_weights)


def convolution_biases(model: tf_keras.Model) -> int:
    return sum(layer.bias.shape[0] for layer in convolutions(model) if layer.use_bias)


def convolutions(model: tf_keras.Model) -> list[layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)]


def multiply_adds(model: tf_keras.Model) -> int:
    """Counts the multiply-adds of the convolutions and the classifier for one image."""
    kernels = [(layer, layer.trainable_weights[0]) for layer in [*convolutions(model), model.get_layer("logits")]]
    return sum(prod(layer.output_shape[1:-1]) * prod(kernel.shape) for layer, kernel in kernels)


def total_stride(model: tf_keras.Model) -> float:
    return model.input_shape[1] / model.get_layer("pool").input_shape[1]


def test_uses_only_supported_layers(model: tf_keras.Model) -> None:
    assert {type(layer) for layer in model.layers} <= ALLOWED_LAYERS


def test_convolutions_have_no_bias(model: tf_keras.Model) -> None:
    assert convolution_biases(model) == 0


def test_logits_are_finite_and_depend_on_the_image(model: tf_keras.Model) -> None:
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    logits = model(images, training=True).numpy()
    assert logits.shape == (2, *model.output_shape[1:])
    assert np.isfinite(logits).all()
    assert not np.allclose(logits[0], logits[1])


@pytest.mark.parametrize(("name", "reference_name"), [("mobilenet_v1", "MobileNet"), ("mobilenet_v2", "MobileNetV2")])
def test_mobilenet_has_the_parameters_of_keras_applications(name: str, reference_name: str) -> None:
    assert imagenet(name).count_params() == reference(reference_name).count_params()


@pytest.mark.parametrize(("name", "reference_name"), [("resnet50", "ResNet50"), ("preact_resnet50", "ResNet50V2")])
def test_resnet50_lacks_only_the_convolution_biases_of_keras_applications(name: str, reference_name: str) -> None:
    expected = reference(reference_name)
    assert convolution_biases(expected) > 0
    assert imagenet(name).count_params() == expected.count_params() - convolution_biases(expected)


@pytest.mark.parametrize(
    ("name", "reference_name", "width"),
    [
        pytest.param("mobilenet_v1", "MobileNet", 1.0, marks=pytest.mark.slow),
        ("mobilenet_v1", "MobileNet", 0.25),
        ("mobilenet_v2", "MobileNetV2", 0.75),
        pytest.param("mobilenet_v2", "MobileNetV2", 1.4, marks=pytest.mark.slow),
    ],
)
def test_mobilenet_computes_what_keras_applications_computes(name: str, reference_name: str, width: float) -> None:
    expected = reference(reference_name, input_shape=(64, 64, 3), alpha=width, classes=7)
    model = getattr(architectures, name)((64, 64, 3), 7, width=width)
    rng = np.random.default_rng(0)
    weights = [_random_weight(rng, weight.shape) for weight in model.get_weights()]
    model.set_weights(weights)
    expected.set_weights([w.reshape(old.shape) for w, old in zip(weights, expected.get_weights(), strict=True)])
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    logits = expected(images).numpy()
    assert logits.std() > 0.1
    np.testing.assert_allclose(model(images).numpy(), logits, atol=1e-4 * np.abs(logits).max())


def _random_weight(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws a kernel of unit gain, or a vector that is also a valid variance."""
    return rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.normal(0, prod(shape[:-1]) ** -0.5, shape)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_resnet_has_the_trainable_parameters_of_torchvision(name: str, size: int) -> None:
    assert trainable_size(imagenet(name)) == size


@pytest.mark.parametrize(
    ("name", "millions"), [("mobilenet_v1", 569), ("mobilenet_v2", 301), ("resnet18", 1814), ("resnet50", 4089)]
)
def test_multiply_adds_are_the_published_ones(name: str, millions: int) -> None:
    assert round(multiply_adds(imagenet(name)) / 1e6) == millions


def test_resnet20_size_is_that_of_the_paper_plus_projections() -> None:
    """He et al. report 0.27M; with parameter-free shortcuts the count is 269,722.

    Convolutions: 9 * (3*16 + 6*16*16 + 16*32 + 5*32*32 + 32*64 + 5*64*64) = 267,696.
    Batch normalizations: 2 * (7*16 + 6*32 + 6*64) = 1,376. Classifier: 65 * 10 = 650.
    The two projections add 16*32 + 32*64 weights and 2 * (32 + 64) scales and offsets.
    """
    paper = 267_696 + 1_376 + 650
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    moving_statistics = 1_376 + 2 * (32 + 64)
    assert paper == 269_722
    assert trainable_size(cifar("resnet20")) == paper + projections
    assert cifar("resnet20").count_params() == paper + projections + moving_statistics


def test_preact_resnet20_drops_the_normalizations_of_the_projections() -> None:
    """The first block's pre-activation replaces the stem's, each later one the previous block's last."""
    difference = trainable_size(cifar("resnet20")) - trainable_size(cifar("preact_resnet20"))
    last = 2 * 64
    stage_ends = 2 * (16 + 32 + 64)
    assert difference == 2 * (32 + 64) + stage_ends - (2 * (16 + 32) + last)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_layout_strides_by_32(name: str) -> None:
    assert total_stride(imagenet(name)) == 32


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("mobilenet_v1", 16),
        ("mobilenet_v2", 8),
        ("resnet18", 8),
        ("resnet20", 4),
        ("resnet50", 8),
        ("preact_resnet20", 4),
        ("preact_resnet50", 8),
    ],
)
def test_small_image_variants_stride_less(name: str, stride: int) -> None:
    assert total_stride(cifar(name)) == stride
    assert cifar(name).get_layer("stem").output_shape[1:3] == (32, 32)


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    for name in ("resnet50", "preact_resnet50"):
        strided = [layer.name for layer in convolutions(cifar(name)) if layer.strides == (2, 2)]
        assert sorted(strided) == sorted(
            f"stage{stage}_block1_{conv}" for stage in (2, 3, 4) for conv in ("conv2", "shortcut")
        )


def test_preactivation_convolutions_follow_a_relu() -> None:
    model = cifar("preact_resnet50")
    inputs = {conv.name: conv.input.node.layer for conv in convolutions(model) if conv.name != "stem"}
    assert all(isinstance(layer, layers.ReLU) for layer in inputs.values())
    assert isinstance(model.get_layer("pool").input.node.layer, layers.ReLU)


def test_preactivation_sums_are_activated_only_inside_the_branch() -> None:
    model = cifar("preact_resnet20")
    shortcuts = [layer.input[0].node.layer.name for layer in model.layers if isinstance(layer, layers.Add)]
    assert shortcuts == [
        *("stage1_block1_preact_relu", "stage1_block1_add", "stage1_block2_add"),
        *("stage2_block1_shortcut", "stage2_block1_add", "stage2_block2_add"),
        *("stage3_block1_shortcut", "stage3_block1_add", "stage3_block2_add"),
    ]


def test_mobilenet_v2_adds_where_shapes_agree() -> None:
    sums = [layer.name for layer in imagenet("mobilenet_v2").layers if isinstance(layer, layers.Add)]
    assert sums == [f"block_{index}_add" for index in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]


def test_block_tables_cut_the_depth() -> None:
    v1 = architectures.mobilenet_v1((16, 16, 3), 10, blocks=((8, 1, 1), (16, 2, 2)), small_images=True)
    v2 = architectures.mobilenet_v2(
        (16, 16, 3), 10, blocks=((1, 8, 1, 1), (2, 16, 2, 2), (2, 24, 1, 2)), last_channels=64
    )
    assert [layer.strides for layer in v1.layers if isinstance(layer, layers.DepthwiseConv2D)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]
    assert [layer.filters for layer in convolutions(v2) if "project" in layer.name] == [8, 16, 16, 24]
    assert v2.get_layer("pool").input_shape == (None, 2, 2, 64)


def test_options_reach_the_layers() -> None:
    model = architectures.mobilenet_v2(
        *((16, 16, 3), 10),
        blocks=((1, 8, 1, 1),),
        dropout=0.2,
        batch_norm_momentum=0.9,
        batch_norm_epsilon=1e-4,
        softmax=True,
    )
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-4)}
    assert model.get_layer("dropout").rate == 0.2
    np.testing.assert_allclose(model(np.ones((1, 16, 16, 3), np.float32)).numpy().sum(), 1.0, rtol=1e-5)


def test_residual_options_reach_the_layers() -> None:
    model = architectures.preact_resnet20((16, 16, 3), 10, batch_norm_momentum=0.9, softmax=True)
    assert {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)} == {0.9}
    assert isinstance(model.layers[-1], layers.Softmax)
