"""What a training step keeps for its backward pass: counted in the graph, tensor by tensor."""

from collections import Counter

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras

SHAPE = (2, 8, 8, 4)
# They hand their input's memory on.
ALIASES = ("Identity", "IdentityN", "StopGradient")


def small_model():
    image = x = tf_keras.Input((8, 8, 3))
    for _ in range(4):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return tf_keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def source(value):
    while value.op.type in ALIASES:
        value = value.op.inputs[value.value_index]
    return value


def kept(model):
    """How many tensors of `SHAPE` the backward pass reads, by type."""

    @tf.function(autograph=False)
    def step(images, gradient):
        with tf.GradientTape() as tape:
            y = model(images, training=True)
        return tape.gradient(y, model.trainable_variables, gradient)

    graph = step.get_concrete_function(tf.TensorSpec((2, 8, 8, 3)), tf.TensorSpec((2, 5))).graph
    needed, waiting = set(), [value.op for value in graph.structured_outputs]
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [value.op for value in operation.inputs]
            waiting += operation.control_inputs
    backward = {graph.inputs[1].op}
    # In the order of the graph, so that an operation comes after those it waits for.
    for operation in graph.get_operations():
        before = {*(value.op for value in operation.inputs), *operation.control_inputs}
        if before & backward:
            backward.add(operation)
    read = {source(value).ref() for operation in backward & needed for value in operation.inputs}
    values = [ref.deref() for ref in read]
    return Counter(value.dtype.name for value in values if value.op not in backward and value.shape == SHAPE)


# Batch norm keeps the results of all four convolutions. Three ReLUs feed a convolution, which keeps what it reads; the
# fourth feeds a mean, and is kept by a float network for its own derivative.
KEPT = {
    "float": ({}, {"float32": 4 + 4}),
    # A moving range keeps nothing, the ReLU before it a mask.
    "int8": ({"scheme": "int8"}, {"float32": 4 + 3, "bool": 4}),
    "qn A8": ({"scheme": "qn", "activation_bits": 8}, {"float32": 4 + 3, "bool": 4}),
    # A learned clip keeps what it clips in 16 bits.
    "sat": ({"scheme": "sat"}, {"float32": 4 + 3, "quint16": 3, "bool": 1}),
    # Steps read an 8-bit tensor and keep it.
    "qn A2": ({"scheme": "qn", "activation_bits": 2}, {"float32": 4 + 3 + 3, "bool": 4}),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("options", "expected"), KEPT.values(), ids=KEPT)
def test_what_the_backward_pass_reads(options, expected):
    model = small_model()
    assert kept(satkeras.quantize_model(model, **options) if options else model) == expected
