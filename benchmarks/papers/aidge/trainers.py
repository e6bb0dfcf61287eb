"""What trains the network by steps: satkeras here, and Aidge in a process of its own environment."""

import json
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import tf_keras as keras

from benchmarks.judges import environments
from benchmarks.judges.running import RUNNERS, JudgeError
from benchmarks.papers.aidge.network import images_for_aidge, weights_for_aidge

MOMENTUM = 0.9
ANSWER = "ANSWER "


class Keras:
    """Trains a Keras model.

    Args:
      model: from images 0 .. 255 to logits.
      learning_rate: at the first step; along a cosine to 0.
      steps: how many the cosine takes.
    """

    def __init__(self, model: keras.Model, learning_rate: float, steps: int):
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        model.compile(
            keras.optimizers.SGD(schedule, momentum=MOMENTUM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self._model = model

    def train(self, images: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
        """One step for each batch: uint8 images (batches, n, height, width, channels), labels (batches, n).

        Returns:
          Of each the `loss`, the `seconds`, and the `processor_seconds` of all threads.
        """
        found = {"loss": [], "seconds": [], "processor_seconds": []}
        for batch, answers in zip(images, labels, strict=True):
            start, begun = time.perf_counter(), time.process_time()
            found["loss"].append(float(self._model.train_on_batch(batch.astype(np.float32), answers)))
            found["seconds"].append(time.perf_counter() - start)
            found["processor_seconds"].append(time.process_time() - begun)
        return found


class Aidge:
    """Aidge in a process of its own; ends with it. See `judges/runners/on_aidge.py` for what it does.

    Args:
      model: `residual_network`, whose weights it starts from.

    Raises:
      MissingJudgeError: its environment has not been made.
    """

    def __init__(self, model: keras.Model):
        environments.require("aidge")
        self._folder = tempfile.TemporaryDirectory()
        np.savez(pathlib.Path(self._folder.name) / "weights.npz", **weights_for_aidge(model))
        command = [environments.python("aidge"), RUNNERS / "on_aidge.py", f"{self._folder.name}/weights.npz"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environments.variables("aidge")
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()
        self._folder.cleanup()

    def ask(self, do: str, **arguments):
        """What one of its commands answers.

        Raises:
          JudgeError: if it ends instead.
        """
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise JudgeError(f"Aidge must answer {do!r}. Received: its end, with status {self._process.wait()}")

    def train(self, images: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
        """As `Keras.train`."""
        return self.ask("train", path=self._file(images, labels))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 batches (batches, n, height, width, channels)."""
        return np.array(self.ask("answers", path=self._file(images, np.zeros(0))), np.float32)

    def _file(self, images: np.ndarray, labels: np.ndarray) -> str:
        path = f"{self._folder.name}/batches.npz"
        np.savez(path, images=images_for_aidge(images), labels=labels)
        return path
