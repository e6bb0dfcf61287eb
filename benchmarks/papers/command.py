"""What the commands of `benchmarks.papers` share: their flags, the data, and where results are."""

import pathlib

import numpy as np
from absl import flags

from benchmarks import results
from benchmarks.papers.rows import Place, Table
from benchmarks.papers.tables import TABLES
from examples import datasets

FLAGS = flags.FLAGS
CLASSES = {"cifar10": 10, "cifar100": 100}


def load(name: str, folder: str) -> datasets.Images:
    """A data set, as tensorflow-datasets prepared it or from arrays."""
    path = pathlib.Path(folder)
    if not (path / f"{name}_train_x.npy").exists():
        return datasets.load(name, folder)
    training, test = (
        (np.load(path / f"{name}_{split}_x.npy"), np.load(path / f"{name}_{split}_y.npy"))
        for split in ("train", "test")
    )
    return datasets.Images(training, test, CLASSES[name], mirrored=True)


def place_of(table: Table) -> Place:
    """Where the flags put a table's results."""
    folder = results.FOLDER / "papers" / FLAGS.table
    weights = pathlib.Path(FLAGS.output) / FLAGS.table
    return Place(folder, weights, FLAGS.epochs or table.epochs, FLAGS.images, FLAGS.after)


def define_flags() -> None:
    """Those that say which table, which rows and where."""
    flags.DEFINE_enum("table", None, sorted(TABLES), "Which.", required=True)
    flags.DEFINE_string("data_dir", None, "Where the data set is.", required=True)
    flags.DEFINE_integer("epochs", None, "Of a stage, instead of the table's.", 1)
    flags.DEFINE_integer("images", None, "How many training images, instead of all.", 1)
    flags.DEFINE_integer("after", None, "Start from the rows of a run of so many epochs on all images.", 1)
    flags.DEFINE_multi_string("only", ["*"], "Pattern of rows; one after another.")
    flags.DEFINE_string("output", "runs/papers", "Folder of the weights.")
