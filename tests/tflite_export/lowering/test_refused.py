"""What is refused while it is lowered: weights without a width, or that are no numbers."""

import numpy as np
import pytest
import tf_keras

from satkeras.models.insertion import has_quantizer
from tflite_export.errors import ExportError
from tflite_export.lowering.lower import make_plan


def copied(model) -> tf_keras.Model:
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.parametrize(
    "options, message",
    [
        ({"activation_bits": None}, "activation_bits, not None"),
        ({"weight_bits": None}, "its num_bits is None"),
        ({"weight_bits": None, "activation_bits": None}, "activation_bits, not None"),
    ],
)
def test_full_precision_is_refused(trained, residual_model, options, message):
    with pytest.raises(ExportError, match=message):
        make_plan(trained(residual_model, **options))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name, index", [("stem", 0), ("project", 1), ("stem_bn", 0), ("down_bn", 2), ("logits", 1)])
def test_weights_that_are_no_numbers_are_refused_by_name(residual, name, index, value):
    model = copied(residual)
    layer = next(layer for layer in model.layers if layer.name in (name, f"quant_{name}"))
    variables = {0: "kernel", 1: "bias"} if has_quantizer(layer) else {0: "gamma", 2: "moving_mean"}
    variable = next(v for v in layer.variables if variables[index] in v.name)
    variable.assign(tf_keras.backend.ones_like(variable) * value)
    with pytest.raises(ExportError, match=rf"{name}.*NaN or infinity"):
        make_plan(model)


def test_one_error_names_every_failing_layer(residual):
    model = copied(residual)
    for name in ("stem", "depthwise", "logits"):
        layer = model.get_layer(f"quant_{name}")
        kernel = next(v for v in layer.variables if "kernel" in v.name)
        kernel.assign(tf_keras.backend.ones_like(kernel) * np.nan)
    with pytest.raises(ExportError) as caught:
        make_plan(model)
    assert [name for name, _ in caught.value.problems] == ["quant_stem", "quant_depthwise", "quant_logits"]
    assert all(name in str(caught.value) for name in ("quant_stem", "quant_depthwise", "quant_logits"))
