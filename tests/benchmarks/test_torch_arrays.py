"""Files of torch.save, written here without PyTorch."""

import collections
import io
import pickle
import sys
import types

import numpy as np
import pytest

from benchmarks import torch_arrays


class Tensor:
    """Pickled as PyTorch pickles a view of a storage."""

    def __init__(self, key, storage, offset, shape, strides):
        self.key, self.storage, self.view = key, storage, (offset, shape, strides)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A function that writes tensors as a file, and gives its path."""
    torch = types.ModuleType("torch")
    utils = types.ModuleType("torch._utils")

    class FloatStorage:
        __module__ = "torch"
        __qualname__ = "FloatStorage"

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    for module in (torch, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    class Storage:
        def __init__(self, key, values):
            self.key, self.values = key, values

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", FloatStorage, value.key, "cpu", len(value.values), None)
            return None

        def reducer_override(self, value):
            if isinstance(value, Tensor):
                storage = Storage(value.key, value.storage)
                return _rebuild_tensor_v2, (storage, *value.view, False, collections.OrderedDict())
            return NotImplemented

    def saved(tensors):
        file = io.BytesIO()
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors):
            Pickler(file, 2).dump(value)
        storages = {tensor.key: tensor.storage for tensor in tensors.values() if isinstance(tensor, Tensor)}
        pickle.dump(list(storages), file, 2)
        for values in storages.values():
            file.write(np.int64(len(values)).tobytes() + values.tobytes())
        path = tmp_path / "weights.pth"
        path.write_bytes(file.getvalue())
        return path

    return saved


def test_views_with_any_strides_come_back(saved):
    values = np.arange(12, dtype=np.float32)
    tensors = {
        "whole": Tensor("0", values, 0, (3, 4), (4, 1)),
        "transposed": Tensor("0", values, 0, (4, 3), (1, 4)),
        "part": Tensor("0", values, 4, (2, 2), (4, 1)),
        "other": Tensor("1", values[:2] + 50, 0, (2,), (1,)),
    }
    found = torch_arrays.read(saved(collections.OrderedDict(tensors)))
    whole = values.reshape(3, 4)
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["whole"], whole)
    np.testing.assert_array_equal(found["transposed"], whole.T)
    np.testing.assert_array_equal(found["part"], whole[1:, :2])
    np.testing.assert_array_equal(found["other"], [50, 51])


def test_a_file_that_would_run_code_is_refused(saved):
    with pytest.raises(ValueError, match=r"Received: __builtin__\.print"):
        torch_arrays.read(saved({"weights": print}))
