"""Trains the rows of a table that are left, and writes its page.

    python -m benchmarks.papers --table=mobilenet_v2 --data_dir=DIR --seeds=0 --seeds=1 --seeds=2
    python -m benchmarks.papers --table=mobilenet_v2 --data_dir=DIR --epochs=1 --images=2000      # in small, on a CPU
    python -m benchmarks.papers --table=mobilenet_v2 --data_dir=DIR --epochs=2 --images=10000 --after=45

The last trains what starts from another row in small, from that row's weights of a run in full. Only rows that start
from another can be trained so.

On a GPU whole epochs are compiled. Every row and seed is a file in `docs/results/papers/`, written as its epochs end; a
row whose weights are there is not trained again. `data_dir` is tensorflow-datasets', or a folder of arrays:
`cifar100_train_x.npy` (uint8 images), `cifar100_train_y.npy`, and the same of `test`.
"""

import dataclasses
import fnmatch
import pathlib

import tensorflow as tf
from absl import app, flags

from benchmarks.papers import page
from benchmarks.papers.command import define_flags, load, place_of
from benchmarks.papers.rows import train
from benchmarks.papers.tables import TABLES

FLAGS = flags.FLAGS


def main(argv) -> None:
    """Trains what is left of a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    for card in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(card, True)
    table = TABLES[FLAGS.table]
    data, place = load(table.dataset, FLAGS.data_dir), place_of(table)
    if FLAGS.images:
        images, labels = data.train
        data = dataclasses.replace(data, train=(images[: FLAGS.images], labels[: FLAGS.images]))
    for seed in FLAGS.seeds:
        for pattern in FLAGS.only:
            for name in fnmatch.filter(table.rows, pattern):
                train(table, name, place, seed, data)
                pathlib.Path(f"{place.results}.md").write_text(page.text(table, place))
    print(page.text(table, place))


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_multi_integer("seeds", [0], "Of weights and shuffling.")
    app.run(main)
