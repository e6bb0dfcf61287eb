"""What is kept of a tensor that passes by in batches: a random sample with its extremes, and moments."""

import numpy as np
import tensorflow as tf

SIZE = 2**15  # values kept
PER_BATCH = 2**13  # values drawn from each batch


class Sample:
    """A random sample of a tensor's values over all batches and positions, and the smallest and largest value of all.

    Never a stride: that would fall on the same channels again and again.
    """

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seed)
        self._values = np.empty(0, np.float32)
        self._keys = np.empty(0)
        self._ends = (np.inf, -np.inf)

    def add(self, tensor) -> None:
        """Takes note of a batch of values, any shape."""
        self._ends = (
            min(self._ends[0], float(tf.reduce_min(tensor))),
            max(self._ends[1], float(tf.reduce_max(tensor))),
        )
        flat = np.asarray(tensor, np.float32).ravel()
        if flat.size > PER_BATCH:
            flat = flat[self._rng.integers(0, flat.size, PER_BATCH)]
        self._values = np.concatenate([self._values, flat])
        self._keys = np.concatenate([self._keys, self._rng.random(flat.size)])
        if self._keys.size > SIZE:  # those with the smallest keys are a random sample
            kept = np.argpartition(self._keys, SIZE)[:SIZE]
            self._values, self._keys = self._values[kept], self._keys[kept]

    @property
    def values(self) -> np.ndarray:
        """float32 (n,): the sample, the extremes of all values among it."""
        return np.concatenate([self._values, np.float32(self._ends)])


class Moments:
    """Mean and variance of each channel over all batches, in float64."""

    def __init__(self):
        self.count = 0
        self.mean = self._squares = np.float64(0)

    def add(self, mean: np.ndarray, variance: np.ndarray, count: int) -> None:
        """Takes note of a batch with that mean and variance of `count` values a channel."""
        total = self.count + count
        change = mean - self.mean
        self._squares = self._squares + variance * count + change**2 * (self.count * count / total)
        self.mean = self.mean + change * (count / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Of all values of a channel, about the mean of all."""
        return np.asarray(self._squares / self.count)


def moments_of(tensor) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean, variance and number of the values of each channel, the last axis, of one batch."""
    axes = list(range(len(tensor.shape) - 1))
    mean, variance = tf.nn.moments(tf.cast(tensor, tf.float64) if tf.size(tensor) < 2**20 else tensor, axes)
    return np.asarray(mean, np.float64), np.asarray(variance, np.float64), int(tf.size(tensor)) // int(tensor.shape[-1])
