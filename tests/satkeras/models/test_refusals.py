"""One error for all that is refused, a line for each kind, with the cut that would work."""

import re

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import check_model, quantize_model


@pytest.fixture(scope="module")
def detector():
    inputs = tf_keras.Input((8, 8, 3), name="image")
    feature = layers.Conv2D(4, 3, activation="relu", name="feature")(inputs)
    x = layers.Flatten(name="flat")(feature)
    for i in range(6):
        x = layers.LayerNormalization(name=f"norm_{i}")(x)
    x = layers.Lambda(lambda x: x if isinstance(x, tf.Tensor) else None, name="decode")(x)
    return tf_keras.Model(
        inputs, [layers.Dense(2, name="boxes")(x), layers.Dense(3, name="classes")(feature)], name="d"
    )


def test_a_line_for_each_kind(detector):
    with pytest.raises(ValueError, match="^7 layers of 'd' cannot be quantized:\n") as caught:
        quantize_model(detector)
    norms, decode, cut = str(caught.value).splitlines()[1:]
    assert norms == (
        "  'norm_0', 'norm_1', 'norm_2', 3 more (LayerNormalization): it divides by what it reads, which no int8 "
        "kernel does exactly; use BatchNormalization"
    )
    assert re.match(r"  'decode' \(Lambda\): its function .*_refusals.py:\d+: x = layers", decode)
    assert cut == (
        "What comes before can be: quantize_model(model, outputs=['flat', 'classes']); compute the rest from the "
        "file's outputs"
    )


def test_the_proposed_cut_works(detector):
    quantized = quantize_model(detector, outputs=list(check_model(detector).cut))
    assert quantized.output_names == ["flat", "classes"]
    assert quantized.output_shape == [(None, 144), (None, 6, 6, 3)]
    with pytest.raises(
        ValueError, match=r"outputs must be names of layers of 'd'. Received: \['top'\], of which \['top'"
    ):
        quantize_model(detector, outputs=["top"])


def test_no_cut_without_a_layer_to_quantize():
    inputs = tf_keras.Input((12, 4))
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.LSTM(3)(inputs)))
    assert check_model(model).cut == ()


def test_open_sizes_are_refused_before_training():
    inputs = tf_keras.Input((None, None, 3), name="image")
    model = tf_keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs)), name="open")
    message = (
        r"'image' of 'open' has the shape \(None, None, None, 3\).*quantize_model\(model, input_shape=\(h, w, 3\)\)"
    )
    with pytest.raises(ValueError, match=message):
        quantize_model(model)


def test_sizes_that_a_reshape_computes():
    inputs = tf_keras.Input((4, 4, 3))
    model = tf_keras.Model(inputs, tf.reshape(layers.Conv2D(2, 1)(inputs), [tf.shape(inputs)[0], 32]))
    assert quantize_model(model).output_shape == (None, 32)


@pytest.mark.parametrize("behind", [lambda y: y, lambda y: tf.cast(y, tf.float32)], ids=["last", "cast"])
def test_the_place_of_the_largest_is_no_size(behind):
    """Whole numbers from values are no shape, which a reshape may be given."""
    image = tf_keras.Input((8, 8, 3))
    logits = tf_keras.layers.Conv2D(5, 1, name="logits")(image)
    model = tf_keras.Model(image, behind(tf.argmax(logits, -1)))
    with pytest.raises(ValueError, match=r"argmax; compare the file's outputs behind it[\s\S]*outputs=\['logits'\]"):
        quantize_model(model)
