"""One training of a pretrained network, as a value."""

import dataclasses
import pathlib

import satkeras


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      network: of `benchmarks.pretrained`.
      scheme: a name or a `satkeras.Scheme`; None: the float network itself.
      weight_bits: as `quantize_model` takes them.
      activation_bits: the same.
      stages: (phase, epochs); for "qn" phases as `set_phase` takes them, for the others one stage without.
      title: of the scheme, in tables and file names.
      full_precision: the layers that are not quantized; the model then has no file.
      highest_temperature: of Quantization Networks' sigmoids, at the end of each phase.
      lowest_temperature: from where it rises by a constant factor; None: it rises by a constant from 0.
      images: how many training images an epoch has.
      batch_norm_momentum: what short runs need; None: the network's own.
      learning_rate: at the beginning of each stage.
      teacher_temperature: softens the float network's answers, which it then learns beside the labels; None: labels
        alone.
    """

    network: str
    scheme: str | satkeras.Scheme | None
    weight_bits: int | str | None
    activation_bits: int | None
    stages: tuple[tuple[str | None, int], ...]
    title: str
    full_precision: tuple[str, ...] = ()
    highest_temperature: float = 2000.0
    lowest_temperature: float | None = None
    images: int = 50_000
    batch_norm_momentum: float | None = None
    learning_rate: float = 0.01
    teacher_temperature: float | None = None

    @property
    def epochs(self) -> int:
        return sum(epochs for _, epochs in self.stages)

    @property
    def width(self) -> str:
        return "" if self.scheme is None else f"W{self.weight_bits}A{self.activation_bits}"

    @property
    def name(self) -> str:
        return " ".join((self.network, self.title, *([self.width] if self.width else []), f"{self.epochs} epochs"))

    def path(self, folder: pathlib.Path) -> pathlib.Path:
        return folder / f"{self.name.replace(' ', '_')}.json"
