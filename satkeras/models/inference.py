"""When a layer computes what the file computes, and when it trains."""

from satkeras._compat import keras, only_shapes_count


def rounds(layer: keras.layers.Layer, training) -> bool:
    """Whether a layer rounds in this call: at inference, and if frozen; not where only shapes count."""
    return not (training and layer.trainable) and not only_shapes_count()
