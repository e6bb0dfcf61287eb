"""The report of a training run: one HTML page with its plots, and a table for the terminal."""

import base64
import io
import pathlib

import jinja2
import markupsafe
import matplotlib.figure
import matplotlib.ticker

TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
_WIDTH, _HEIGHT = 120, 32  # of a small picture, in pixels


def columns(outcomes) -> dict[str, list[str]]:
    """The table's cells, column by column; one that is empty in every row is left out."""
    cells = {
        "network": [outcome.name for outcome in outcomes],
        "in Keras": [_share(outcome.keras_accuracy) for outcome in outcomes],
        "in the file": [_share(outcome.file_accuracy) for outcome in outcomes],
        "same as float": [_share(outcome.same_as_float) for outcome in outcomes],
        "file, bytes": [_count(outcome.file_bytes) for outcome in outcomes],
        "of them weights": [_count(outcome.weight_bytes) for outcome in outcomes],
        "on a micro": [_count(outcome.micro_bytes) for outcome in outcomes],
        "weights on an NPU": [_count(outcome.npu_bytes) for outcome in outcomes],
        "ms/image": [f"{outcome.milliseconds:.3f}" for outcome in outcomes],
        "integers that differ": [
            "" if outcome.differing is None else f"{outcome.differing:,} of {outcome.compared:,}"
            for outcome in outcomes
        ],
    }
    return {head: column for head, column in cells.items() if any(column)}


def summary(outcomes) -> str:
    """The table as plain text."""
    found = columns(outcomes)
    widths = [max(map(len, (head, *column))) for head, column in found.items()]
    lines = [tuple(found), *zip(*found.values(), strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def write(folder: pathlib.Path, dataset: str, network: str, outcomes) -> None:
    """Writes `index.html` into a folder; it needs no other file."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(share=_share, bars=bars, curve=curve, count=_count)
    found = columns(outcomes)
    html = environment.from_string(TEMPLATE.read_text()).render(
        dataset=dataset,
        network=network,
        heads=list(found),
        rows=list(zip(*found.values(), strict=True)),
        has_npu="weights on an NPU" in found,
        accuracies=_accuracy_plot(outcomes),
        outcomes=[outcome for outcome in outcomes if outcome.rows],
    )
    (folder / "index.html").write_text(html)


def bars(counts: dict[int, int]) -> markupsafe.Markup:
    """A histogram of integers as a small picture, a bar for each level, the first and the last level below it."""
    highest, width = max(counts.values()) or 1, _WIDTH / len(counts)
    shapes = "".join(
        f'<rect x="{place * width:.2f}" y="{_HEIGHT * (1 - count / highest):.2f}" width="{0.85 * width:.2f}" '
        f'height="{_HEIGHT * count / highest:.2f}"/>'
        for place, count in enumerate(counts.values())
        if count
    )
    low, high = min(counts), max(counts)
    return _picture(shapes, f"{len(counts)} levels, {low} to {high}", str(low), str(high))


def curve(values: list[float]) -> markupsafe.Markup:
    """A value epoch by epoch as a small picture, the first and the last one below it."""
    low, high = min(values), max(values)
    spread, step = high - low or 1.0, _WIDTH / max(len(values) - 1, 1)
    points = " ".join(
        f"{place * step:.2f},{2 + (_HEIGHT - 4) * (1 - (value - low) / spread):.2f}"
        for place, value in enumerate(values)
    )
    first, last = f"{values[0]:.4g}", f"{values[-1]:.4g}"
    return _picture(f'<polyline points="{points}"/>', f"from {first} to {last}", first, last)


def _picture(shapes: str, title: str, first: str, last: str) -> markupsafe.Markup:
    return markupsafe.Markup(
        f'<span class="picture"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{shapes}</svg>'
        f"<span><i>{first}</i><i>{last}</i></span></span>"
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _accuracy_plot(outcomes) -> str:
    """Test accuracy after each epoch, as a data URL."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for outcome in outcomes:
        if outcome.history:
            accuracies = [100 * accuracy for accuracy in outcome.history]
            axes.plot(range(1, len(accuracies) + 1), accuracies, marker="o", label=outcome.name)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
