"""What holds for every quantizer that satkeras exports, at every width that it accepts, and for every scheme."""

import dataclasses
import inspect
import typing

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import satkeras
from satkeras import quantizers
from satkeras.quantizers import InputQuantizer, Quantizer
from satkeras.quantizers.base import Role
from satkeras.quantizers.quantization_networks import LEVEL_SETS

WIDTHS = (None, *range(-1, 17), *(name for name in LEVEL_SETS if isinstance(name, str)))


def classes():
    exported = (getattr(quantizers, name) for name in quantizers.__all__)
    return [one for one in exported if issubclass(one, Quantizer) and not inspect.isabstract(one)]


def at_every_width(cls):
    found = [cls()]
    for width in WIDTHS:
        try:
            found.append(cls(num_bits=width))
        except (TypeError, ValueError):
            continue
    return list(dict.fromkeys(found))


def with_other_options(quantizer, *kinds):
    """The quantizer with one option after the other set to something else, options of these types."""
    for field in dataclasses.fields(quantizer):
        value = getattr(quantizer, field.name)
        if type(value) in kinds:
            try:
                other = not value if isinstance(value, bool) else value / 2 + 1e-3
                yield dataclasses.replace(quantizer, **{field.name: other})
            except ValueError:
                continue


EVERY = [quantizer for cls in classes() for quantizer in at_every_width(cls)]
SWITCHED = [quantizer for cls in classes() for quantizer in with_other_options(cls(), bool)]
# As placement does: another quantizer may take the place of one that has no levels at a width.
PLACED = list(dict.fromkeys(quantizer.specialized() for quantizer in (*EVERY, *SWITCHED)))
ROUNDING = [quantizer for quantizer in PLACED if quantizer.num_bits is not None]
rounding = pytest.mark.parametrize("quantizer", ROUNDING, ids=repr)


@pytest.fixture
def values():
    """A tensor that is a batch of images and a kernel, as the quantizer takes it."""
    return np.random.default_rng(0).normal(size=(6, 3, 4, 5)).astype(np.float32)


def built(quantizer, values):
    """A layer with the quantizer's variables, set to suit values, and the variables."""
    layer = tf_keras.layers.Layer()
    variables = quantizer.build(values.shape, "kernel", layer)
    if quantizer.num_bits is not None:
        quantizer.calibrate(values, variables)
    return layer, variables


def trains(quantizer):
    """Whether the quantizer takes any training batch: the input's refuses one in other units."""
    return not isinstance(quantizer, InputQuantizer)


def integers_of(quantizer, values, variables):
    params = quantizer.quant_params({name: variable.numpy() for name, variable in variables.items()}, values)
    return params.integers_of(quantizer(tf.constant(values), False, variables).numpy()), params


def test_all_files_are_walked():
    assert len(classes()) >= 9
    assert all(len(at_every_width(cls)) > 5 for cls in classes() if cls is not InputQuantizer)


@pytest.mark.parametrize("cls", classes())
def test_config_round_trip(cls, round_trip):
    for quantizer in (*at_every_width(cls), *with_other_options(cls(), bool, float)):
        config = round_trip(quantizer)["config"]
        assert set(config) == {field.name for field in dataclasses.fields(quantizer) if field.init}


@pytest.mark.parametrize("cls", classes())
def test_quantizers_are_values(cls):
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().num_bits = 5


@pytest.mark.parametrize("cls", [cls for cls in classes() if cls is not InputQuantizer])
def test_widths_that_are_refused(cls):
    for num_bits in (-1, 0, 9, 16):
        with pytest.raises(ValueError, match=rf"{cls.__name__} works with .* Received: num_bits={num_bits}\b"):
            cls(num_bits)
    for num_bits in (2.5, 4.0, True):
        with pytest.raises(TypeError, match=f"{cls.__name__} needs .* or None .*num_bits={num_bits!r}"):
            cls(num_bits)


@pytest.mark.parametrize("quantizer", [one for one in EVERY if one.num_bits is None], ids=repr)
def test_full_precision_has_no_grid(quantizer, values):
    _, variables = built(quantizer, values)
    with pytest.raises(ValueError, match="num_bits is None"):
        quantizer.quant_params(variables, values)


@rounding
def test_results_lie_on_the_stated_grid(quantizer, values):
    _, variables = built(quantizer, values)
    integers, params = integers_of(quantizer, 1.5 * values, variables)
    assert (params.qmin, params.qmax, params.spacing) == (*quantizer.levels, quantizer.spacing)
    assert 1 < len(np.unique(integers)) <= 2**quantizer.width
    assert params.qmin <= params.zero_point <= params.qmax


@given(
    quantizer=st.sampled_from(ROUNDING),
    values=arrays(np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e3, 1e3, width=32)),
)
def test_any_tensor_keeps_its_order_on_the_grid(quantizer, values):
    _, variables = built(quantizer, values)
    integers, _ = integers_of(quantizer, values, variables)
    assert (np.diff(integers.ravel()[values.argsort(None)]) >= 0).all()


@pytest.mark.parametrize("quantizer", PLACED, ids=repr)
def test_declared_variables_are_what_the_layer_gets(quantizer, values):
    declared = quantizer.declared_variables
    layer, variables = built(quantizer, values)
    assert [one.name for one in declared] == list(variables)
    assert len(layer.weights) == len(declared)
    for one in declared:
        variable = variables[one.name]
        assert one.role in typing.get_args(Role)
        assert (tuple(variable.shape), variable.dtype.name) == (one.shape, one.dtype)
        assert variable.trainable == one.learned
        assert any(variable is trainable for trainable in layer.trainable_weights) == one.learned
        assert not (one.learned and one.role in ("range", "state"))
        assert one.learned or not (one.decayed or one.l2)
        assert one.initial == 0 or not one.from_data


@rounding
def test_a_grid_is_unknown_until_data_come(quantizer, values):
    variables = quantizer.build(values.shape, "kernel", tf_keras.layers.Layer())
    waits = any(one.from_data for one in quantizer.declared_variables)
    assert quantizer.is_initialized(variables) != waits
    if waits:
        with pytest.raises(ValueError, match="unknown"):
            quantizer.quant_params(variables, values)
    quantizer.calibrate(values, variables)
    assert quantizer.is_initialized(variables)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "quantizer", [one for one in ROUNDING if any(x.learned for x in one.declared_variables)], ids=repr
)
def test_a_training_step_moves_what_is_learned_and_nothing_else(quantizer, values):
    layer, variables = built(quantizer, values)
    before = {name: variable.numpy() for name, variable in variables.items()}
    x = tf.constant(1.5 * values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantizer(x, True, variables) * tf.random.normal(x.shape, seed=1))
    dx, *gradients = tape.gradient(total, [x, *layer.trainable_weights])
    assert np.any(dx)
    tf_keras.optimizers.SGD(0.01).apply_gradients(zip(gradients, layer.trainable_weights, strict=True))
    for one in quantizer.declared_variables:
        moved = np.any(variables[one.name] != before[one.name])
        assert moved == one.learned or one.role == "range", one.name


DEGENERATE = {
    "zeros": np.zeros((2, 3, 3, 2)),
    "constant": np.full((2, 3, 3, 2), 0.3),
    "negative": np.full((2, 3, 3, 2), -0.3),
    "tiny": np.linspace(-1e-30, 1e-30, 36).reshape(2, 3, 3, 2),
    "huge": np.linspace(-1e30, 1e30, 36).reshape(2, 3, 3, 2),
    "one element": np.full((1, 1, 1, 1), 0.7),
}


@pytest.mark.thinned(3)
@rounding
def test_degenerate_tensors(quantizer):
    for name, tensor in DEGENERATE.items():
        values = tensor.astype(np.float32)
        layer, variables = built(quantizer, values)
        integers_of(quantizer, values, variables)
        x = tf.constant(values)
        for training in (False, True) if trains(quantizer) else (False,):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = quantizer(x, training, variables)
            gradients = tape.gradient(y, [x, *layer.trainable_weights], unconnected_gradients="zero")
            for one in (y, *gradients):
                assert np.isfinite(one).all(), name


@pytest.mark.thinned(3)
@rounding
def test_graphs_find_the_same_integers(quantizer, values):
    _, variables = built(quantizer, values)
    integers, params = integers_of(quantizer, values, variables)
    compiled = tf.function(lambda x: quantizer(x, False, variables))
    np.testing.assert_array_equal(params.integers_of(compiled(tf.constant(values))), integers)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", satkeras.SCHEMES)
def test_a_scheme_trains_without_calibration_and_is_loaded_as_it_was_saved(
    scheme, residual_model, images, train, tmp_path
):
    model = satkeras.quantize_model(residual_model, scheme)
    widths = [width for layer in satkeras.summary(model).layers for width in (layer.weight_bits, layer.input_bits)]
    assert None not in widths
    if has_thresholds(model):
        satkeras.set_thresholds(model, images[0])
    train(model, rate=0.01)
    predicted = model.predict(images[0], verbose=0)
    assert np.isfinite(predicted).all()
    assert np.isfinite([layer.alpha for layer in satkeras.summary(model).layers]).all()
    satkeras.save_model(model, tmp_path / "model.keras")
    loaded = satkeras.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images[0], verbose=0), predicted)


def has_thresholds(model):
    chosen = (layer.quantize_config.quantizer for layer in model.layers if hasattr(layer, "quantize_config"))
    return any(one.role == "threshold" for quantizer in chosen for one in quantizer.declared_variables)
