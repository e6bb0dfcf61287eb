"""Where a kernel or pool lies on its input."""

import dataclasses
from typing import Literal

from tensorflow.lite.python import schema_py_generated as schema


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """Where a kernel or pool lies on its input: Keras' arguments of these names."""

    strides: tuple[int, int] = (1, 1)
    padding: Literal["SAME", "VALID"] = "VALID"
    dilations: tuple[int, int] = (1, 1)

    @property
    def padding_code(self) -> int:
        """The padding in TFLite's schema."""
        return getattr(schema.Padding, self.padding)

    @property
    def has_equal_strides(self) -> bool:
        """Whether height and width have one stride."""
        return self.strides[0] == self.strides[1]
