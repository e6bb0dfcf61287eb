"""Settings that every test shares."""

import collections
import zlib

import hypothesis
import pytest
import tf_keras

from benchmarks import judges
from benchmarks.judges import environments
from benchmarks.judges.table import ALL

# TensorFlow's first call of an operation is slow, which is no fault of an example.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items):
    """Leaves all but one in `n` of the sets of parameters of a test marked `thinned(n)` to the nightly run.

    Which ones stay is drawn by their names, so that no value of one parameter always goes with one of another.
    """
    sets = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("thinned"):
            sets[item.path, item.originalname].append(item)
    for same in sets.values():
        (n,) = same[0].get_closest_marker("thinned").args
        drawn = sorted(same, key=lambda item: zlib.crc32(item.name.encode()))
        for item in drawn[-(-len(drawn) // n) :]:
            item.add_marker(pytest.mark.slow)


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
