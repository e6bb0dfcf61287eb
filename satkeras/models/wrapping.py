"""tfmot's `quantize_apply`, given the layers to wrap alone."""

from satkeras._compat import QuantizeLayoutTransform, QuantizeRegistry, QuantizeScheme, keras, tfmot
from satkeras.models.graph import Graph, build_model
from satkeras.models.insertion import has_quantizer, new_name
from satkeras.models.wrapper import QuantizeWrapper

PREFIX = "quant_"


def wrapped(graph: Graph, configs, weights) -> keras.Model:
    """A graph as a model, with tfmot's wrappers around the layers that have a config.

    tfmot builds a model five times and needs of this one the layers to wrap alone: it gets each on an input, which is
    that of all layers with one input shape.

    Args:
      graph: its layers are not built.
      configs: the config of each layer to wrap.
      weights: of layers of the graph.
    """
    first = {node.layer: node for node in reversed(graph.nodes) if node.layer in configs}
    shapes = {layer: node.inputs[0].shape for layer, node in first.items()}
    inputs = {shape: keras.Input(shape, dtype="float32") for shape in dict.fromkeys(shapes.values())}
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    annotated = keras.Model(
        list(inputs.values()),
        [annotate(layer, configs[layer])(inputs[shape]) for layer, shape in shapes.items()],
        name=graph.name,
    )
    for layer in weights.keys() & configs.keys():
        layer.set_weights(weights[layer])
    applied = tfmot.quantization.keras.quantize_apply(annotated, scheme=_AsAnnotated(graph, configs))
    wrappers = {layer.layer.name: layer for layer in applied.layers if has_quantizer(layer)}
    copies = {}

    def wrapper_of(layer):
        if layer not in configs:
            return layer
        # A copy: `layer.output` of tfmot's leads into its own models.
        wrapper = wrappers[layer.name]
        copies[wrapper] = type(wrapper).from_config(wrapper.get_config())
        return copies[wrapper]

    result = build_model(graph, wrap=wrapper_of)
    for wrapper, copy in copies.items():
        copy.set_weights(wrapper.get_weights())
    for layer in weights.keys() - configs.keys():
        layer.set_weights(weights[layer])
    return result


class _AsAnnotated(QuantizeScheme, QuantizeLayoutTransform, QuantizeRegistry):
    """A tfmot scheme that quantizes exactly what was annotated, with the annotated configs and our own wrapper.

    tfmot's own transforms replace custom configs without a word (on a convolution that a ReLU layer follows). A layer
    that the layout transform has wrapped already is left alone.

    Args:
      graph: what is annotated; the wrappers get names that no other layer of it has.
      configs: the config of each annotated layer.
    """

    def __init__(self, graph: Graph, configs):
        self._names = {node.layer.name for node in graph.nodes if node.layer not in configs}

    def get_layout_transformer(self):
        return self

    def apply(self, model, layer_quantize_map):
        def wrapper_of(layer):
            config = layer_quantize_map.get(layer.name, {}).get("quantize_config")
            if config is None:
                return layer
            return QuantizeWrapper(layer, config, name=new_name(f"{PREFIX}{layer.name}", self._names))

        return keras.models.clone_model(model, clone_function=wrapper_of), {}

    def get_quantize_registry(self):
        return self

    def supports(self, layer):
        return False

    def get_quantize_config(self, layer):
        raise NotImplementedError(f"Layer {layer.name!r} is annotated without a config")
