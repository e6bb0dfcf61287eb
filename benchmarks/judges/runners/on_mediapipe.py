"""MediaPipe's ImageClassifier and ImageEmbedder, as an app calls them.

    python on_mediapipe.py FILE.tflite INPUTS.npz ANSWERS.json [--task=embedder]

INPUTS.npz has `arr_0`: images, uint8 (images, height, width, 3). ANSWERS.json gets for each image its categories by
score, [[index, name, score], ...], or its embedding as a list of numbers.
"""

import argparse
import json
import pathlib

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def classify(options, images):
    """The categories of each image, the likeliest first."""
    with vision.ImageClassifier.create_from_options(vision.ImageClassifierOptions(base_options=options)) as task:
        results = [task.classify(image).classifications[0].categories for image in images]
    return [[[one.index, one.category_name, one.score] for one in categories] for categories in results]


def embed(options, images):
    """The embedding of each image, dequantized."""
    with vision.ImageEmbedder.create_from_options(vision.ImageEmbedderOptions(base_options=options)) as task:
        results = [task.embed(image).embeddings[0].embedding for image in images]
    return [np.asarray(result, np.float64).tolist() for result in results]


TASKS = {"classifier": classify, "embedder": embed}


def main():
    """Runs what the command line says."""
    parser = argparse.ArgumentParser()
    for name in ("file", "inputs", "answers"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--task", choices=TASKS, default="classifier")
    arguments = parser.parse_args()
    with np.load(arguments.inputs) as archive:
        pixels = archive["arr_0"]
    images = [mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image)) for image in pixels]
    options = BaseOptions(model_asset_buffer=arguments.file.read_bytes())
    arguments.answers.write_text(json.dumps(TASKS[arguments.task](options, images)))


if __name__ == "__main__":
    main()
