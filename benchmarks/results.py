"""How results are kept: each as JSON, written whole, and all of a benchmark as a table in Markdown."""

import json
import os
import pathlib
import platform
from collections.abc import Iterable, Sequence

import tensorflow as tf

from satkeras.files import write_whole

FOLDER = pathlib.Path("docs/results")


def environment() -> dict[str, str]:
    """What a result was measured with."""
    return {"machine": f"{_processor()}, {os.cpu_count()} cores", "tensorflow": tf.__version__}


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([platform.machine(), *names[:1]])


def write(path: pathlib.Path, result: dict) -> None:
    """Writes a result, or what there is of it, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result, indent=1).encode())


def read(path: pathlib.Path) -> dict | None:
    """A result as it was written; None if there is none yet."""
    return json.loads(path.read_text()) if path.exists() else None


def publish(stem: pathlib.Path, result: dict, text: str) -> None:
    """Writes a result as JSON and its page, of the same name but for the ending."""
    write(stem.with_suffix(".json"), result)
    stem.with_suffix(".md").write_text(text)


def page(title: str, text: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A page in Markdown: a title, a paragraph, and a table."""
    return f"# {title}\n\n{text}\n\n{table(columns, rows)}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, with its last line's end."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)
