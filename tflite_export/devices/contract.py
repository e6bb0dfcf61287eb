"""What passes between the exporter and a device's module."""

import dataclasses
import pathlib
from collections.abc import Mapping

from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.file.metadata import Labels
from tflite_export.plan import Plan


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a checker found.

    Attributes:
      problems: `(layer, reason)` pairs for which there is no file.
      notes: what the report says.
    """

    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Exact:
    """A file that was found exact, before it is stored.

    Attributes:
      plan: of the file.
      model: what was read from its bytes.
      content: its bytes.
      path: where it goes.
      labels: of its outputs.
      compress: how its weights are compressed, "none" or "lut".
    """

    plan: Plan
    model: schema.ModelT
    content: bytes
    path: pathlib.Path
    labels: Labels
    compress: str


@dataclasses.dataclass(frozen=True)
class Delivered:
    """What is stored of it.

    Attributes:
      files: contents by their paths, the `.tflite` file last.
      notes: what the report says.
    """

    files: Mapping[pathlib.Path, bytes]
    notes: tuple[str, ...] = ()
