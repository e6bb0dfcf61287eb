"""Losses and metrics that live beside a model's layers: no copy of the layers would have them."""

from satkeras._compat import AddLoss, AddMetric, keras
from satkeras.models.graph import Graph
from satkeras.models.layers import Kind, kind_of


def require_no_loose_losses(model: keras.Model) -> None:
    """Raises for `model.add_loss` and `model.add_metric`, which would be lost in a copy of the model's layers.

    Raises:
      ValueError: the model has such a loss or metric; how to add it to the quantized model is said.
    """
    layers = list(model._flatten_layers())
    calls = [
        *(f"add_loss (layer {layer.name!r})" for layer in layers if isinstance(layer, AddLoss)),
        *(f"add_loss of {model.name!r}, a function" for _ in getattr(model, "_callable_losses", ())),
        *(f"add_metric (layer {layer.name!r})" for layer in layers if isinstance(layer, AddMetric)),
    ]
    if calls:
        raise ValueError(
            f"quantize_model copies layers, and model.add_loss and model.add_metric are none. Received: {model.name!r} "
            f"with {', '.join(calls)}. Build the model without them and add them to the copy, whose layers are called "
            "quant_<layer> and, where a tensor is quantized, quant_<layer>_output:\n"
            "  q = satkeras.quantize_model(model)\n"
            "  feature = q.get_layer('quant_relu_output').output\n"
            "  q.add_loss(0.01 * tf.reduce_mean(feature ** 2)); q.add_metric(tf.reduce_mean(feature), name='feature')"
        )


def require_copied_regularizers(graph: Graph) -> None:
    """Raises for an activity regularizer that the layer's own `get_config` does not hold, so that Keras drops it.

    Raises:
      ValueError: there is one; where it would be kept is said.
    """
    lost = [
        node.name
        for node in graph.nodes
        if getattr(node.layer, "activity_regularizer", None) is not None
        and kind_of(node) is not Kind.LINEAR
        and "activity_regularizer" not in node.layer.get_config()
        and not isinstance(node.layer, keras.layers.ActivityRegularization)
    ]
    if lost:
        raise ValueError(
            f"An activity_regularizer is kept by convolutions and dense layers without an activation. Received: one on "
            f"{', '.join(map(repr, lost))}, of classes whose configs do not hold it. Add it to the copy instead: "
            f"q.add_loss(regularizer(q.get_layer('quant_{lost[0]}_output').output))"
        )
