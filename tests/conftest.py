"""Settings that every test shares."""

import hypothesis
import pytest
import tf_keras

# TensorFlow's first call of an operation is slow, which is no fault of an example.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seeded():
    tf_keras.utils.set_random_seed(0)
