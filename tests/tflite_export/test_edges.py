"""Corners of the supported layers, through the whole chain."""

import pytest
import tf_keras
from tf_keras import layers

from tflite_export.errors import ExportError


def stacked(*stack, shape=(6, 6, 3)) -> tf_keras.Model:
    return tf_keras.Sequential([layers.Input(shape), *stack])


@pytest.mark.parametrize("before", [[], [layers.Flatten]], ids=["vector", "flattened image"])
def test_dense_with_batch_norm(chain, before):
    """A batch norm of vectors takes no images, though in the file it is part of a 1x1 convolution."""
    stack = [layer() for layer in before]
    stack += [layers.Dense(5), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)]
    model = stacked(*stack, shape=(3, 3, 2) if before else (7,))
    model.layers[len(before) + 1].gamma.assign([1, 2, -1, 0.5, 3])
    assert chain(model).differing == 0


def test_batch_norm_of_a_sum_of_vectors(chain):
    image = layers.Input((6,))
    x = layers.Add()([layers.Dense(4, activation="relu")(image), layers.Dense(4, activation="relu")(image)])
    x = layers.Dense(3)(layers.ReLU()(layers.BatchNormalization()(x)))
    assert chain(tf_keras.Model(image, x)).differing == 0


def test_relu_layers_as_activations(chain):
    """`activation=` takes layers too; one may serve several."""
    relu = layers.ReLU(6.0)
    model = stacked(layers.Conv2D(4, 3, activation=relu), layers.Conv2D(4, 3, activation=relu), layers.Flatten())
    model.add(layers.Dense(3, activation=layers.ReLU()))
    assert chain(model).differing == 0


HEADS = {
    "mean, dense": lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(x)),
    "mean, convolution": lambda x: layers.Conv2D(3, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x)),
    "mean, batch norm": lambda x: layers.BatchNormalization()(layers.Dense(4)(layers.GlobalAveragePooling2D()(x))),
    "max, dense": lambda x: layers.Dense(3)(layers.GlobalMaxPooling2D()(x)),
    "max, convolution": lambda x: layers.Conv2D(3, 1)(layers.GlobalMaxPooling2D(keepdims=True)(x)),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", ["sat", "int8"])
@pytest.mark.parametrize("head", HEADS)
def test_pooling_a_single_pixel(chain, scheme, head):
    """What is left of a small image in a network made for large ones."""
    image = layers.Input((3, 3, 3))
    x = layers.Conv2D(4, 3, activation="relu")(image)
    assert chain(tf_keras.Model(image, HEADS[head](x)), scheme=scheme).differing == 0


@pytest.mark.parametrize("alpha", [1e-4, 1e-3, 1e4, 1e8])
def test_absurd_clips_are_exported_or_refused_by_the_plan(trained, exported, alpha):
    stack = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    stack += [layers.Dense(4), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)]
    model = trained(stacked(*stack))
    for variable in model.trainable_variables:
        if "alpha" in variable.name:
            variable.assign(alpha)
        if "gamma" in variable.name:
            variable.assign([1, 1e-4, 0, 1e-9])
    try:
        assert exported(model).differing == 0
    except ExportError as refusal:
        assert "cannot be exported exactly" in str(refusal)
