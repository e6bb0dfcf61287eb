"""The wheel: what is in it, and that it works where nothing of the repository is at hand."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = "satkeras", "tflite_export"
SCRIPT = """
    import pathlib, sys
    import numpy as np
    import tf_keras as keras
    import satkeras, tflite_export

    environment = pathlib.Path(sys.prefix)
    assert environment in pathlib.Path(satkeras.__file__).parents, satkeras.__file__
    assert environment in pathlib.Path(tflite_export.__file__).parents, tflite_export.__file__
    for absent in ("examples", "benchmarks", "tests"):
        try:
            __import__(absent)
        except ImportError:
            continue
        raise AssertionError(f"{absent} can be imported")
    images = np.random.default_rng(0).uniform(0, 255, (8, 6, 6, 1)).astype(np.float32)
    layers = [keras.layers.Conv2D(4, 3, input_shape=(6, 6, 1)), keras.layers.ReLU(), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    q = satkeras.quantize_model(model, calibration_data=images)
    print(tflite_export.export_tflite(q, "model.tflite", verify_data=images).verification.differing)
"""


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in (*PACKAGES, "examples", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder / "dist", ".", cwd=folder)
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_two_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    sources = {str(file.relative_to(ROOT)) for one in PACKAGES for file in (ROOT / one).rglob("*.py")}
    assert sources | {f"{one}/py.typed" for one in PACKAGES} == {name for name in names if ".dist-info/" not in name}


def test_it_works_from_another_folder(wheel, tmp_path):
    """In a new environment; what the wheel requires is taken from the one that runs the tests."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    run(sys.executable, *install, cwd=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "required.pth").write_text(sysconfig.get_path("purelib"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert run(python, "-c", textwrap.dedent(SCRIPT), cwd=folder).split()[-1] == "0"
    assert (folder / "model.tflite").exists()
    help_text = run(environment / "bin" / "satkeras", "--help", cwd=folder)
    assert "quantize" in help_text and "export" in help_text
