"""The one error of the exporter."""

from collections.abc import Iterable


class ExportError(Exception):
    """A model cannot be exported exactly, or a file is not what was planned.

    Attributes:
      problems: `(layer or tensor name, reason)` pairs, all that were found.
    """

    def __init__(self, summary: str, problems: Iterable[tuple[str, str]]):
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{summary}:", *(f"  {name}: {reason}" for name, reason in self.problems)]))
