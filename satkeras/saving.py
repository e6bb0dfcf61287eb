"""Saving and loading models: Keras' own formats, written whole or not at all."""

import os
import pathlib
import tempfile

from satkeras._compat import keras
from satkeras.files import PREFIX, folder_of, put_in_place
from satkeras.models.checks import is_quantized
from satkeras.stored_code import require_no_code

_SUFFIXES = (".keras", ".h5")


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves a model, its optimizer included, to one file: `model.save(path)` that cannot leave half a file.

    The file is written beside `path` and then replaces it, so whenever the process is killed `path` holds either
    the previous model or the new one.

    Args:
      model: any tf_keras model.
      path: ends in `.keras` or `.h5`; its folder exists.

    Raises:
      ValueError: the path has another ending, or its folder does not exist.
    """
    path = pathlib.Path(path)
    if path.suffix not in _SUFFIXES or not path.parent.is_dir():
        raise ValueError(
            f"save_model needs a path that ends in {' or '.join(_SUFFIXES)} in a folder that exists. "
            f"Received: path={os.fspath(path)!r}"
        )
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder_of(path)) as folder:
        written = pathlib.Path(folder) / f"model{path.suffix}"
        model.save(written)
        put_in_place(written, path)


def load_model(path: str | os.PathLike, *, safe_mode: bool = True) -> keras.Model:
    """Loads a quantized model that `save_model`, `model.save` or `ModelCheckpoint` stored; needs no custom objects.

    The model predicts the same bits as the one that was saved, trains on from where it was and exports to the same
    file. (`tf_keras.models.load_model` does the same as long as satkeras is imported.)

    Args:
      path: a `.keras` or `.h5` file, or a SavedModel folder. Keras keeps no optimizer slots in the last: momentum
        starts anew there, as it does for a float model.
      safe_mode: refuses what holds code, such as a Lambda layer, in every format; False runs it: for files that you
        trust. (`tf_keras.models.load_model` looks for code in `.keras` files alone.)

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: what is there is not a model that `quantize_model` returned, or holds code.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"load_model needs a saved model. Received: path={os.fspath(path)!r}: nothing is there")
    if safe_mode:
        require_no_code(path)
    model = keras.models.load_model(path, safe_mode=safe_mode)
    if not isinstance(model, keras.Model) or not is_quantized(model):
        raise ValueError(
            f"load_model needs a model that satkeras.quantize_model returned. Received: path={os.fspath(path)!r}, "
            "which holds another. tf_keras.models.load_model loads any model"
        )
    return model
