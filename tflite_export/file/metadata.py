"""TFLite metadata: what MediaPipe and Android's tools read of a file before they feed it, and its labels.

The metadata are a flatbuffer of their own (schema `metadata_schema.fbs`, identifier M001) in a buffer of the file;
label files are appended to it as an uncompressed zip archive. `flatbuffers` writes the few tables that are needed, each
field at its place in the schema.
"""

import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence

import flatbuffers
import numpy as np

from tflite_export.plan import Plan, Tensor

METADATA = "TFLITE_METADATA"  # the name of the file's buffer
IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first that knows every field written here
# The schema's numbers: members of its unions, values of its enumerations.
_FEATURE, _IMAGE = 1, 2
_NORMALIZATION = 1
_COLOR_SPACES = {3: 1, 1: 2}  # of images with so many channels: RGB and grayscale
_TENSOR_AXIS_LABELS = 2
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # equal models give equal files

Labels = Mapping[str, tuple[str, ...]]  # by the names of the outputs


def read_labels(given, plan: Plan) -> Labels:
    """The labels of the outputs.

    Args:
      given: None; a list of texts; the path of a text file with one on each line; or, of a model with several outputs,
        a dict from an output's name to one of these.
      plan: says which outputs there are, and how many labels each needs.

    Returns:
      The labels of those outputs that have some.

    Raises:
      TypeError: it is none of these.
      ValueError: their number is not that of the output's classes, an empty or broken line, an unknown output, or a
        file that cannot be read.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(plan.outputs) > 1:
            raise ValueError(
                f"labels of a model with several outputs must be a dict, from a name of {list(plan.output_names)} to "
                f'its labels: labels={{"{plan.output_names[0]}": [...]}}. Received: {type(given).__name__}'
            )
        given = {plan.output_names[0]: given}
    outputs = dict(zip(plan.output_names, plan.outputs, strict=True))
    if unknown := [name for name in given if name not in outputs]:
        raise ValueError(f"labels must be for outputs of the model, {list(outputs)}. Received: {unknown}")
    return {name: _checked(name, outputs[name], _lines(one)) for name, one in given.items()}


def _lines(given) -> list[str]:
    if isinstance(given, (str, os.PathLike)):
        try:
            return pathlib.Path(given).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"labels must be a list, or a text file with one a line. Received: {given!r} ({error})"
            ) from error
    if isinstance(given, (list, tuple)) and all(isinstance(label, str) for label in given):
        return list(given)
    raise TypeError(f"labels must be a list of str, or the path of a text file. Received: {given!r:.200}")


def _checked(name: str, output: Tensor, labels: list[str]) -> tuple[str, ...]:
    count = output.shape[-1] if output.shape else 1
    if len(labels) != count:
        raise ValueError(
            f"labels must be {count}, one for each class of the output {name!r}. Received: {len(labels)} labels"
        )
    if broken := [place for place, label in enumerate(labels) if not label.strip() or len(label.splitlines()) != 1]:
        raise ValueError(
            f"Each label must be one line with text in it. Received: labels[{broken[0]}]={labels[broken[0]]!r}"
        )
    return tuple(labels)


def metadata_of(plan: Plan, labels: Labels, name: str, description: str) -> bytes:
    """The flatbuffer of a file's metadata.

    Normalization is stated as the file's own codes need it: `(pixel - mean) / std`, quantized by the input's scale and
    zero point, is the code of that pixel, for pixels 0 .. 255.

    Args:
      plan: the plan of the file.
      labels: of its outputs, see `read_labels`.
      name: the model's.
      description: what the model is, in a line.
    """
    builder = flatbuffers.Builder(1024)
    inputs = [_input(builder, *one) for one in zip(plan.input_names, plan.inputs, strict=True)]
    outputs = [
        _output(builder, one, x, labels_file(one, plan) if one in labels else None)
        for one, x in zip(plan.output_names, plan.outputs, strict=True)
    ]
    graph = _table(builder, 10, {2: _vector(builder, inputs), 3: _vector(builder, outputs)})
    fields = {
        0: builder.CreateString(name),
        1: builder.CreateString(description),
        3: _vector(builder, [graph]),
        7: builder.CreateString(_PARSER_VERSION),
    }
    builder.Finish(_table(builder, 8, fields), IDENTIFIER)
    return bytes(builder.Output())


def with_label_files(content: bytes, plan: Plan, labels: Labels) -> bytes:
    """A file with the label files behind it, one label a line."""
    if not labels:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, lines in labels.items():
            entry = zipfile.ZipInfo(labels_file(name, plan), _NO_DATE)
            archive.writestr(entry, "".join(f"{line}\n" for line in lines), zipfile.ZIP_STORED)
    return stream.getvalue()


def labels_file(output_name: str, plan: Plan) -> str:
    """The name of an output's label file in the archive."""
    if len(plan.outputs) == 1:
        return "labels.txt"
    return f"{output_name.replace('/', '_')}_labels.txt"


def normalization(x: Tensor) -> tuple[float, float]:
    """Mean and standard deviation, in pixel values 0 .. 255, after which an input's grid gives pixel p the code p."""
    return float(x.zero_point + 128), float(np.float64(1) / np.float64(x.scale))


def _input(builder: flatbuffers.Builder, name: str, x: Tensor) -> int:
    mean, std = normalization(x)
    color_space = _COLOR_SPACES.get(x.shape[2]) if len(x.shape) == 3 else None
    low, high = (float(np.float32(code - x.zero_point) * x.scale) for code in (-128, 127))
    process, described = [], "Codes 0 to 255"
    if color_space is not None:
        height, width, channels = x.shape
        described = f"{'RGB' if channels == 3 else 'Grayscale'} image, {width} x {height} pixels, 0 to 255"
        options = _table(builder, 2, {0: _floats(builder, [mean]), 1: _floats(builder, [std])})
        process = [_table(builder, 2, {0: _byte(_NORMALIZATION), 1: options})]
    properties = _table(builder, 2, {} if color_space is None else {0: _byte(color_space)})
    kind = _FEATURE if color_space is None else _IMAGE
    fields = {
        0: builder.CreateString(name),
        1: builder.CreateString(described),
        3: _table(builder, 2, {0: _byte(kind), 1: properties}),
        5: _stats(builder, low, high),
    }
    if process:
        fields[4] = _vector(builder, process)
    return _table(builder, 7, fields)


def _output(builder: flatbuffers.Builder, name: str, x: Tensor, labels: str | None) -> int:
    low, high = (float(np.float32(code - x.zero_point) * x.scale) for code in (-128, 127))
    content = _table(builder, 2, {0: _byte(_FEATURE), 1: _table(builder, 0, {})})
    fields = {0: builder.CreateString(name), 3: content, 5: _stats(builder, low, high)}
    if labels is not None:
        file = {
            0: builder.CreateString(labels),
            1: builder.CreateString("One label a line, in the order of the output's values"),
            2: _byte(_TENSOR_AXIS_LABELS),
        }
        fields[6] = _vector(builder, [_table(builder, 5, file)])
    return _table(builder, 7, fields)


def _stats(builder: flatbuffers.Builder, low: float, high: float) -> int:
    return _table(builder, 2, {0: _floats(builder, [high]), 1: _floats(builder, [low])})


def _byte(value: int) -> Callable[[flatbuffers.Builder, int], None]:
    """A field of one byte; all others are offsets."""
    return lambda builder, place: builder.PrependUint8Slot(place, value, 0)


def _table(builder: flatbuffers.Builder, size: int, fields: Mapping) -> int:
    """A table of the schema with `size` fields, of which some are given by their places."""
    builder.StartObject(size)
    for place, value in fields.items():
        if callable(value):
            value(builder, place)
        else:
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    return builder.CreateNumpyVector(np.asarray(values, np.float32))
