"""The report of a training run: one HTML page with its plots, and a table for the terminal."""

import base64
import io
import pathlib

import jinja2
import matplotlib
import matplotlib.figure
import matplotlib.ticker

TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
COLUMNS = ("network", "Keras", "file", "agree", "bytes", "differing integers", "ms/image")


def rows(outcomes) -> list[tuple[str, ...]]:
    """The table's cells, one row for each outcome."""
    return [
        (
            outcome.name,
            f"{outcome.keras_accuracy:.2%}",
            f"{outcome.file_accuracy:.2%}",
            "" if outcome.agreement is None else f"{outcome.agreement:.2%}",
            f"{outcome.file_bytes:,}",
            "" if outcome.differing is None else f"{outcome.differing:,} of {outcome.compared:,}",
            f"{outcome.milliseconds:.3f}",
        )
        for outcome in outcomes
    ]


def summary(outcomes) -> str:
    """The table as plain text."""
    lines = [COLUMNS, *rows(outcomes)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def write(folder: pathlib.Path, dataset: str, network: str, outcomes) -> None:
    """Writes `index.html` into a folder; it needs no other file."""
    last = outcomes[-1]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(TEMPLATE.read_text()).render(
        dataset=dataset,
        network=network,
        columns=COLUMNS,
        rows=rows(outcomes),
        plots=[
            ("Test accuracy after each epoch", _accuracy_plot(outcomes)),
            (f"Clip value α of each layer, {last.name}", _alpha_plot(last.alphas)),
            *((f"Weights on their integer grid, {o.name}", _weights_plot(o.weights)) for o in outcomes if o.weights),
        ],
    )
    (folder / "index.html").write_text(html)


def _accuracy_plot(outcomes) -> str:
    figure, axes = _figure(7, 3.4)
    for outcome in outcomes:
        axes.plot(
            range(1, len(outcome.history) + 1), [100 * a for a in outcome.history], marker="o", label=outcome.name
        )
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend()
    return _embedded(figure)


def _alpha_plot(alphas: dict[str, list[float]]) -> str:
    figure, axes = _figure(7, 0.28 * len(alphas) + 1.2)
    names = list(alphas)
    axes.barh(names, [alphas[name][-1] for name in names], color="tab:blue")
    axes.plot([alphas[name][0] for name in names], names, "k|", markersize=9, label="before training")
    axes.invert_yaxis()
    axes.set_xlabel("α after training, in units of the tensor")
    axes.legend()
    return _embedded(figure)


def _weights_plot(weights: dict[str, dict[int, int]]) -> str:
    figure = matplotlib.figure.Figure(figsize=(9, 4.6), layout="constrained")
    for axes, (layer, counts) in zip(figure.subplots(2, 3).flat, weights.items(), strict=False):
        axes.bar(list(counts), list(counts.values()), width=0.9 if len(counts) < 40 else 1.0)
        axes.set_title(layer, fontsize=9)
        if len(counts) <= 16:
            axes.set_xticks(list(counts))
        axes.tick_params(labelsize=6)
    return _embedded(figure)


def _figure(width: float, height: float):
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _embedded(figure) -> str:
    """The figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
