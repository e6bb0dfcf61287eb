"""What a network answers: the largest of its outputs, or on which side of its threshold a single one lies."""

import numpy as np

from tflite_export.plan import Tensor


class Answers:
    """The answers of several computations of one output, collected batch by batch.

    Args:
      output: the tensor of the plan that answers.
      labels: the right answers, (n,): class numbers; for a single output 0 or 1. None if they are not known.

    Attributes:
      kind: what is compared, in words.
    """

    def __init__(self, output: Tensor, labels: np.ndarray | None):
        self.output = output
        self.labels = labels
        self._found: dict[str, list[np.ndarray]] = {}
        self._is_single = int(np.prod(output.shape)) == 1
        is_probability = output.scale == np.float32(1 / 256) and output.zero_point == -128
        self._threshold = 0.5 if is_probability else 0.0
        self.kind = f"side of the threshold {self._threshold:g}" if self._is_single else "largest output"

    def add(self, name: str, values: np.ndarray, real: bool = False) -> None:
        """Adds a batch: int8 values (n, ...), or real ones."""
        flat = values.reshape(len(values), -1)
        if not self._is_single:
            answers = flat.argmax(-1)
        else:
            numbers = flat[:, 0] if real else (flat[:, 0] - self.output.zero_point) * float(self.output.scale)
            answers = (numbers > self._threshold).astype(np.int64)
        self._found.setdefault(name, []).append(answers)

    def agreement(self, one: str, other: str) -> float:
        """The share of images with the same answer."""
        return float(np.mean(self._all(one) == self._all(other)))

    def accuracy(self, name: str) -> float | None:
        """The share of images with the right answer; None without labels."""
        return None if self.labels is None else float(np.mean(self._all(name) == np.ravel(self.labels)))

    def _all(self, name: str) -> np.ndarray:
        return np.concatenate(self._found[name])
