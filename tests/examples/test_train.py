"""The example program from end to end, as a user runs it."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def train(folder, *flags):
    """Runs the program; returns its results and the verifications of its files, by width."""
    command = [sys.executable, "-m", "examples.train", f"--output={folder}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "results.json").read_text())["outcomes"]
    reports = {path.stem.split("_w")[1][0]: json.loads(path.read_text()) for path in folder.glob("sat_w*.json")}
    return done.stdout, results, {int(width): report["verification"] for width, report in reports.items()}


def test_a_short_run_makes_files_that_equal_their_twins_and_a_page(tmp_path):
    printed, results, verified = train(tmp_path, "--dataset=digits", "--epochs=2", "--bits=4", "--verify_images=50")
    assert [outcome["name"] for outcome in results] == ["float", "SAT W4A4"]
    assert results[1]["differing"] == 0
    assert results[1]["compared"] == sum(tensor["elements"] for tensor in verified[4]["tensors"]) > 1_000_000
    assert (tmp_path / "sat_w4a4.tflite").stat().st_size == results[1]["file_bytes"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "SAT W4A4" in page and "SAT W4A4" in printed.splitlines()[-3]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet20"])
def test_trained_networks_and_their_files_agree(tmp_path, network):
    widths = (8, 4, 3, 2)
    recipe = "--epochs=5", "--batch_size=64", "--learning_rate=0.05"
    _, results, verified = train(
        tmp_path, f"--network={network}", *recipe, "--verify_images=1000", *(f"--bits={width}" for width in widths)
    )
    assert [outcome["differing"] for outcome in results[1:]] == [0] * len(widths)
    for width in widths:
        tensors = verified[width]["tensors"]
        assert max(tensor["file_differs"] for tensor in tensors) == 0
        compared = [tensor for tensor in tensors if tensor["layer_differs"] is not None]
        # Below 4 bits a layer's sums have so few values that one of them on a tie is some 1e-4 of the layer by itself.
        limit = 1e-4 if width >= 4 else 1e-3
        assert max(tensor["layer_differs"] / tensor["elements"] for tensor in compared) <= limit
    assert min(verified[width]["top1_agreement"] for width in (8, 4)) >= 0.995
