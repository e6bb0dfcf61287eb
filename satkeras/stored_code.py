"""What a stored Keras model would run when it is loaded, found in its configs before anything is built."""

import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterator

import h5py
from tf_keras.protobuf import saved_metadata_pb2

from satkeras._compat import keras

_OF_KERAS = ("keras", "tf_keras", "builtins", "satkeras")


def require_no_code(path: str | os.PathLike) -> None:
    """Raises unless loading a stored model builds only layers and other objects that are already here.

    Python code is stored in `Lambda` layers, as bytecode. And a config may name any function of any module, which Keras
    imports and calls.

    Args:
      path: a `.keras` or `.h5` file, or a SavedModel folder. What is none of these has nothing to look at.

    Raises:
      ValueError: there is code, see `code_in`.
    """
    problem = code_in(path)
    if problem is not None:
        raise ValueError(
            f"load_model needs a file without code of its own. Received: path={os.fspath(path)!r}, which {problem}. If "
            "you trust whoever made it: satkeras.load_model(path, safe_mode=False)"
        )


def code_in(path: str | os.PathLike) -> str | None:
    """What loading a stored model would run, None if nothing.

    That is code which it holds, or something that it names and that is neither Keras', satkeras', registered nor a
    class of an imported module with a `from_config`.
    """
    problems = (_problem_of(entry) for config in _configs(pathlib.Path(path)) for entry in _objects(config))
    return next((problem for problem in problems if problem is not None), None)


def _configs(path: pathlib.Path) -> Iterator:
    """Every config that Keras reads from a stored model, as JSON has it."""
    if path.is_dir():
        stored = path / "keras_metadata.pb"
        if stored.exists():
            metadata = saved_metadata_pb2.SavedMetadata()
            metadata.ParseFromString(stored.read_bytes())
            yield from (json.loads(node.metadata) for node in metadata.nodes if node.metadata)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (json.loads(archive.read(name)) for name in archive.namelist() if name == "config.json")
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            yield from (
                json.loads(file.attrs[name]) for name in ("model_config", "training_config") if name in file.attrs
            )


def _objects(config) -> Iterator[dict]:
    """All dicts inside a config that name a class or a function."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _problem_of(entry: dict) -> str | None:
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if name.split(">")[-1] in ("Lambda", "__lambda__"):
        return f"holds a {name.split('>')[-1]}"
    if not isinstance(module, str) or module.split(".")[0] in _OF_KERAS:
        return None
    if registered is not None and keras.saving.get_registered_object(registered) is not None:
        return None
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and hasattr(found, "from_config"):
        return None
    named = entry.get("config") if name == "function" else name
    return f"names {named!r} of the module {module!r}"
