"""Any int8 file, rewritten so that runtimes give the same integers, as far as its operators allow."""

import os
import pathlib

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.files import require_writable, write_whole
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed
from tflite_export.foreign import elements, sums
from tflite_export.foreign.graph import FileGraph
from tflite_export.foreign.means import replace_mean
from tflite_export.foreign.pruning import prune
from tflite_export.portability.plans import Portability, reason_of_channels
from tflite_export.portability.proof import bad_reachable_sums

# They move, choose or clamp integers that all lie on one grid, or round as every runtime does.
_ON_ONE_GRID = frozenset(
    "AVERAGE_POOL_2D BATCH_TO_SPACE_ND CONCATENATION DEPTH_TO_SPACE EXPAND_DIMS GATHER MAXIMUM MAX_POOL_2D MINIMUM "
    "MIRROR_PAD PACK PAD PADV2 REDUCE_MAX RELU RESHAPE RESIZE_NEAREST_NEIGHBOR SLICE SPACE_TO_BATCH_ND SPACE_TO_DEPTH "
    "SPLIT SQUEEZE STRIDED_SLICE TILE TRANSPOSE UNPACK".split()
)


def portable_tflite(source: str | os.PathLike, path: str | os.PathLike) -> Portability:
    """Rewrites an int8 file of any tool so that every runtime computes the same integers, as far as it goes.

    Biases and weight scales are moved by fractions of a level, weights of some channels made even where they leave no
    other way, the output scales of ADD and SUB and the constants of MUL nudged, and a MEAN of whole images becomes a
    pool or a weighted sum of ones. Every other operator stays as it is. The file then computes slightly other numbers
    than before; compare its accuracy.

    Args:
      source: the `.tflite` file. Only its main graph is rewritten.
      path: where the new file goes, whole or not at all; it may be `source`.

    Returns:
      The proof, with every operator that stays unportable, or has no rule here, among its `problems`.

    Raises:
      ExportError: `source` is no whole `.tflite` file.
      ValueError: the path cannot be written.
    """
    path = require_writable(path)
    content, found = rewritten(pathlib.Path(source).read_bytes())
    write_whole(path, content)
    return found


def rewritten(content: bytes) -> tuple[bytes, Portability]:
    """The same for the bytes of a file."""
    model = read_model(content)
    file = FileGraph(model)
    for place in reversed(range(len(file.operators))):
        if file.builtin(file.operators[place]) == "MEAN":
            replace_mean(file, place)
    rewrite = _Rewrite(file)
    for operator in file.operators:
        rewrite.take(operator)
    for number in range(1, len(model.subgraphs)):
        rewrite.problems.append((f"subgraph {number}", "only the main graph is rewritten"))
    found = rewrite.portability()
    prune(file)
    return packed(model), found


class _Rewrite:
    """One walk over a file's operators, in the order of computation."""

    def __init__(self, file: FileGraph):
        self.file = file
        self.given = {index: file.scale(index) for index in range(len(file.graph.tensors)) if file.is_int8(index)}
        self.sums: list[tuple[str, sums.Rewritten]] = []
        self.pairs = 0
        self.problems: list[tuple[str, str]] = []

    def take(self, operator) -> None:
        """Rewrites one operator, or says why not."""
        kind = self.file.builtin(operator)
        try:
            if self._counts(operator):
                pass
            elif kind in sums.KINDS:
                self._sum(operator)
            elif kind in elements.KINDS:
                self._elements(operator)
            elif kind in _ON_ONE_GRID:
                self._copy(operator)
            elif kind == "QUANTIZE":
                self._quantize(operator)
            elif kind != "DEQUANTIZE":
                raise ValueError(f"{kind} has no rule here, and runtimes may compute it in several ways")
        except ValueError as problem:
            self.problems.append((self.file.name(int(operator.outputs[0])), str(problem)))

    def _counts(self, operator) -> bool:
        """Whether it computes whole numbers from whole numbers, such as a shape, which no runtime rounds."""
        types = schema.TensorType
        read, written = (
            {self.file.tensor(index).type for index in indices if index >= 0}
            for indices in (operator.inputs, operator.outputs)
        )
        return written <= {types.INT32, types.INT64, types.BOOL} and types.FLOAT32 not in read

    def _sum(self, operator) -> None:
        found = sums.read_sum(self.file, operator)
        self.sums.append((self.file.name(int(operator.outputs[0])), sums.rewrite_sum(self.file, found)))
        self.file.note_clamp(operator)

    def _elements(self, operator) -> None:
        indices = [int(index) for index in (*operator.inputs, *operator.outputs)]
        if not all(self.file.is_int8(index) for index in indices):
            raise ValueError("its tensors are not all int8")
        output = indices[-1]
        asked, _, reason = elements.rewrite_elements(self.file, operator, self._is_tied(output))
        self.pairs += asked
        self.file.note_clamp(operator)
        if reason is not None:
            raise ValueError(reason)

    def _copy(self, operator) -> None:
        """The output follows the input's scale, which an ADD may have moved."""
        read = [int(index) for index in operator.inputs if index >= 0 and self.file.is_int8(int(index))]
        written = [int(index) for index in operator.outputs]
        if not read or not all(self.file.is_int8(index) for index in written):
            raise ValueError("its tensors are not all int8")
        grids = {(self.given[index], self.file.zero_point(index)) for index in (*read, *written)}
        if len(grids) > 1:
            raise ValueError("it brings its input to another grid, which runtimes round differently")
        ends = [self.file.codes(index)[[0, -1]] for index in read]
        zero = self.file.zero_point(read[0])
        for index in written:
            self.file.set_scale(index, self.file.scale(read[0]))
            self.file.lowest[index] = int(min(zero, *(low for low, _ in ends)))
            self.file.highest[index] = int(max(zero, *(high for _, high in ends)))

    def _quantize(self, operator) -> None:
        (x,), (output,) = operator.inputs, operator.outputs
        source = self.file.tensor(x)
        if source.type in (schema.TensorType.FLOAT32,):
            return  # where numbers become integers; these are its first
        scale, zero = self.file.scales(x), self.file.zero_point(x)
        shift = {schema.TensorType.UINT8: 128}.get(source.type, 0)
        if len(scale) != 1 or scale[0] != self.file.scale(output) or zero - shift != self._signed_zero(output):
            raise ValueError("it brings its input to another grid, which runtimes round differently")

    def _signed_zero(self, index: int) -> int:
        unsigned = self.file.tensor(index).type == schema.TensorType.UINT8
        return self.file.zero_point(index) - (128 if unsigned else 0)

    def _is_tied(self, index: int) -> bool:
        """Whether a tensor's scale, or a copy's, is also that of other tensors."""
        for reader in self.file.operators:
            if index in [int(x) for x in reader.inputs] and self.file.builtin(reader) in _ON_ONE_GRID:
                if sum(x >= 0 and self.file.is_int8(int(x)) for x in reader.inputs) > 1:
                    return True
                if any(self._is_tied(int(output)) for output in reader.outputs):
                    return True
        return False

    def portability(self) -> Portability:
        """Enumerates every sum of the file as it is now."""
        count, problems = self.pairs, list(self.problems)
        for name, found in self.sums:
            asked, bad = bad_reachable_sums(found.channels)
            count += int(asked.sum())
            reason = reason_of_channels(bad)
            if reason is not None:
                problems.append((name, reason))
        scale, bias = (
            np.concatenate([np.zeros(0), *(getattr(found.choice, field) for _, found in self.sums)])
            for field in ("moved", "bias_moved")
        )
        return Portability(
            operators=len(self.file.operators),
            channels=len(scale),
            sums=count,
            as_they_were=int(((scale == 0) & (bias == 0)).sum()),
            by_bias=int(((scale == 0) & (bias != 0)).sum()),
            moved=int((scale != 0).sum()),
            made_even=int(sum(found.even.sum() for _, found in self.sums)),
            largest_move=float(np.abs(scale).max(initial=0)),
            largest_bias_move=float(bias.max(initial=0)),
            gates=0,
            problems=tuple(problems),
        )
