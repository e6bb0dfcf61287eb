"""Small models that several tests quantize."""

import tf_keras
from tf_keras import layers


def small_model(*more):
    return tf_keras.Sequential(
        [layers.Conv2D(3, 3, activation="relu", name="conv"), *more, layers.Flatten(), layers.Dense(5, name="logits")]
    )


def sequential(*stack):
    return tf_keras.Sequential([layers.InputLayer((8, 8, 3), name="image"), *stack])


def built(model, shape=(None, 8, 8, 3)):
    model.build(shape)
    return model
