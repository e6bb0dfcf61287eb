"""Running a file on a judge, in a process of its own: a runtime that aborts ends nothing else."""

import dataclasses
import json
import math
import pathlib
import signal
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.judges import environments
from benchmarks.judges.table import ALL, JUDGES, TOOLS

RUNNERS = pathlib.Path(__file__).parent / "runners"
TYPES = {
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT16: np.dtype(np.int16),
    schema.TensorType.INT32: np.dtype(np.int32),
}
LAST_WORDS = 2000  # characters of what a runtime said before it failed


class JudgeError(RuntimeError):
    """The judge does not run the file; the message has what it said."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a judge computed.

    Args:
      outputs: the file's outputs, in its order; those of all images along the first axis.
      images: how many images were run.
      seconds: how long they took, without the start.
    """

    outputs: list[np.ndarray]
    images: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a file."""

    name: str
    shape: tuple[int, ...]
    type: np.dtype


def run(name: str, content: bytes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a file for all images, in the file's order, those of all images along the first axis.

    Args:
      name: a key of `JUDGES`.
      content: the bytes of a .tflite file whose inputs and outputs are integers.
      inputs: for each input of the file, in its order, integers of its type: of shape (images, *shape[1:]) where the
        input's first dimension is 1, else (images * shape[0], *shape[1:]).

    Raises:
      MissingJudgeError: before `make judges` has made its environment.
      JudgeError: if the runtime refuses the file, or fails.
      ValueError: if the inputs are not the file's.
    """
    return run_for(math.inf, name, content, inputs).outputs


def run_for(seconds: float, name: str, content: bytes, inputs: Sequence[np.ndarray]) -> Answers:
    """As `run`, but no image is begun after that many seconds; the first always is."""
    if name not in JUDGES:
        raise ValueError(f"A judge is one of {list(JUDGES)}. Received: name={name!r}")
    environments.require(name)
    given, expected = read(content)
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / file for file in ("model.tflite", "inputs.npz", "outputs.npz")]
        paths[0].write_bytes(content)
        np.savez(paths[1], *_by_image(given, inputs))
        _call(name, [*map(str, paths), f"--seconds={seconds}"])
        with np.load(paths[2]) as archive:
            taken = float(archive["seconds"])
            found = [archive[f"arr_{index}"] for index in range(len(archive.files) - 1)]
    return Answers(_as_expected(name, expected, found), len(found[0]), taken)


def ask(name: str, content: bytes, inputs: Sequence[np.ndarray] = (), arguments: Sequence[str] = ()):
    """What a tool answers, as its runner describes it.

    Args:
      name: a key of `TOOLS`.
      content: the bytes of a `.tflite` file.
      inputs: arrays that the runner wants.
      arguments: its options.

    Raises:
      MissingJudgeError: its environment has not been made.
      JudgeError: it does not take the file; the message has what it said.
    """
    if name not in TOOLS:
        raise ValueError(f"A tool is one of {list(TOOLS)}. Received: name={name!r}")
    environments.require(name)
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / file for file in ("model.tflite", "inputs.npz", "answers.json")]
        paths[0].write_bytes(content)
        np.savez(paths[1], *inputs)
        _call(name, [*map(str, paths), *arguments])
        return json.loads(paths[2].read_text())


def read(content: bytes) -> tuple[list[Tensor], list[Tensor]]:
    """What the file's main graph takes and gives."""
    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    return [_tensor(graph.tensors[i]) for i in graph.inputs], [_tensor(graph.tensors[i]) for i in graph.outputs]


def _tensor(tensor: schema.TensorT) -> Tensor:
    """An input or output as the file describes it."""
    name, shape = tensor.name.decode(), tuple(int(size) for size in tensor.shape)
    if tensor.type not in TYPES or not shape:
        raise ValueError(
            "Inputs and outputs that are integers of 8, 16 or 32 bits, and of at least one dimension, are required. "
            f"Received: {name} of TensorType {tensor.type} and shape {shape}"
        )
    return Tensor(name, shape, TYPES[tensor.type])


def _by_image(tensors: list[Tensor], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The inputs with an axis of images before each tensor's own."""
    if len(inputs) != len(tensors):
        raise ValueError(
            f"One array for each input of the file is required: {[t.name for t in tensors]}. Received: {len(inputs)}"
        )
    split = []
    for tensor, values in zip(tensors, inputs, strict=True):
        if values.dtype != tensor.type or values.shape[1:] != tensor.shape[1:] or len(values) % tensor.shape[0]:
            raise ValueError(
                f"The input {tensor.name} is {tensor.type} of shape {tensor.shape}, any number of them along the first "
                f"axis. Received: {values.dtype} of shape {values.shape}"
            )
        split.append(values.reshape(-1, *tensor.shape))
    images = [len(values) for values in split]
    if len(set(images)) != 1 or not images[0]:
        raise ValueError(f"As many images for each input are required, at least one. Received: {images}")
    return split


def _call(name: str, arguments: list[str]) -> None:
    """Runs the judge's program."""
    judge = ALL[name]
    command = [str(environments.python(name)), str(RUNNERS / judge.runner), *arguments, *judge.arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environments.variables(name))
    if done.returncode:
        end = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
        raise JudgeError(
            f"The judge {name!r} ({judge.title}) must run the file. Received: {end}, and it said:\n"
            f"{(done.stdout + done.stderr).strip()[-LAST_WORDS:]}"
        )


def _as_expected(name: str, tensors: list[Tensor], outputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs in the file's own types, the axis of images merged into the first one."""
    merged = []
    if len(outputs) != len(tensors):
        raise JudgeError(f"The judge {name!r} must give {len(tensors)} outputs. Received: {len(outputs)}")
    for tensor, values in zip(tensors, outputs, strict=True):
        if values.shape[1:] != tensor.shape or values.dtype.itemsize != tensor.type.itemsize:
            raise JudgeError(
                f"The judge {name!r} must give {tensor.name} as {tensor.type} of shape {tensor.shape}. Received: "
                f"{values.dtype} of shape {values.shape[1:]}"
            )
        # TOSA's integers have no sign of their own: the bits of uint8 come as int8.
        merged.append(values.view(tensor.type).reshape(-1, *tensor.shape[1:]))
    return merged
