"""The real values of each input's codes, as a user gives them."""

from collections.abc import Mapping, Sequence

from satkeras._compat import call_of, keras
from satkeras.quantizers import InputQuantizer


def input_quantizers(input_range, model: keras.Model) -> dict[str, InputQuantizer]:
    """The quantizer of each input of a model, by the name of its InputLayer.

    Args:
      input_range: `(low, high)` for all inputs; or a mapping to such pairs, from the inputs' names or, for a model of a
        dict of inputs, from its keys.
      model: a functional or Sequential model.

    Raises:
      TypeError: it is neither; ValueError: a range has no zero in it, or an input has no range.
    """
    layers = [call_of(x).layer.name for x in model.inputs]  # pyright: ignore[reportGeneralTypeIssues]
    if not isinstance(input_range, Mapping):
        quantizer = _quantizer(input_range)
        return dict.fromkeys(layers, quantizer)
    keys = input_keys(model)
    for names in (keys, layers):
        if set(input_range) == set(names):
            return {layer: _quantizer(input_range[name]) for layer, name in zip(layers, names, strict=True)}
    example = ", ".join(f"{name!r}: (0, 255)" for name in keys)
    raise ValueError(
        f"input_range must have a range for each input, {{{example}}}. Received: {sorted(map(str, input_range))}"
    )


def input_keys(model: keras.Model) -> Sequence[str]:
    """What a model's inputs are fed by in `fit`: the keys of its dict of inputs, or else their layers' names."""
    return sorted(model.input) if isinstance(model.input, Mapping) else list(model.input_names)  # pyright: ignore


def _quantizer(pair) -> InputQuantizer:
    try:
        low, high = (float(bound) for bound in pair if not isinstance(bound, str))
    except (TypeError, ValueError) as error:
        raise TypeError(
            "input_range must be two numbers, the real values of the input's codes 0 and 255, or a dict of such pairs "
            f"by input. Received: input_range={pair!r}"
        ) from error
    return InputQuantizer(low, high)
