"""The example program from end to end, as a user runs it."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests.browser import looked_at

ROOT = pathlib.Path(__file__).parents[2]


def train(folder, *flags):
    """Runs the program; returns its results and the verifications of its files, by width."""
    command = [sys.executable, "-m", "examples.train", f"--output={folder}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "results.json").read_text())["outcomes"]
    reports = {path.stem[5:6]: json.loads(path.read_text()) for path in folder.glob("sat_w?a?.json")}
    return done.stdout, results, {int(width): report["verification"] for width, report in reports.items()}


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """Its folder, and what `train` gives."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(folder, "--dataset=digits", "--epochs=2", "--bits=4", "--verify_images=50")


def test_a_short_run_makes_files_that_equal_their_twins_and_a_page(short_run):
    folder, (printed, results, verified) = short_run
    assert [result["name"] for result in results] == ["float", "converter's int8", "SAT W4A4", "SAT W4A4, packed"]
    plain, packed = results[2:]
    assert (plain["differing"], packed["differing"]) == (0, 0)
    assert plain["compared"] == sum(tensor["elements"] for tensor in verified[4]["tensors"]) > 1_000_000
    assert (folder / "sat_w4a4.tflite").stat().st_size == plain["file_bytes"]
    assert packed["weight_bytes"] < plain["weight_bytes"] and packed["file_bytes"] < plain["file_bytes"]
    assert (folder / "micro" / "sat_w4a4.tflite").stat().st_size == plain["micro_bytes"] < plain["file_bytes"]
    alphas = [row["alphas"] for row in plain["rows"] if row["alphas"]]
    assert alphas and all(0 < start < 8 and epochs for start, *epochs in alphas)
    assert any(start != last for start, *_, last in alphas)
    page = (folder / "index.html").read_text()
    assert page.count("<details") == 2 and "SAT W4A4, packed" in page
    assert "SAT W4A4, packed" in printed.splitlines()[-3]


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window_and_says_nothing_to_the_console(short_run, tmp_path, width):
    size, console = looked_at(short_run[0] / "index.html", width, tmp_path)
    assert size["content"] <= size["width"] <= width and not size["beyond"]
    assert not console


def test_the_page_needs_no_other_file(short_run):
    page = (short_run[0] / "index.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mobilenet_v2", "resnet20"])
def test_trained_networks_and_their_files_agree(tmp_path, network):
    widths = (8, 4, 3, 2)
    recipe = "--epochs=5", "--batch_size=64", "--learning_rate=0.05"
    _, results, verified = train(
        tmp_path, f"--network={network}", *recipe, "--verify_images=1000", *(f"--bits={width}" for width in widths)
    )
    # The float network and the converter's have no twin; 4 bits have a packed file as well.
    assert [outcome["differing"] for outcome in results[2:]] == [0] * (len(widths) + 1)
    for width in widths:
        tensors = verified[width]["tensors"]
        assert max(tensor["file_differs"] for tensor in tensors) == 0
        compared = [tensor for tensor in tensors if tensor["layer_differs"] is not None]
        # Below 4 bits a layer's sums have so few values that one of them on a tie is some 1e-4 of the layer by itself.
        limit = 1e-4 if width >= 4 else 1e-3
        assert max(tensor["layer_differs"] / tensor["elements"] for tensor in compared) <= limit
    assert min(verified[width]["top1_agreement"] for width in (8, 4)) >= 0.995
