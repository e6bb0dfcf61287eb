"""Which variables a model's quantizers learn, and which weight decay leaves alone."""

import dataclasses

import numpy as np
import pytest
import tf_keras

from satkeras import SCHEMES, learned_variables, undecayed_variables
from satkeras._compat import serializable
from satkeras.quantizers import PACTQuantizer, QuantizerVariable


@serializable
@dataclasses.dataclass(frozen=True)
class DecayedClip(PACTQuantizer):
    @property
    def declared_variables(self):
        return (QuantizerVariable("alpha", "clip", self.initial_alpha, decayed=True),)


def names(variables):
    return {variable.name.removeprefix("quant_") for variable in variables}


def decayed(model):
    undecayed = {variable.ref() for variable in undecayed_variables(model)}
    return names(variable for variable in model.weights if variable.ref() not in undecayed)


KERNELS = {"stem/kernel:0", "conv/kernel:0", "head/kernel:0", "logits/kernel:0"}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", [None, *SCHEMES])
def test_kernels_decay_but_for_depthwise_ones(scheme, residual_model, quantized):
    assert decayed(residual_model if scheme is None else quantized(scheme)) == KERNELS


def test_quantizers_say_what_decays(quantized):
    scheme = dataclasses.replace(SCHEMES["sat"], activations=DecayedClip())
    clips = {f"{name}/output_alpha:0" for name in ("conv_input", "conv_relu_output", "head_input")}
    assert decayed(quantized(scheme)) == KERNELS | clips


def test_a_frozen_layer_changes_nothing(quantized):
    model = quantized()
    before = decayed(model)
    model.get_layer("quant_conv").trainable = False
    assert decayed(model) == before


def test_an_optimizer_decays_what_is_left(quantized):
    model = quantized("sat")
    optimizer = tf_keras.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=undecayed_variables(model))
    before = {variable.name: variable.numpy() for variable in model.trainable_variables}
    optimizer.apply_gradients((0 * variable, variable) for variable in model.trainable_variables)
    for variable in model.trainable_variables:
        factor = 0.5 if names([variable]) <= KERNELS else 1.0
        np.testing.assert_allclose(variable, factor * before[variable.name], rtol=1e-6)


def test_learned_variables_by_role(residual_model, quantized):
    model = quantized("sat")
    alphas = {f"{name}_output/output_alpha:0" for name in ("conv_relu",)}
    assert names(learned_variables(model)) == names(learned_variables(model, "clip")) >= alphas
    assert learned_variables(model, "step") == []
    assert learned_variables(residual_model) == []


def test_learned_variables_of_several_roles(quantized):
    model = quantized("qn")
    steps, scales = learned_variables(model, "step"), learned_variables(model, "scale")
    assert len(steps) == len(scales) > 0
    assert not names(steps) & names(scales)
    assert names(learned_variables(model)) == names(learned_variables(model, "step", "scale"))
    assert learned_variables(model, "threshold") == []  # by default they do not learn
