"""The arrays of a file that `torch.save` wrote before PyTorch 1.6, without PyTorch.

Such a file is five pickles, the fourth of them a dictionary whose tensors name their storages, and the storages' bytes.
Nothing but tensors is built: the file can run no code.
"""

import collections
import pathlib
import pickle

import numpy as np
from numpy.lib.stride_tricks import as_strided

DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a saved `state_dict`, by name.

    Raises:
      ValueError: the file holds anything but tensors of float32 and int64.
    """
    storages: dict[str, np.ndarray] = {}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("collections", "OrderedDict"):
                return collections.OrderedDict
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
            if module == "torch" and name in DTYPES:
                return name
            raise ValueError(f"Required: tensors of float32 and int64. Received: {module}.{name} in {path}.")

        def persistent_load(self, identity):
            _, kind, key, _, count, _ = identity
            storages.setdefault(key, np.empty(count, DTYPES[kind]))
            return key

    with open(path, "rb") as file:
        for _ in range(3):  # a magic number, a version, the machine that wrote it
            Unpickler(file).load()
        places = Unpickler(file).load()
        for key in Unpickler(file).load():
            count = int(np.fromfile(file, np.int64, 1)[0])
            storages[key][:] = np.fromfile(file, storages[key].dtype, count)
    return {
        name: as_strided(storages[key][offset:], shape, [stride * storages[key].itemsize for stride in strides]).copy()
        for name, (key, offset, shape, strides) in places.items()
    }
