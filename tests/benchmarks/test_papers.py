"""The papers' tables, on a network and a data set that train in seconds."""

import dataclasses
import fnmatch

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from benchmarks import optimizers, results
from benchmarks.papers import cost, files, page
from benchmarks.papers.epochs import CompiledEpochs, moved, with_labels
from benchmarks.papers.rows import Place, Row, Table, train, trained_model
from benchmarks.papers.tables import TABLES
from examples import datasets


def network(classes):
    stack = [
        layers.InputLayer((8, 8, 3), name="image"),
        layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="first"),
        layers.BatchNormalization(momentum=0.5),
        layers.ReLU(),
        layers.Conv2D(8, 3, padding="same", use_bias=False, name="second"),
        layers.BatchNormalization(momentum=0.5),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(classes, name="logits"),
    ]
    return tf_keras.Sequential(stack)


@pytest.fixture(scope="module")
def data():
    """Two classes: bright images and dark ones."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    images = (rng.integers(0, 100, (96, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    return datasets.Images((images[:64], labels[:64]), (images[64:], labels[64:]), 2, mirrored=True)


ROWS = {
    "float": Row(),
    "SAT W4A4": Row("sat", (4, 4), after="float"),
    "taught": Row("sat", (4, 4), after="float", teacher="float"),
    "by fit": Row("sat", (4, 4), after="float", plain=True),
    "phases": Row("qn", ("ternary", 2), after="float", phases=("weights", "activations", "both"), stages=1.5),
}
TABLE = Table("A table", "A claim.", "none", {"small": network}, ROWS, epochs=2, learning_rate=0.05, batch_size=16)


@pytest.fixture(scope="module")
def place(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("papers")
    found = Place(folder / "results", folder / "weights", epochs=2)
    for name in ROWS:
        train(TABLE, name, found, 0, data)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_and_is_written(name, place):
    result = results.read(place.result(name, 0))
    count = round(2 * ROWS[name].stages)
    assert result["epochs"] == count == len(result["loss"]) == len(result["seconds"])
    assert result["accuracy"].keys() == {str(count)}
    assert np.isfinite(result["loss"]).all()
    if ROWS[name].teacher is None:
        assert result["accuracy"][str(count)] > 0.9, "bright and dark are told apart"


def test_what_has_ended_is_not_trained_again(place, data):
    before = place.result("taught", 0).stat().st_mtime_ns
    train(TABLE, "taught", place, 0, data)
    assert place.result("taught", 0).stat().st_mtime_ns == before


def test_results_in_small_are_others(place):
    small = dataclasses.replace(place, images=32)
    assert small.result("float", 0) != place.result("float", 0)
    assert not fnmatch.fnmatch(small.result("float", 0).name, place.result("float", "*").name)


def test_a_row_in_small_starts_from_a_run_in_full(place, data):
    small = dataclasses.replace(place, epochs=1, after=2)
    train(TABLE, "taught", small, 0, data)
    start = results.read(small.result("taught", 0))["start"]
    assert start == results.read(place.result("taught", 0))["start"] > 0.9
    assert sorted(run.after or 0 for run in place.runs()) == [0, 2]
    assert "--epochs=1 --after=2`" in page.text(TABLE, place) and "| taught | 2 + 1 |" in page.text(TABLE, place)
    with pytest.raises(FileNotFoundError, match="float_7_epochs_seed_0.h5: train that run first"):
        train(TABLE, "SAT W4A4", dataclasses.replace(place, epochs=1, after=7), 0, data)


def test_the_page_has_mean_and_deviation(tmp_path):
    found = Place(tmp_path, tmp_path, epochs=2)
    for seed, accuracy in enumerate((0.5, 0.7)):
        result = {"seed": seed, "epochs": 2, "accuracy": {"2": accuracy}, "start": 0.1, "card": "none"}
        results.write(found.result("SAT W4A4", seed), result)
    results.write(found.result("float", 0), {"seed": 0, "epochs": 2, "accuracy": {}, "start": 0.1, "card": "none"})
    text = page.text(TABLE, found)
    assert "| SAT W4A4 | 2 + 2 | 60.00 % ± 14.14 | 50.00, 70.00 | 10.00 | none |" in text
    assert "| float |" not in text, "it has not ended"


def test_the_page_keeps_the_runs_in_full_and_in_small_apart(tmp_path):
    full = Place(tmp_path, tmp_path, epochs=2)
    for found in (full, dataclasses.replace(full, epochs=1, images=32)):
        result = {"seed": 0, "epochs": found.epochs, "accuracy": {str(found.epochs): found.epochs / 4}}
        results.write(found.result("float", 0), result | {"start": 0.1, "card": "none"})
    command = f"`python -m benchmarks.papers --table={tmp_path.name}"
    in_full, in_small = page.text(TABLE, full).split(f"{command} --epochs=1 --images=32`")
    assert f"{command}`" in in_full
    assert "| float | 2 | 50.00 %" in in_full
    assert "| float | 1 | 25.00 %" in in_small


@pytest.mark.parametrize("name", ["SAT W4A4", "phases"])
def test_files_of_rows(name, place, data):
    model = trained_model(TABLE, name, place, 0, data.classes)
    found = files.measure(model, data.test, images=8)
    assert found["differing"] == {"xnnpack": 0, "reference": 0}
    assert found["integers"] > 8 * 2
    assert found["accuracy"] == pytest.approx(found["keras_accuracy"], abs=1 / 32)


def test_compiled_epochs_are_repeated_exactly(data):
    losses = []
    for _ in range(2):
        tf_keras.utils.set_random_seed(3)
        model = network(2)
        trainer = CompiledEpochs(model, optimizers.sgd(model, 0.05, 8, 1e-4), with_labels, data.train, 16)
        losses.append([trainer.train(0, epoch) for epoch in range(2)])
    np.testing.assert_array_equal(*losses)
    assert losses[0][1] < losses[0][0]


def test_images_are_moved_by_up_to_four_pixels_and_mirrored():
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
    found = moved(tf.constant(images), tf.constant([1, 2])).numpy()
    places = set()
    for image, result in zip(images, found, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), constant_values=128)
        ways = {
            (down, right, mirror): padded[down : down + 6, right : right + 5][:, :: -1 if mirror else 1]
            for down in range(9)
            for right in range(9)
            for mirror in (False, True)
        }
        (way,) = (way for way, expected in ways.items() if (expected == result).all())
        places.add(way)
    assert len(places) > 20
    assert {mirror for *_, mirror in places} == {False, True}


@pytest.mark.parametrize("name", TABLES)
def test_rows_name_rows_that_there_are(name):
    rows = TABLES[name].rows
    for row in rows.values():
        assert {row.after, row.teacher} - {None} <= rows.keys()
        assert row.network is None or row.network in TABLES[name].networks


def test_costs_are_ratios_to_float():
    found = cost.measure("ResNet-20", ["float"], images=128, rounds=1)
    assert found["float"]["milliseconds"] > 0
    found["SAT W4A4"] = {"milliseconds": 1.5 * found["float"]["milliseconds"], "peak_mib": None}
    here = {"machine": "here", "card": "none", "images": 128, "rounds": 1, "networks": {"ResNet-20": found}}
    text = cost.table({"machines": [here]})
    assert "| ResNet-20 | SAT W4A4 |" in text
    assert "| 1.50 |  | here |" in text
