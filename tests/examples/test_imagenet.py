"""The ImageNet program, on images that tensorflow-datasets makes up."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from examples import imagenet_data

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import tensorflow_datasets as tfds
from absl import app
from examples import imagenet
with tfds.testing.mock_data(num_examples=16):
    app.run(imagenet.main)
"""


def run(folder, *flags):
    """Two steps of every stage on small images; what the program prints."""
    small = ("--image_size=32", "--batch_size=4", "--epochs=1", "--steps=2", "--test_steps=2", "--verify_images=4")
    command = [sys.executable, "-c", SCRIPT, f"--output={folder}", *small, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "stages"),
    [
        (["--network=mobilenet_v1", "--precision=mixed_bfloat16"], ["clamped", "quantized"]),
        (["--network=mobilenet_v2", "--precision=mixed_float16"], ["clamped", "quantized"]),
        (["--network=resnet50"], ["clamped", "quantized"]),
        (["--network=resnet18"], ["float", "weights", "activations", "both"]),
    ],
    ids=lambda value: value[0].removeprefix("--network="),
)
def test_every_recipe_makes_a_file_that_equals_its_twin(flags, stages, tmp_path):
    printed = run(tmp_path, *flags)
    assert re.findall("=== (.*)", printed) == stages
    assert re.search(r"integers that differ between file and twin: 0$", printed.strip())
    assert (tmp_path / "model.tflite").stat().st_size > 1_000_000
    assert {path.stem for path in tmp_path.glob("*.keras")} == set(stages)
    if "mobilenet_v1" in flags[0]:  # what is done is not done again
        again = run(tmp_path, *flags)
        assert re.findall("=== (.*)", again) == [f"{stage}: done before" for stage in stages]
        assert again.strip().splitlines()[-1] == printed.strip().splitlines()[-1]


def test_the_pipeline_makes_batches_of_pixels():
    with tfds.testing.mock_data(num_examples=8):
        images, labels = next(iter(imagenet_data.training_batches(None, 48, 4, seed=0)))
        assert images.shape == (4, 48, 48, 3) and labels.shape == (4,)
        assert 0 <= np.min(images) < 100 < np.max(images) <= 255
        found = list(imagenet_data.test_batches(None, 32, 3))
        assert [len(images) for images, _ in found] == [3, 3, 2]
        again = list(imagenet_data.test_batches(None, 32, 3))
        for (images, labels), (other, same) in zip(found, again, strict=True):
            np.testing.assert_array_equal(images, other)
            np.testing.assert_array_equal(labels, same)
        assert imagenet_data.images_per_second(imagenet_data.test_batches(None, 32, 2), steps=2) > 0
