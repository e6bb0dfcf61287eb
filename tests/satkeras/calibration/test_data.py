"""Data for a model's inputs, in every form and in none."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras.calibration.data import Batches, input_arrays

LEFT, RIGHT = np.arange(12.0).reshape(6, 2), np.arange(18.0).reshape(6, 3)


@pytest.fixture(scope="module")
def model():
    """Of two inputs, `left` and `right`."""
    inputs = [tf_keras.Input((2,), name="left"), tf_keras.Input((3,), name="right")]
    return tf_keras.Model(inputs, tf_keras.layers.Concatenate()(inputs))


class Pairs(tf_keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return [LEFT[2 * index :][:2], RIGHT[2 * index :][:2]], np.zeros(2)


def batched(elements):
    return tf.data.Dataset.from_tensor_slices(elements).batch(4)


@pytest.mark.parametrize(
    "data",
    [
        [LEFT, RIGHT],
        (LEFT, RIGHT),
        [LEFT.tolist(), RIGHT.tolist()],
        {"right": RIGHT, "left": LEFT},
        batched({"left": LEFT, "right": RIGHT}),
        batched(((LEFT, RIGHT), np.zeros(6))),
        batched(({"left": LEFT, "right": RIGHT}, np.zeros(6), np.ones(6))),
        tf.data.Dataset.from_tensor_slices((LEFT, RIGHT)).map(lambda left, right: {"right": right, "left": left}),
        Pairs(),
        lambda: ([left[None], right[None]] for left, right in zip(LEFT, RIGHT, strict=True)),
        lambda: iter([({"left": LEFT, "right": RIGHT}, np.zeros(6))]),
    ],
    ids=[
        *("list", "tuple", "nested lists", "dict", "dataset of dicts", "labelled", "weighted", "not batched"),
        *("Keras Sequence", "representative_dataset", "generator with labels"),
    ],
)
def test_every_form_gives_the_same_arrays(model, data):
    left, right = input_arrays(data, model, "data")
    np.testing.assert_array_equal(left, LEFT)
    np.testing.assert_array_equal(right, RIGHT)


def test_a_model_of_a_dict_is_fed_by_its_keys():
    inputs = {"z": layers.Input((2,), name="left"), "a": layers.Input((3,), name="right")}
    model = tf_keras.Model(inputs, layers.Concatenate()(list(inputs.values())))
    first, second = input_arrays({"z": LEFT, "a": RIGHT}, model, "data")
    assert [values.shape[1:] for values in (first, second)] == [tuple(x.shape[1:]) for x in model.inputs]
    np.testing.assert_array_equal(first, RIGHT)
    np.testing.assert_array_equal(second, LEFT)
    by_layer = input_arrays({"left": LEFT, "right": RIGHT}, model, "data")
    assert all(np.array_equal(*pair) for pair in zip(by_layer, (first, second), strict=True))
    with pytest.raises(ValueError, match=r"^data must have the keys \['a', 'z'\]. Received: \['a', 'right'\]$"):
        input_arrays({"a": LEFT, "right": RIGHT}, model, "data")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LEFT, r"^data must be an array for each of the 2 inputs \['left', 'right'\]. Received: one$"),
        ([LEFT], r"^data must be an array for each of the 2 inputs .*, without labels. Received: 1 "),
        ({"left": LEFT}, r"^data must have the keys \['left', 'right'\]. Received: \['left'\]$"),
        ([LEFT, RIGHT[:5]], r"^data must have as many examples for each input. Received: \[5, 6\]$"),
        ([LEFT[:0], RIGHT[:0]], r"^data must hold at least one example. Received: shape \(0, 2\)$"),
        (batched((LEFT, RIGHT)), r"^data must be an array for each of the 2 inputs .* Received: one$"),
        (batched(((LEFT, RIGHT), LEFT)).take(0), "^data must hold at least one example. Received: an empty dataset$"),
        (batched(((LEFT, RIGHT), LEFT)).repeat(), r"^data must end. Received: .* use .take\(n\)$"),
    ],
)
def test_data_that_do_not_fit_the_inputs(model, data, message):
    with pytest.raises(ValueError, match=message):
        input_arrays(data, model, "data")


@pytest.mark.parametrize("data", [None, 5, "images.npy", iter([LEFT])])
def test_data_of_no_kind(model, data):
    with pytest.raises(TypeError, match=f"^data must be an array, a list or dict of .* {type(data).__name__}"):
        input_arrays(data, model, "data")


def test_a_list_of_single_examples_is_an_array_of_them():
    model = tf_keras.Sequential([layers.InputLayer((2,))])
    (found,) = input_arrays([row[None] for row in LEFT], model, "data")
    np.testing.assert_array_equal(found, LEFT)


def test_an_iterator_is_refused_with_the_way_out(model):
    with pytest.raises(TypeError, match="Received: generator; pass the function that makes the iterator$"):
        input_arrays((part for part in [[LEFT, RIGHT]]), model, "data")


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("size", [1, 4, 6, 64])
def test_batches_are_of_one_size_however_the_data_come(size, pieces, model):
    parts = [[LEFT[start : start + pieces], RIGHT[start : start + pieces]] for start in range(0, 6, pieces)]
    batches = Batches(lambda: iter(parts), model, "data", size)
    for _ in range(2):  # as often as asked
        found = list(batches)
        assert [len(left) for left, _ in found] == [size] * (6 // size) + [6 % size] * (6 % size > 0)
        np.testing.assert_array_equal(np.concatenate([right for _, right in found]), RIGHT)
    assert Batches([LEFT, RIGHT], model, "data", size).count == len(found)


def test_no_more_than_a_batch_is_read_ahead(model):
    read = []

    def endless():
        while True:
            read.append(1)
            yield [LEFT[:1], RIGHT[:1]]

    batches = iter(Batches(endless, model, "data", 4))
    for count in range(1, 4):
        next(batches)
        assert len(read) == 4 * count
