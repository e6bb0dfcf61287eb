"""Runs pytest on the arguments, as `python -m pytest` does: the `main` that a Bazel py_test needs."""

import sys

import pytest

sys.exit(pytest.main(["--rootdir=.", "-p", "no:cacheprovider", *sys.argv[1:]]))
