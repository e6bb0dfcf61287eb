"""Settings that every test shares."""

import hypothesis
import pytest
import tf_keras

from benchmarks import judges
from benchmarks.judges import environments
from benchmarks.judges.table import ALL

# TensorFlow's first call of an operation is slow, which is no fault of an example.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seeded():
    tf_keras.utils.set_random_seed(0)


@pytest.fixture(
    params=[
        # TensorFlow starts slowly, each time anew.
        pytest.param(name, marks=[pytest.mark.judges] if judge.environment or name.startswith("tensorflow") else [])
        for name, judge in judges.JUDGES.items()
    ]
)
def judge(request):
    """Each judge's name. One that is absent fails the test, unless JUDGES_ABSENT names its environment."""
    environment = judges.JUDGES[request.param].environment
    if request.param in judges.missing() and environment in judges.may_be_absent():
        pytest.skip(f"the environment {environment} is absent, which JUDGES_ABSENT allows")
    return request.param


@pytest.fixture
def need():
    """A function from a judge's or tool's name; if it is absent, the test fails, or JUDGES_ABSENT excuses it."""

    def need(name):
        environment = ALL[name].environment
        if environment and not environments.is_made(environment) and environment in judges.may_be_absent():
            pytest.skip(f"the environment {environment} is absent, which JUDGES_ABSENT allows")
        environments.require(name)

    return need


@pytest.fixture
def ask(need):
    """`judges.ask`, of a tool that is needed."""

    def ask(name, *arguments, **options):
        need(name)
        return judges.ask(name, *arguments, **options)

    return ask
