"""What a model must be, checked before anything is built."""

from collections.abc import Iterable, Mapping

import numpy as np

from satkeras._compat import is_functional, keras
from satkeras.models.graph import build_model, in_form_of, read_graph
from satkeras.models.insertion import has_quantizer
from satkeras.models.keras3 import is_keras3
from satkeras.models.layers import Kind, kind_of
from satkeras.models.placement import Placement
from satkeras.models.rewriting import CoreModel
from satkeras.quantizers import InputQuantizer
from satkeras.quantizers.int8 import activation_levels_in_int8, weight_spread

_TFMOT_QUANTIZATION = "tensorflow_model_optimization.python.core.quantization."


def is_quantized(model: keras.Model) -> bool:
    """Whether a model holds satkeras quantizers (a clamped full-precision one does)."""
    return any(has_quantizer(layer) for layer in model.layers)


def student_of(model: keras.Model) -> keras.Model:
    """The student of a `Distiller`, any other model itself: callbacks and optimizers are given what is trained."""
    return model.student if hasattr(model, "student") else model


def opened(model):
    """A model around a quantized one, such as `Sequential([q, Softmax()])`, as one graph of the same layers.

    Args:
      model: anything; what is no such model is returned as it is.
    """
    if not isinstance(model, keras.Model) or not is_functional(model) or not any(map(_holds_quantized, model.layers)):
        return model
    graph = read_graph(model)
    operators = [node.name for node in graph.nodes if hasattr(node.layer, "symbol")]
    if operators:
        raise ValueError(
            f"What stands around a quantized model must be layers. Received: {model.name!r} with {_few(operators)}: "
            "put them into the float model before quantize_model, or compute them behind the file"
        )
    return in_form_of(model, build_model(graph))


def _holds_quantized(layer: keras.layers.Layer) -> bool:
    return is_functional(layer) and (is_quantized(layer) or any(map(_holds_quantized, layer.layers)))


def require_quantized(model, caller: str) -> None:
    """Raises unless `model` holds satkeras quantizers.

    Args:
      model: anything.
      caller: the function that needs it, for the message.

    Raises:
      TypeError: not a tf_keras model; ValueError: one without satkeras quantizers.
    """
    _require_tf_keras(model, caller)
    if not is_quantized(model):
        tfmots = _quantized_by_tfmot(model.layers)
        inner = [layer.name for layer in model.layers if _holds_quantized(layer)]
        kind = "a float model"
        if tfmots:
            kind = f"quantized by tfmot itself in {_few(tfmots)}"
        elif inner:
            kind = f"which holds the quantized {_few(inner)}: pass model.get_layer({inner[0]!r})"
        raise ValueError(
            f"{caller} needs a model that satkeras.quantize_model returned. Received: {model.name!r}, {kind}"
        )


def require_quantizable(model, caller: str) -> None:
    """Raises unless `model` is a float model, or one with satkeras quantizers, that can be read layer by layer.

    Raises:
      TypeError: not a tf_keras model; ValueError: subclassed and not followed, unbuilt, empty, quantized by tfmot
        itself, or with weights that are not finite.
    """
    _require_tf_keras(model, caller)
    if not isinstance(model, keras.Sequential) and not model._is_graph_network:
        problem = (
            "whose call cannot be followed: for that it may use layers and TensorFlow functions alone, and have no "
            "train_step or the like of its own. Else call its layers on a tf_keras.Input and make a tf_keras.Model of "
            "inputs and outputs"
            if model.built
            else f"not built: call {model.name}.build((None, height, width, channels)) first"
        )
        raise ValueError(
            f"{caller} needs a functional or Sequential model, or a subclassed one of one input that was built. "
            f"Received: subclassed {model.name!r}, {problem}"
        )
    if not model.layers:
        raise ValueError(f"{caller} needs a model with layers. Received: {model.name!r}, which is empty")
    if not model.built or not model.inputs:
        raise ValueError(f"{caller} needs a built model: call {model.name}.build(input_shape) first")
    tfmots = _quantized_by_tfmot(model.layers)
    if tfmots:
        raise ValueError(
            f"{caller} needs a float model. Received: {model.name!r}, quantized or annotated by tfmot itself in "
            f"{_few(tfmots)}. Pass the float model from before"
        )
    broken = [variable.name for variable in model.weights if not _is_finite(variable)]
    if broken:
        raise ValueError(
            f"{caller} needs finite weights. Received: {model.name!r} with NaN or infinity in {_few(broken)}: its "
            "training diverged; load weights from before"
        )


def require_same_input_range(model: keras.Model, quantizers: Mapping[str, InputQuantizer]) -> None:
    """Raises unless the inputs of a quantized model have the ranges that are asked for.

    Args:
      model: a quantized model.
      quantizers: the quantizer of each input, by the name of its InputLayer.

    Raises:
      ValueError: an input has another range.
    """
    for node in read_graph(model).nodes:
        own = node.layer.quantize_config.quantizer if has_quantizer(node.layer) else None
        if isinstance(own, InputQuantizer):
            name = node.inputs[0].layer.name
            asked = quantizers[name]
            if (own.low, own.high) != (asked.low, asked.high):
                raise ValueError(
                    f"Input {name!r} of {model.name!r} was trained with input_range=({own.low}, {own.high}). Received: "
                    f"input_range=({asked.low}, {asked.high})"
                )


def require_supported(core: CoreModel) -> None:
    """Raises a ValueError that lists every kind of layer that is refused, or says that there is nothing to quantize."""
    refused = [finding for finding in core.findings if finding.problem]
    if refused:
        raise ValueError("\n".join(_refusal(core, refused)))
    graph = read_graph(core.model)
    for node in graph.inputs:
        if None in node.shape:
            sizes = ["h", "w", "d"] if len(node.shape) > 2 else ["n"]
            closed = ", ".join(str(size or name) for size, name in zip(node.shape, [*sizes, *sizes], strict=False))
            raise ValueError(
                f"A file needs inputs of fixed size. Input {node.name!r} of {graph.name!r} has the shape "
                f"{(None, *node.shape)}: quantize_model(model, input_shape=({closed}{',' * (len(node.shape) == 1)}))"
            )
    if all(kind_of(node) is Kind.INPUT for node in graph.nodes):
        raise ValueError(
            "quantize_model needs a model with a layer between its inputs and outputs. Received: "
            f"{graph.name!r} with {_few(node.name for node in graph.nodes)}"
        )


def _refusal(core: CoreModel, refused) -> list[str]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for finding in refused:
        kinds.setdefault((finding.layer, finding.problem), []).append(finding.name)
    count = "1 layer" if len(refused) == 1 else f"{len(refused)} layers"
    lines = [f"{count} of {core.graph.name!r} cannot be quantized:"]
    lines += [f"  {_few(names)} ({layer}): {problem}" for (layer, problem), names in kinds.items()]
    if core.cut:
        lines.append(
            f"What comes before can be: quantize_model(model, outputs={list(core.cut)}); compute the rest from the "
            "file's outputs"
        )
    return lines


def require_int8_grids(placement: Placement) -> None:
    """Raises a ValueError that lists every quantizer whose grid int8 cannot hold, whatever the training makes of it."""
    problems: dict[str, list[str]] = {}
    for name, quantizer, place_in_int8 in (
        *((layer.name, quantizer, weight_spread) for layer, quantizer in placement.weights.items()),
        *((node.name, quantizer, activation_levels_in_int8) for node, quantizer in placement.tensors.items()),
        *((node.name, quantizer, activation_levels_in_int8) for node, quantizer in placement.branches.items()),
    ):
        if quantizer.width is not None:
            try:
                place_in_int8(quantizer.levels, quantizer.zero_point)
            except ValueError as error:
                problems.setdefault(f"{type(quantizer).__name__}: {error}", []).append(name)
    if problems:
        lines = [f"  {_few(names)}, {reason}" for reason, names in problems.items()]
        raise ValueError("\n".join(["The file could not hold the integers of these quantizers:", *lines]))


def _require_tf_keras(model, caller: str) -> None:
    if isinstance(model, keras.Model):
        return
    needed = f"{caller} needs a tf_keras model (Keras 2), the kind that TensorFlow Model Optimization works on"
    if is_keras3(model):
        raise TypeError(
            f"{needed}. Received: {model.name!r}, a model of Keras 3. satkeras.quantize_model(model) makes one of it"
        )
    advice = "; load it with satkeras.load_model" if isinstance(model, str) else ""
    raise TypeError(f"{needed}. Received: model={model!r}{advice}")


def _quantized_by_tfmot(layers) -> list[str]:
    # By module, not class: tfmot has a wrapper, an annotation and an input layer of its own, two versions of each.
    return [
        layer.name
        for layer in layers
        if type(layer).__module__.startswith(_TFMOT_QUANTIZATION) and not has_quantizer(layer)
    ]


def _is_finite(variable) -> bool:
    if not hasattr(variable, "numpy"):  # the vocabulary of a lookup layer
        return True
    values = variable.numpy()
    return values.dtype.kind in "biu" or bool(np.isfinite(values.astype(np.float64)).all())


def _few(names: Iterable[str]) -> str:
    """Up to four names; of more than four the first three, and how many more there are."""
    names = list(names)
    shown = names if len(names) <= 4 else names[:3]
    more = [f"{len(names) - 3} more"] if len(names) > 4 else []
    return ", ".join([*map(repr, shown), *more])
