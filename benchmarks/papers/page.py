"""A table's page: means and deviations of the seeds that there are, and what their files are found to do."""

import statistics

from benchmarks import results
from benchmarks.papers.rows import Place, Table

COLUMNS = ("", "epochs", "accuracy", "each seed", "before training", "card", "in the file (Keras)", "bytes", "differ")


def text(table: Table, place: Place) -> str:
    """The page of all results there are, a table for each number of epochs and images, in Markdown."""
    command = f"python -m benchmarks.papers --table={place.results.name}"
    tables = [
        f"`{command}{_in_small(table, run)}`:\n\n{results.table(COLUMNS, rows)}"
        for run in place.runs()
        if (rows := _rows(table, run))
    ]
    return "\n".join(
        [
            f"# {table.title}\n\n{table.claim}\n\nSGD with Nesterov momentum, cosine from {table.learning_rate:g} to 0 "
            f"in every stage, batch {table.batch_size}, weight decay {table.weight_decay:g}, shifts and mirror images; "
            "accuracy on the 10,000 test images after the last epoch, with the deviation of the seeds where there are "
            "several. *Differ*: integers of any tensor, in LiteRT's default or its reference kernels, that differ from "
            "their twin's (`benchmarks.papers.files`); the file of a float network is the converter's int8 one. A GPU "
            "trains in TF32, TensorFlow's default; the accuracies so far were measured on the card in TF32, too, where "
            "a quantized network's may be 0.3 points off, later ones in float32. In brackets beside a file's is "
            f"Keras's on a CPU.\n\n{table.findings}\n",
            *tables,
        ]
    )


def _in_small(table: Table, place: Place) -> str:
    """The flags of a run that is not the table's own."""
    epochs = f" --epochs={place.epochs}" if place.epochs != table.epochs else ""
    images = f" --images={place.images}" if place.images else ""
    return epochs + images + (f" --after={place.after}" if place.after else "")


def _rows(table: Table, place: Place) -> list[tuple[str, ...]]:
    rows = []
    for name, row in table.rows.items():
        found = [results.read(path) for path in sorted(place.results.glob(place.result(name, "*").name))]
        found = [result for result in found if result and str(result["epochs"]) in result["accuracy"]]
        if not found:
            continue
        last = [100 * result["accuracy"][str(result["epochs"])] for result in found]
        before = f"{round(table.rows[row.after].stages * place.before.epochs)} + " if row.after else ""
        rows.append(
            (
                name,
                f"{before}{found[0]['epochs']}",
                f"{statistics.mean(last):.2f} %" + (f" ± {statistics.stdev(last):.2f}" if len(last) > 1 else ""),
                ", ".join(f"{accuracy:.2f}" for accuracy in last),
                f"{100 * found[0]['start']:.2f}" if found[0]["start"] is not None else "",
                ", ".join(sorted({result["card"] for result in found})),
                *_of_files([result["file"] for result in found if "file" in result]),
            )
        )
    return rows


def _of_files(files: list[dict]) -> tuple[str, str, str]:
    """Accuracy, bytes and differing integers of a row's files; empty for a row without."""
    if not files:
        return "", "", ""
    accuracies = ", ".join(f"{100 * file['accuracy']:.2f} ({100 * file['keras_accuracy']:.2f})" for file in files)
    return accuracies, f"{files[0]['bytes']:,}", differing(files)


def differing(files: list[dict]) -> str:
    """How many integers differ, of how many: of what `benchmarks.papers.files.measure` found."""
    differ = sum(count for file in files for count in file["differing"].values())
    compared = sum(file["integers"] * len(file["differing"]) for file in files)
    return f"{differ:,} of {compared:,}" if compared else ""
