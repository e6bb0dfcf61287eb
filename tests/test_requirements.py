"""What setup.py asks for is pinned in the locks, at versions that it takes."""

import pathlib
import runpy
import sys
from unittest import mock

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def asked():
    """The arguments of setup()."""
    with mock.patch("setuptools.setup") as setup, mock.patch.object(sys, "argv", ["setup.py"]):
        runpy.run_path(str(ROOT / "setup.py"))
    return setup.call_args.kwargs


def pins(lock):
    lines = [line.partition("==") for line in (ROOT / lock).read_text().splitlines() if line[:1].isalnum()]
    return {canonicalize_name(name): version for name, _, version in lines}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ["examples", "datasets", "dev"]), ("requirements-docs.lock", ["docs"])],
)
def test_every_requirement_is_locked(asked, lock, extras):
    locked, found = pins(lock), [*(asked["install_requires"] if lock == "requirements.lock" else [])]
    for extra in extras:
        found += asked["extras_require"][extra]
    for requirement in map(Requirement, found):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_every_extra_is_in_a_lock(asked):
    assert set(asked["extras_require"]) == {"examples", "datasets", "docs", "dev"}
