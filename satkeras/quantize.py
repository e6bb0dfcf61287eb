"""`quantize_model` gives a float model quantizers, `strip` removes them."""

import fnmatch
import warnings
from collections.abc import Mapping, Sequence
from types import EllipsisType

from satkeras._compat import keras
from satkeras.calibration.data import Batches, InputData
from satkeras.calibration.equalization import equalize_channels
from satkeras.calibration.input_ranges import input_quantizers
from satkeras.calibration.kernels import calibrate_weights, carry_over, undo_weight_transforms
from satkeras.calibration.ranges import set_ranges
from satkeras.calibration.rounding import round_by_output
from satkeras.calibration.units import CheckedBatches
from satkeras.calibration.zeros import warn_about_lost_zeros
from satkeras.models.canonical import canonical
from satkeras.models.checks import (
    is_quantized,
    require_int8_grids,
    require_quantizable,
    require_quantized,
    require_same_input_range,
    require_supported,
)
from satkeras.models.followed import functional
from satkeras.models.graph import Graph, build_model, in_form_of, read_graph
from satkeras.models.insertion import float_weights, with_quantizers, without_quantizers
from satkeras.models.keras3 import as_tf_keras, is_keras3
from satkeras.models.layers import Kind, kind_of
from satkeras.models.losses import require_copied_regularizers, require_no_loose_losses
from satkeras.models.placement import first_layers, last_layers, place
from satkeras.models.rewriting import CoreModel, core_model
from satkeras.models.wrapping import wrapped
from satkeras.schemes import Scheme, Width, scheme_named

Override = Scheme | str | Mapping[str, Width]

ROUNDINGS = {"nearest": None, "output": round_by_output}


def quantize_model(
    model: keras.Model,
    scheme: str | Scheme = "sat",
    *,
    weight_bits: Width | EllipsisType = ...,
    activation_bits: int | None | EllipsisType = ...,
    input_range: tuple[float, float] | Mapping[str, tuple[float, float]] = (0.0, 255.0),
    overrides: Mapping[str, Override] | None = None,
    calibration_data: InputData | None = None,
    rounding: str = "nearest",
    input_shape: tuple[int, ...] | None = None,
    outputs: Sequence[str] | None = None,
    verbose: int = 1,
) -> keras.Model:
    """A copy of a float Keras model that trains with quantized weights and activations.

    The copy starts from the model's weights; the model itself is not changed. Compile and fit it like any other.

    With `weight_bits=None, activation_bits=None` the copy stays in full precision but has its weights clamped and
    rescaled as the scheme does: the first of SAT's two training stages. Pass what it became to `quantize_model` again
    for the second. A quantized model can be passed again at other widths, too, so that they shrink step by step: its
    latent weights, clip values, ranges and batch norms go over (`calibration_data` would set ranges anew).

    Args:
      model: a built functional or Sequential model of tf_keras or of Keras 3, the path of a `.keras` or `.h5` file of
        one, or a model that this function returned. It may hold other models, TensorFlow operators and
        Lambdas of them, preprocessing, and layers of your own classes, if they are made of all these: see `check_model`
        for what becomes of them. A subclassed tf_keras model of one input is taken, too, once it was built.
      scheme: a name in `satkeras.SCHEMES` ("sat", "dorefa", ...) or a `Scheme`.
      weight_bits: 2 to 8, or None for full precision; as the scheme says (4) by default. For "qn" 1 to 5, 8, and
        levels by name: "ternary" (its default), "3bit+-2", "3bit+-4".
      activation_bits: the same for the inputs of convolutions and dense layers; for "qn" 1 to 4 and 8. All other
        tensors get 8 bits. With None for one of the two alone the model trains, to see what each costs, but has no
        file: the exporter refuses it.
      input_range: the real values of the input's 8-bit codes 0 and 255, so that a stored pixel p is code p. (0, 255)
        is an image as it is stored; (0, 1) the same divided by 255; (-1, 1) pixels / 127.5 - 1;
        ((0 - mean) / std, (255 - mean) / std) with one mean and std for all channels; (-1, 127/128) Coral's. For inputs
        in different units a dict by their names, `{"image": (0, 255), "sensor": (-4, 4)}`.
      overrides: by layer name (shell pattern, `*` and `?`), for convolutions and dense layers: another scheme (a name,
        such as "int8" for plain 8 bits, or a `Scheme`), or `{"weight_bits": ..., "activation_bits": ...}`.
        The last pattern that matches wins, also over the first and last layers' 8 bits.
      calibration_data: some hundred inputs, so that the copy starts where a pretrained model is: what the scheme's
        transform does to the weights is undone, DoReFa's kernels get channels of one size where a batch norm can
        undo it (see `equalize_channels`), and clip values, ranges and the statistics of batch norms are set from
        this data, in two passes that hold a batch of it at a time. An array, a list or dict of arrays for several
        inputs, a finite `tf.data.Dataset`, a Keras `Sequence` (labels are ignored), or a `representative_dataset`
        function. DoReFa's activations have a fixed range that no data can set.
        Of use to a model that was never trained, too: its kernels keep the scale of their initializers, its clip
        values start at the size of its tensors, its batch norms with the statistics of the data.
      rounding: "nearest": every weight becomes the integer next to it. "output": the integers are chosen so that each
        layer returns, for `calibration_data`, what it would with unrounded weights (see
        `satkeras.calibration.rounding`). It is for a copy that is exported without training, above all at 4 bits.
      input_shape: (h, w, channels), or the like, of every input of a model whose inputs leave sizes open: a file's have
        none.
      outputs: names of layers whose results the copy returns; the model's own outputs by default. What lies behind
        them, such as the decoding of boxes, is left out.
      verbose: 0 for no progress bar where calibration takes longer than two seconds.

    What was frozen stays frozen: a layer with `trainable=False`, its kernel, and the clips and ranges of the tensors
    that it makes. In the copy, too, `layer.trainable = False` freezes, by the copy's names: those of convolutions,
    dense layers and quantizers begin with "quant_", as in `q.get_layer("quant_conv")`.

    For a file call `tflite_export.export_tflite(q, path)`. `tf.lite.TFLiteConverter` does not know what the quantizers
    mean: at 4 bits it fails, at 8 it makes a file that computes something else.

    Returns:
      A tf_keras model; the layers with quantizers are tfmot `QuantizeWrapper`s named `quant_<layer>`, and each
      quantized tensor is a layer of its own, `quant_<layer>_output` or, off a residual stream, `quant_<layer>_input`.

    Raises:
      TypeError: not a tf_keras model, or an argument of the wrong kind.
      ValueError: the model is of a kind that cannot be quantized, has layers that are not supported (all are listed) or
        weights that are not finite, an argument is out of range, or a quantizer's grid does not fit int8.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {tuple(ROUNDINGS)}. Received: rounding={rounding!r}")
    if rounding != "nearest" and calibration_data is None:
        raise ValueError(
            f"rounding={rounding!r} needs data: quantize_model(model, calibration_data=images, rounding={rounding!r}). "
            "Received: calibration_data=None"
        )
    base = scheme_named(scheme).with_bits(*_bits(scheme_named(scheme), weight_bits, activation_bits))
    if is_keras3(model):
        warnings.warn(
            "quantize_model returns a tf_keras model: give its compile and fit names, such as 'adam', or objects of "
            "tf_keras, such as tf_keras.optimizers.Adam(); those of Keras 3 do not fit",
            stacklevel=2,
        )
    model = functional(as_tf_keras(model), input_shape)
    require_quantizable(model, "quantize_model")
    require_no_loose_losses(model)
    float_model = strip(model) if is_quantized(model) else model
    core = core_model(float_model, input_shape, outputs)
    require_supported(core)
    was_float, float_model = float_model is model, core.model
    source = read_graph(float_model)
    require_copied_regularizers(source)
    codes = input_quantizers(input_range, float_model)
    if not was_float:
        require_same_input_range(model, codes)
    calibration = None
    if calibration_data is not None:
        calibration = CheckedBatches(Batches(calibration_data, float_model, "calibration_data"), codes, bool(verbose))
        next(iter(calibration))  # raises before the long work what does not fit
    graph, copies = canonical(source)
    placement = place(graph, _layer_schemes(graph, base, overrides or {}), base, codes)
    require_int8_grids(placement)
    quantized, configs = with_quantizers(graph, placement)
    weights = {copy: layer.get_weights() for layer, copy in copies.items()}
    result = in_form_of(float_model if outputs else model, wrapped(quantized, configs, weights))
    if was_float and calibration is not None:
        equalize_channels(result)
    warn_about_lost_zeros(result)
    calibrate_weights(result)
    if not was_float:
        carry_over(model, result)
    elif calibration is not None:
        undo_weight_transforms(result)
    if calibration is not None:
        set_ranges(result, calibration, float_model if was_float else model, ROUNDINGS[rounding])
    return result


def check_model(model, input_shape: tuple[int, ...] | None = None, outputs: Sequence[str] | None = None) -> CoreModel:
    """What `quantize_model` makes of a model's layers: kept, rewritten in which others, or refused and why.

    Args:
      model: as for `quantize_model`; it is not changed.
      input_shape: as for `quantize_model`.
      outputs: as for `quantize_model`.

    Returns:
      Its `findings` have a row for each layer call; printed, they are a table.

    Raises:
      TypeError, ValueError: as `quantize_model` for what is no model that can be read layer by layer.
    """
    model = functional(as_tf_keras(model), input_shape)
    require_quantizable(model, "check_model")
    return core_model(strip(model) if is_quantized(model) else model, input_shape, outputs)


def strip(model: keras.Model) -> keras.Model:
    """The float model that a quantized one is without its quantizers: it computes the same, but for their rounding.

    Its kernels are what the latent ones stand for: clamped and rescaled as the scheme does. Clips end with the
    quantizers; the ReLUs that they replaced are back.

    It has the core layers that `quantize_model` made of the model's: a SeparableConv2D comes back as the two
    convolutions that it is made of.

    Raises:
      TypeError: not a tf_keras model; ValueError: the model has no satkeras quantizers.
    """
    require_quantized(model, "strip")
    graph, copies = without_quantizers(read_graph(model))
    stripped = in_form_of(model, build_model(graph))
    for layer, copy in copies.items():
        copy.set_weights(float_weights(layer))
    return stripped


def _bits(scheme, weight_bits, activation_bits):
    return (
        scheme.weight_bits if weight_bits is ... else weight_bits,
        scheme.activation_bits if activation_bits is ... else activation_bits,
    )


def _layer_schemes(graph: Graph, base: Scheme, overrides: Mapping[str, Override]) -> dict:
    """The scheme of every linear layer: the base at the first and last layers' width, or its override."""
    if not isinstance(overrides, Mapping) or not all(isinstance(pattern, str) for pattern in overrides):
        raise TypeError(
            'overrides must be a mapping from layer names or patterns, such as {"block_1_*": {"weight_bits": 8}}. '
            f"Received: overrides={overrides!r}"
        )
    linear = [node for node in graph.nodes if kind_of(node) is Kind.LINEAR]
    schemes = {node.layer: base for node in linear}
    for nodes, bits in ((first_layers(graph), base.first_layer_bits), (last_layers(graph), base.last_layer_bits)):
        for node in nodes if bits is not None else ():
            widths = (bits if own is not None else None for own in (base.weight_bits, base.activation_bits))
            schemes[node.layer] = base.with_bits(*widths)
    for pattern, override in overrides.items():
        matched = [node for node in linear if fnmatch.fnmatchcase(node.layer.name, pattern)]
        if not matched:
            raise ValueError(
                f"An override pattern must match a convolution or dense layer. Received: {pattern!r}, which matches "
                f"none of {[node.layer.name for node in linear]}"
            )
        for node in matched:
            schemes[node.layer] = _overridden(schemes[node.layer], pattern, override)
    return schemes


def _overridden(scheme: Scheme, pattern: str, override: Override) -> Scheme:
    try:
        if not isinstance(override, Mapping):
            return scheme_named(override)
        unknown = set(override) - {"weight_bits", "activation_bits"}
        if unknown or not override:
            raise ValueError(f"a mapping must hold weight_bits, activation_bits or both. Received: {dict(override)}")
        bits = {"weight_bits": scheme.weight_bits, "activation_bits": scheme.activation_bits, **override}
        return scheme.with_bits(**bits)
    except (TypeError, ValueError) as error:
        raise type(error)(f"The override of {pattern!r}: {error}") from error
