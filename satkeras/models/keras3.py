"""Models of Keras 3, and files of either Keras, as tf_keras models with the same weights.

Keras 3 is imported only for a file that it wrote; a model of it shows that it is there.
"""

import inspect
import json
import os
import pathlib
import re
import sys
import zipfile
from typing import Any

import h5py
import numpy as np

from satkeras._compat import CustomScaleLayer, arguments, keras
from satkeras.models import keras3_followed
from satkeras.models.followed import class_of, require_same_in_training
from satkeras.models.keras3_operations import OPERATIONS, activation_of
from satkeras.stored_code import code_in

TOLERANCE = 1e-5


def is_keras3(model) -> bool:
    """Whether something is a model of Keras 3."""
    return any(cls.__module__.split(".")[0] == "keras" and cls.__name__ == "Model" for cls in type(model).__mro__)


def as_tf_keras(model):
    """A model of either Keras, or the path of one, as a tf_keras model; anything else as it is.

    Raises:
      ValueError: a Keras 3 model with layers that tf_keras has not, or a file that holds none.
    """
    if isinstance(model, (str, os.PathLike)):
        model = _loaded(pathlib.Path(model))
    return from_keras3(model) if is_keras3(model) else model


def from_keras3(model) -> keras.Model:
    """The same functional or Sequential model in tf_keras, with its weights, compared once on random input.

    Raises:
      ValueError: it is subclassed or unbuilt, has layers that tf_keras has not, or computes something else there.
    """
    model = keras3_followed.functional(model)
    graph = getattr(model, "_functional", model)
    if not model.built or not hasattr(graph, "_run_through_graph"):
        raise ValueError(
            f"quantize_model needs a built functional or Sequential model. Received: {model.name!r} of Keras 3, "
            "not built, or subclassed with a call that cannot be followed: build it, and use layers and keras.ops "
            "alone in its call, or call its layers on a keras.Input and make a keras.Model of inputs and outputs"
        )
    conversion = _Conversion()
    conversion.prepare(graph)
    if conversion.problems:
        lines = [f"  {name!r} ({cls}): {problem}" for name, cls, problem in conversion.problems]
        count = "1 layer" if len(lines) == 1 else f"{len(lines)} layers"
        raise ValueError("\n".join([f"{count} of {model.name!r} cannot be built in tf_keras:", *lines]))
    try:
        result = conversion.model(model)
        for source, layer in conversion.weights:
            layer.set_weights(source.get_weights())
        _require_same(model, result)
    except Exception as error:  # either Keras' own, of a layer that is another class there
        if isinstance(error, _Different):
            raise
        problem = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{model.name!r} cannot be built in tf_keras: {problem}. Build it with `import tf_keras as keras`, and "
            "copy the weights"
        ) from error
    return result


class _Different(ValueError):
    """Two models that should compute the same do not."""


def _require_same(model, result: keras.Model) -> None:
    rng, tree = np.random.default_rng(0), sys.modules["keras"].tree
    arrays = [
        rng.uniform(0, 1, (2, *(size or keras3_followed.FEW_SIZES for size in x.shape[1:]))).astype(x.dtype.name)
        for x in result.inputs or []
    ]
    graph = getattr(model, "_functional", model)
    expected = tree.flatten(model(tree.pack_sequence_as(graph._inputs_struct, arrays), training=False))
    found = tree.flatten(result(tree.pack_sequence_as(graph._inputs_struct, arrays), training=False))
    convert = sys.modules["keras"].ops.convert_to_numpy
    for one, other in zip(map(convert, expected), map(np.asarray, found), strict=True):
        if not np.abs(one - other).max() <= TOLERANCE * max(float(np.abs(one).max()), float(np.ptp(one)), 1e-30):
            raise _Different(
                f"{model.name!r} computes something else in tf_keras: up to {np.abs(one - other).max():.3g} away, of "
                f"{np.abs(one).max():.3g}. Build it with `import tf_keras as keras`, and copy the weights"
            )


class _Conversion:
    """The tf_keras layer of each Keras 3 layer, made once."""

    def __init__(self):
        self.layers: dict[int, keras.layers.Layer] = {}
        self.weights: list[tuple] = []
        self.problems: list[tuple[str, str, str]] = []
        self._followed: dict[int, Any] = {}

    def prepare(self, graph) -> None:
        """Makes all layers of a functional model, and notes those that cannot be made."""
        for operation in graph.operations:
            try:
                inner = self._model_in(operation)
                if inner is not None:
                    self.prepare(getattr(inner, "_functional", inner))
                elif not hasattr(operation, "get_weights"):
                    if type(operation).__name__ not in OPERATIONS:
                        _require_operators(operation)
                elif type(operation).__name__ != "InputLayer":
                    self.layer(operation)
            except Exception as error:  # what tf_keras raises of a config that it does not know
                problem = " ".join(str(error).split())[:300]
                problem += "" if any(way in problem for way in ("; use", "file")) else "; use layers that both have"
                self.problems.append((operation.name, type(operation).__name__, problem))

    def model(self, model) -> keras.Model:
        """A functional or Sequential model."""
        tree, graph = sys.modules["keras"].tree, getattr(model, "_functional", model)
        inputs = [keras.Input(x.shape[1:], dtype=x.dtype, name=_name(x._keras_history.operation)) for x in graph.inputs]
        outputs = graph._run_through_graph(inputs, operation_fn=self._callable)
        return keras.Model(tree.pack_sequence_as(graph._inputs_struct, inputs), outputs, name=_name(model))

    def _callable(self, operation):
        if not hasattr(operation, "get_weights"):
            if type(operation).__name__ not in OPERATIONS:
                return operation.call
            return lambda *args, **kwargs: OPERATIONS[type(operation).__name__](operation, *args, **kwargs)
        layer, parameters = self.layer(operation), inspect.signature(operation.call).parameters
        inner = self._model_in(operation)

        def call(*args, **kwargs):
            # A node holds defaults, too: `training=True` of augmentation layers is not the user's.
            own = {key: value for key, value in kwargs.items() if not _is_default(parameters.get(key), value)}
            takes_list = len(args) > 1 and not keras3_followed.is_keras3s(operation)
            result = layer(list(args), **own) if takes_list else layer(*args, **own)
            pair = (operation, layer)
            own_weights = not isinstance(layer, keras.layers.Normalization)  # its mean and variance are in its config
            if own_weights and pair not in self.weights and inner is None and not hasattr(layer, "layer"):
                self.weights.append(pair)
            return result

        return call

    def layer(self, source) -> keras.layers.Layer:
        """The tf_keras layer of a Keras 3 layer, or the model of a nested one."""
        if id(source) not in self.layers:
            inner = self._model_in(source)
            if inner is not None:
                self.layers[id(source)] = self.model(inner)
            elif type(source).__name__ == "TimeDistributed" and keras3_followed.is_keras3s(source):
                layer = self.layer(source.layer)
                self.layers[id(source)] = keras.layers.TimeDistributed(layer, name=_name(source))
                if self._model_in(source.layer) is None:
                    self.weights.append((source.layer, layer))
            else:
                self.layers[id(source)] = _layer(source)
        return self.layers[id(source)]

    def _model_in(self, operation):
        """A nested model, or what the call of a layer of the user's class does as one; None for any other operation."""
        if hasattr(getattr(operation, "_functional", operation), "_run_through_graph"):
            return operation
        if not hasattr(operation, "get_weights") or keras3_followed.is_keras3s(operation):
            return None
        if id(operation) not in self._followed:
            given = keras3_followed.arguments_of(operation)
            is_function = keras3_followed.is_function(operation)
            self._followed[id(operation)] = None if is_function else keras3_followed.followed(operation, *given)
        return self._followed[id(operation)]


def _name(source) -> str:
    """A name that TensorFlow takes as a scope, which Keras 3 does not ask for."""
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", source.name)
    return name if re.match("[A-Za-z0-9.]", name) else f"layer{name}"


def _is_default(parameter, value) -> bool:
    return value is None or (parameter is not None and parameter.default is value)


def _require_operators(operation) -> None:
    """Raises unless an operation is made of TensorFlow's operators, which is so where they are Keras 3's backend."""
    args, kwargs = sys.modules["keras"].tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype) if hasattr(x, "_keras_history") else x,
        keras3_followed.arguments_of(operation),
    )
    try:
        operation.call(*args, **kwargs)
    except Exception as error:  # whatever the operation raises of a tensor that is not its own
        raise ValueError("no operator of TensorFlow's is known for it; use a layer") from error


def _layer(source) -> keras.layers.Layer:
    if not keras3_followed.is_keras3s(source):
        several = len(keras3_followed.arguments_of(source)[0]) > 1
        return keras.layers.Lambda((lambda xs: source.call(*xs)) if several else source.call, name=_name(source))
    require_same_in_training(source, class_of(source, "keras"))
    name = class_of(source, "keras").__name__
    cls = getattr(keras.layers, name, {"CustomScaleLayer": CustomScaleLayer}.get(name))
    if cls is None:
        raise ValueError("tf_keras has no such class; use layers that both have, or cut the model before it")
    if cls is keras.layers.Lambda:
        return cls(source.function, arguments=source.arguments, name=_name(source))
    taken, config = arguments(cls), {}
    for name, value in source.get_config().items():
        name = {"negative_slope": "alpha"}.get(name, name) if cls is keras.layers.LeakyReLU else name
        if name in taken and not name.endswith("_initializer"):
            config[name] = _converted(source, name, value)
    if cls is keras.layers.Normalization:
        config.update({name: np.asarray(getattr(source, name)).ravel() for name in ("mean", "variance")})
        config["axis"] = -1 if config["mean"].size > 1 else None
    return cls(**config)


def _converted(source, name: str, value):
    if name == "name":
        return _name(source)
    if name == "dtype":
        return source.dtype_policy.name
    if name == "activation" or name.endswith("_activation"):
        return activation_of(getattr(source, name, None), _layer)
    own = getattr(source, name, None)
    if value is not None and name.endswith("_regularizer"):
        if not {"l1", "l2"} & set(vars(own)):
            raise ValueError(f"its {name} {type(own).__name__} is none of L1, L2 and L1L2")
        return keras.regularizers.L1L2(float(getattr(own, "l1", 0.0)), float(getattr(own, "l2", 0.0)))
    if value is not None and name.endswith("_constraint"):
        return getattr(keras.constraints, type(own).__name__)(**own.get_config())
    return value


def _loaded(path: pathlib.Path):
    if not path.is_file() or path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(
            f"quantize_model needs a model, or a .keras or .h5 file of one. Received: {os.fspath(path)!r}"
            + ("" if path.exists() else ": nothing is there")
        )
    version = _keras_version(path)
    problem = code_in(path)
    if problem is not None:
        raise ValueError(
            f"{os.fspath(path)!r} {problem}, code that loading would run. If you trust the file, load it yourself: "
            f"quantize_model(tf_keras.models.load_model({os.fspath(path)!r}))"
        )
    if version.startswith("3"):
        import keras as keras3  # noqa: PLC0415 - only a file of Keras 3 needs it

        return keras3.saving.load_model(path, compile=False)
    return keras.models.load_model(path, compile=False)


def _keras_version(path: pathlib.Path) -> str:
    """The version of Keras that wrote a model's file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))["keras_version"]
    with h5py.File(path, "r") as file:
        texts = (file.attrs.get(name, "") for name in ("model_config", "keras_version"))
        config, version = (text.decode() if isinstance(text, bytes) else str(text) for text in texts)
    if not config:
        raise ValueError(
            f"{os.fspath(path)!r} holds weights alone; build the model, and call its load_weights({os.fspath(path)!r})"
        )
    return version
