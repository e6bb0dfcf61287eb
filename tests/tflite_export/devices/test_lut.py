"""Look-up tables: bits and bytes as TFLite Micro reads them, and back; what is compressed, what is not."""

import numpy as np
import pytest

from tflite_export.devices import lut
from tflite_export.file.graph import stored_operators
from tflite_export.file.reader import read_model
from tflite_export.file.writer import packed


def kernel_of(levels, shape, seed=0):
    return np.random.default_rng(seed).choice(np.asarray(levels, np.int8), shape)


@pytest.mark.parametrize(("shape", "axis"), [((6, 3, 3, 5), 0), ((1, 3, 3, 7), 3), ((10, 12), None)])
@pytest.mark.parametrize("levels", [[5], [-127, 127], [-9, 0, 9], range(-7, 8), range(-40, 41)], ids=len)
def test_what_is_decoded_is_what_was_encoded(shape, axis, levels):
    values = kernel_of(levels, shape)
    compressed = lut.compress(values, axis)
    np.testing.assert_array_equal(lut.decompress(compressed, shape), values)


def test_the_bytes_are_those_that_the_runtime_reads():
    values = np.int8([[3, -1, 3, 9], [4, 4, 7, 4]])
    compressed = lut.compress(values, 0)
    # Two bits an index, the first in the highest bits: 1 0 1 2 | 0 0 1 0.
    assert compressed.indices == bytes([0b01000110, 0b00000100])
    header, tables = compressed.tables[:16], compressed.tables[16:]
    # Type LUT, version 1, reserved; version 1, axis 0 and 2 bits, 3 values a table.
    assert header == bytes([0, 1, 0, 0, 1, 0x02, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert np.frombuffer(tables, np.int8).tolist() == [-1, 3, 9, 4, 7, 0]


def test_one_table_is_said_in_the_header():
    assert lut.compress(np.int8([[1, 2], [3, 4]]), None).tables[5] == 0xF2


def test_too_many_values_stay_as_they_are():
    assert lut.compress(np.arange(-128, 128, dtype=np.int8).reshape(1, 256), 0) is None


@pytest.fixture(scope="module")
def models(content):
    model = read_model(content)
    compressed = lut.with_tables(model)
    assert packed(model) == content  # what was given stays
    return model, read_model(compressed), len(content), len(compressed)


def test_a_decode_comes_just_before_the_operator_that_reads_it(models):
    before, after = (list(stored_operators(model)) for model in models[:2])
    assert [one.builtin for one in before] == [one.builtin for one in after if one.builtin != "TFLM_DECODE"]
    decodes = [place for place, one in enumerate(after) if one.builtin == "TFLM_DECODE"]
    assert decodes
    kernels = {one.name: one.inputs[1] for one in before if len(one.constants) == 2}
    for place in decodes:
        (indices, tables), (kernel,), reader = after[place].inputs, after[place].outputs, after[place + 1]
        assert reader.inputs[1] is kernel
        original = kernels[reader.name]
        assert kernel.shape == original.shape and not kernel.is_constant
        found = lut.decompress(lut.Compressed(indices.data.tobytes(), tables.data.tobytes()), kernel.shape)
        np.testing.assert_array_equal(found.ravel(), original.data.view(np.int8))
        assert len(indices.data) + len(tables.data) < original.data.size


def test_no_buffer_is_left_over(models):
    model = models[1]
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {entry.buffer for entry in model.metadata}
    assert used | {0} == set(range(len(model.buffers)))
