"""The notebooks, executed as a reader would, and what they import."""

import ast
import pathlib

import pytest

import satkeras
import satkeras.quantizers
import tflite_export

jupytext = pytest.importorskip("jupytext", reason="the packages of the extra [examples] execute notebooks")
nbclient = pytest.importorskip("nbclient", reason="the packages of the extra [examples] execute notebooks")

NOTEBOOKS = sorted(pathlib.Path("examples/notebooks").glob("*.py"))
PUBLIC = {"satkeras": satkeras, "satkeras.quantizers": satkeras.quantizers, "tflite_export": tflite_export}


def named(notebooks):
    return [pytest.param(notebook, id=notebook.stem) for notebook in notebooks]


@pytest.mark.parametrize("notebook", named(NOTEBOOKS))
def test_every_cell_runs_and_no_integer_differs(notebook, tmp_path):
    content = jupytext.read(notebook)
    content.cells.append(jupytext.reads("# %%\nprint('differing', differing)", fmt="py:percent").cells[0])
    nbclient.NotebookClient(content, timeout=150, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert outputs[-1]["text"] == "differing 0\n"
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("notebook", named(NOTEBOOKS))
def test_the_public_interface_is_enough(notebook):
    tree = ast.parse(notebook.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] not in ("satkeras", "tflite_export", "examples", "benchmarks")
        if isinstance(node, ast.Import):
            ours = [name.name for name in node.names if name.name.startswith(("satkeras", "tflite_export", "examples"))]
            assert set(ours) <= set(PUBLIC)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in PUBLIC:
            assert node.attr in PUBLIC[ast.unparse(node.value)].__all__ or f"{ast.unparse(node)}" in PUBLIC


def test_there_are_three():
    assert len(NOTEBOOKS) == 3
