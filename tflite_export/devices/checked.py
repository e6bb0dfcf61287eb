"""What a device's checker finds in a file."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a checker found.

    Attributes:
      problems: `(layer, reason)` pairs for which there is no file.
      notes: what the report says.
    """

    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
