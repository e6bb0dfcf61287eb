"""Calibration data: strays are told, and what takes seconds shows how far it is."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras.calibration import units
from satkeras.calibration.data import Batches
from satkeras.calibration.units import CheckedBatches, batch_size_for
from satkeras.quantizers import InputQuantizer


@pytest.fixture(scope="module")
def model():
    inputs = tf_keras.Input((4, 4, 3), name="image")
    return tf_keras.Model(inputs, layers.Conv2D(8, 3, padding="same")(inputs))


def checked(model, x, **options):
    return CheckedBatches(Batches(x, model, "data", 2), {"image": InputQuantizer()}, **options)


def images():
    return np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.float32)


def test_strays_are_counted_and_told_once(model):
    x = images()
    x[3:, 0, 0] = 270
    with pytest.warns(UserWarning, match="data has 15 values outside the input range") as told:
        assert sum(len(batch[0]) for batch in checked(model, x)) == 8
    assert len(told) == 1


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_progress_bar_where_it_takes_longer(seconds, verbose, model, monkeypatch, capsys):
    monkeypatch.setattr(units, "QUIET_SECONDS", seconds)
    list(checked(model, images(), verbose=verbose))
    assert ("4/4" in capsys.readouterr().out) == (verbose and not seconds)


def test_batches_get_smaller_with_the_largest_tensor(model):
    assert batch_size_for(model) == 256
    assert batch_size_for(model, values=4 * 4 * 8 * 5) == 5
    assert batch_size_for(model, values=1) == 1
