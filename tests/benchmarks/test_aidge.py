"""SAT here and in Aidge: what both are given, and the page of what was found."""

import pathlib

import numpy as np
import pytest
import tf_keras

from benchmarks import results
from benchmarks.judges import environments
from benchmarks.papers.aidge import page
from benchmarks.papers.aidge.__main__ import RESULTS, train_in_turns, turns
from benchmarks.papers.aidge.network import images_for_aidge, residual_network, weights_for_aidge
from benchmarks.papers.aidge.trainers import Aidge, Keras


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 8, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, (4, 8))


def test_the_page_is_made_of_the_results():
    found = results.read(RESULTS.with_suffix(".json"))
    assert RESULTS.with_suffix(".md").read_text() == page.text(found)


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    train = np.arange(640), np.arange(640) % 10
    shown = list(turns(train, 2, seed=0))
    assert [images.shape for images, _ in shown] == [(8, 32), (8, 32), (4, 32)] * 2
    first, second = (np.concatenate([images.ravel() for images, _ in shown[start : start + 3]]) for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(640))
    assert (first != second).any()
    assert all((labels == images % 10).all() for images, labels in shown)


def test_trainers_take_turns_on_the_same_batches():
    class Recorder:
        def __init__(self, name):
            self.name = name

        def train(self, images, labels):
            asked.append((self.name, images.tobytes()))
            return {"loss": [2.0, 4.0], "seconds": [1.0, 5.0], "processor_seconds": [0.5, 1.5]}

    asked = []
    recorders = {name: Recorder(name) for name in ("one", "other")}
    found = train_in_turns(recorders, (np.arange(512), np.arange(512)), 1, seed=0)
    assert [name for name, _ in asked] == ["one", "other"] * 2
    assert asked[0][1] == asked[1][1] != asked[2][1]
    expected = {"seconds": {"fastest": 1.0, "median": 3.0}, "processor_seconds": {"fastest": 0.5, "median": 1.0}}
    assert found["one"] == found["other"] == {"loss": [3.0, 3.0], **expected}


def test_weights_and_images_are_laid_out_for_aidge(batches):
    model = residual_network(10)
    arrays, images = weights_for_aidge(model), images_for_aidge(batches[0][0])
    assert images.shape == (8, 3, 32, 32)
    assert images.max() <= 1
    # The stem's first position, padded below and on the right alone, by hand.
    stem = tf_keras.Model(model.input, model.get_layer("stem").output)(batches[0][0]).numpy()
    by_hand = np.einsum("nchw,ochw->no", images[:, :, :3, :3], arrays["stem_w"])
    np.testing.assert_allclose(stem[:, 0, 0], by_hand, rtol=1e-4, atol=1e-5)
    last = tf_keras.Model(model.input, model.get_layer("flat").input)(batches[0][0]).numpy()
    flat = last.transpose(0, 3, 1, 2).reshape(8, -1)
    expected = model(batches[0][0]).numpy()
    np.testing.assert_allclose(flat @ arrays["logits_w"].T + arrays["logits_b"], expected, rtol=1e-4, atol=1e-5)


def test_without_its_environment_aidge_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    with pytest.raises(environments.MissingJudgeError, match="python -m benchmarks.judges.install aidge"):
        Aidge(residual_network(10))


def test_make_judges_leaves_aidge_out():
    assert "aidge" not in environments.ENVIRONMENTS
    assert pathlib.Path(environments.requirements("aidge")).exists()


@pytest.mark.judges
def test_float_training_is_the_same(batches):
    if not environments.is_made("aidge"):
        pytest.skip("python -m benchmarks.judges.install aidge makes the environment")
    model = residual_network(10)
    ours = Keras(model, 0.01, steps=10**6)
    with Aidge(model) as aidge:
        aidge.ask("start", learning_rate=0.01, steps=10**6)
        losses = [trainer.train(*batches)["loss"] for trainer in (aidge, ours)]
        np.testing.assert_allclose(*losses, atol=1e-4)
        after = aidge.logits(batches[0][:1])[0]
    np.testing.assert_allclose(after, model.predict(batches[0][0], verbose=0), atol=1e-4)
    assert abs(losses[0][0] - losses[0][-1]) > 1e-3, "it trains"


@pytest.mark.judges
def test_aidge_trains_sixteen_levels(batches):
    if not environments.is_made("aidge"):
        pytest.skip("python -m benchmarks.judges.install aidge makes the environment")
    with Aidge(residual_network(10)) as aidge:
        aidge.ask("clamp")
        aidge.ask("quantize", bits=4)
        aidge.ask("start", learning_rate=0.01, steps=4)
        aidge.train(*batches)
        found = aidge.ask("weights")
        assert max(found["levels"]) == 16
        assert found["nodes"].count("DoReFa") == found["nodes"].count("TanhClamp") == 10
