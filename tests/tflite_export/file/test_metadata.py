"""The metadata read back by their places in the schema, and labels that fit or are refused."""

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
import tf_keras
from flatbuffers import number_types as numbers
from tf_keras import layers

import tflite_export
from tflite_export.file.metadata import METADATA, labels_file, metadata_of, normalization, read_labels, with_label_files
from tflite_export.file.reader import read_model
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.interpreter import open_interpreter

LABELS = [f"class {number}" for number in range(10)]


class Table:
    """A table of a flatbuffer, its fields by their places."""

    def __init__(self, content, position):
        self.table = flatbuffers.table.Table(content, position)

    @classmethod
    def root(cls, content):
        return cls(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))

    def _offset(self, place):
        return self.table.Offset(4 + 2 * place)

    def text(self, place):
        return self.table.String(self._offset(place) + self.table.Pos).decode()

    def byte(self, place):
        offset = self._offset(place)
        return self.table.Get(numbers.Uint8Flags, offset + self.table.Pos) if offset else 0

    def child(self, place):
        return Table(self.table.Bytes, self.table.Indirect(self._offset(place) + self.table.Pos))

    def children(self, place):
        offset = self._offset(place)
        if not offset:
            return []
        start = self.table.Vector(offset)
        positions = (start + 4 * item for item in range(self.table.VectorLen(offset)))
        return [Table(self.table.Bytes, self.table.Indirect(position)) for position in positions]

    def floats(self, place):
        offset = self._offset(place)
        return self.table.GetVectorAsNumpy(numbers.Float32Flags, offset).tolist()


def metadata_in(content):
    model = read_model(content)
    (entry,) = (entry for entry in model.metadata if entry.name == METADATA.encode())
    found = bytes(model.buffers[entry.buffer].data)
    assert found[4:8] == b"M001"
    (graph,) = Table.root(found).children(3)
    return Table.root(found), graph.children(2), graph.children(3)


@pytest.fixture(scope="module")
def written(residual, tmp_path_factory):
    path = tmp_path_factory.mktemp("metadata") / "net.tflite"
    tflite_export.export_tflite(residual, path, labels=LABELS, verify_data=False)
    return path.read_bytes()


def test_names_types_and_units_can_be_read(written):
    whole, inputs, outputs = metadata_in(written)
    assert whole.text(0) == "residual"
    assert whole.text(7) == "1.0.0"
    ((image,), (logits,)) = inputs, outputs
    assert image.text(0) == "image"
    assert image.text(1) == "RGB image, 12 x 12 pixels, 0 to 255"
    assert image.child(3).byte(0) == 2  # ImageProperties
    assert image.child(3).child(1).byte(0) == 1  # RGB
    assert (image.child(5).floats(0), image.child(5).floats(1)) == ([255.0], [0.0])  # max, min
    (process,) = image.children(4)
    assert process.byte(0) == 1  # NormalizationOptions
    assert (process.child(1).floats(0), process.child(1).floats(1)) == ([0.0], [1.0])  # mean, standard deviation
    assert logits.text(0) == "logits"
    (file,) = logits.children(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_labels_lie_uncompressed_behind_the_file(written):
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        (entry,) = archive.infolist()
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode().splitlines() == LABELS
    open_interpreter(written)


def test_without_labels_there_are_metadata_and_no_archive(residual, tmp_path):
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(residual, path, verify_data=False)
    _, _, (logits,) = metadata_in(path.read_bytes())
    assert logits.children(6) == []
    assert not zipfile.is_zipfile(path)


def test_labels_from_a_file(residual, written, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(LABELS), encoding="utf-8-sig")
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(residual, path, labels=tmp_path / "names.txt", verify_data=False)
    assert path.read_bytes() == written


@pytest.mark.parametrize("input_range", [(0, 255), (0, 1), (-1, 1), (-1, 127 / 128), (-2.3, 5)])
def test_normalized_pixels_reach_their_own_codes(input_range, trained):
    model = tf_keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(2, 1)])
    low, high = input_range
    images = (np.arange(8 * 108).reshape(8, 6, 6, 3) % 256 / 255 * (high - low) + low).astype(np.float32)
    (x,) = make_plan(trained(model, images=[images], input_range=input_range)).inputs
    mean, std = (np.float32(number) for number in normalization(x))
    normalized = (np.arange(256, dtype=np.float32) - mean) / std
    codes = np.rint(normalized / x.scale) + x.zero_point + 128
    np.testing.assert_array_equal(codes, np.arange(256))


@pytest.fixture(scope="module")
def two_heads(trained):
    image = layers.Input((6, 6, 1), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    return make_plan(trained(tf_keras.Model(image, [layers.Dense(2, name="kind")(x), layers.Dense(1, name="age")(x)])))


def test_each_output_has_its_labels(two_heads):
    labels = read_labels({"kind": ["cat", "dog"]}, two_heads)
    content = with_label_files(write_file(two_heads), two_heads, labels)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [labels_file("kind", two_heads)] == ["kind_labels.txt"]
    graph = Table.root(metadata_of(two_heads, labels, "heads", "")).children(3)[0]
    assert [len(one.children(6)) for one in graph.children(3)] == [1, 0]
    (image,) = graph.children(2)
    assert image.child(3).child(1).byte(0) == 2  # grayscale


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (LABELS[:-1], ValueError, "labels must be 10, one for each class of the output 'logits'. Received: 9 labels"),
        ([*LABELS[:9], ""], ValueError, r"one line with text in it. Received: labels\[9\]=''"),
        ([*LABELS[:9], "a\nb"], ValueError, r"Received: labels\[9\]='a\\nb'"),
        ("no_such_file.txt", ValueError, "or a text file with one a line. Received: 'no_such_file.txt'"),
        (range(10), TypeError, "must be a list of str, or the path of a text file. Received: range"),
        ({"head": LABELS}, ValueError, r"outputs of the model, \['logits'\]. Received: \['head'\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(residual, tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", labels=labels)
    assert not list(tmp_path.iterdir())


def test_a_list_for_several_outputs_is_refused_with_the_dict_that_works(two_heads):
    with pytest.raises(ValueError, match=r'must be a dict, .* labels=\{"kind": \[...\]\}. Received: list'):
        read_labels(["cat", "dog"], two_heads)
