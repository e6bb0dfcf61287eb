"""Every layer class of both Keras: taken, or refused with a way out; nothing else is raised."""

import inspect

import keras
import pytest
import tf_keras

from satkeras import check_model

SHAPES = [(8, 8, 4), (12, 4), (4,), (6, 8, 8, 4)]
# What a constructor needs where one number does not do.
ARGUMENTS = {
    "Activation": ("relu",),
    "Bidirectional": (lambda layers: layers.LSTM(2),),
    "CategoryEncoding": (4,),
    "CenterCrop": (4, 4),
    "ConvLSTM1D": (2, 3),
    "Dot": (1,),
    "EinsumDense": ("...x,xy->...y", 4),
    "Lambda": (lambda layers: keras.ops.relu if layers is keras.layers else abs,),
    "MultiHeadAttention": (2, 2),
    "GroupQueryAttention": (2, 2, 2),
    "Permute": ((2, 1),),
    "RNN": (lambda layers: layers.LSTMCell(2),),
    "Reshape": ((-1,),),
    "SpectralNormalization": (lambda layers: layers.Conv2D(2, 3),),
    "StackedRNNCells": (lambda layers: [layers.LSTMCell(2)],),
    "TimeDistributed": (lambda layers: layers.Dense(2),),
    "Wrapper": (lambda layers: layers.Dense(2),),
}
# No layers of a model: base classes, cells, and those that only load or hold others.
LEFT_OUT = {
    *("AbstractRNNCell", "Layer", "InputLayer", "Wrapper", "InputSpec", "TFSMLayer", "JaxLayer", "FlaxLayer"),
    *("TorchModuleWrapper", "LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"),
}


def classes(module):
    found = {name: cls for name, cls in vars(module.layers).items() if inspect.isclass(cls)}
    return sorted(name for name, cls in found.items() if issubclass(cls, module.layers.Layer) and name not in LEFT_OUT)


def made(module, name):
    cls, layers = getattr(module.layers, name), module.layers
    given = ARGUMENTS.get(name)
    for arguments in [given] if given else [(), (2,), (2, 3), (0.5,), (2, 3, 3)]:
        try:
            values = (
                value(layers) if callable(value) and value.__name__ == "<lambda>" else value for value in arguments
            )
            return cls(*values)
        except (TypeError, ValueError, ImportError, AttributeError):
            continue
    return None


def model_of(module, name):
    """A model of a convolution or dense layer and one layer; None where Keras itself makes none."""
    for shape in SHAPES:
        for count in (1, 2):
            layer, inputs = made(module, name), module.Input(shape)
            if layer is None:
                return None
            try:
                x = module.layers.Dense(4)(inputs)
                result = layer(x) if count == 1 else layer([x, inputs])
                return module.Model(inputs, result)
            except Exception:  # Keras' own, of shapes that this layer does not take
                continue
    return None


@pytest.mark.parametrize("module", [tf_keras, keras], ids=["keras 2", "keras 3"])
def test_every_class(module):
    seen, raised = 0, {}
    for name in classes(module):
        model = model_of(module, name)
        if model is None:
            continue
        seen += 1
        try:
            found = check_model(model)
            problems = [finding.problem for finding in found.findings if finding.problem]
            assert (found.model is None) == bool(problems)
        except ValueError as error:
            problems = [str(error)] if "cannot be built in tf_keras" in str(error) else []
            if not problems:
                raised[name] = repr(error)
        except Exception as error:
            raised[name] = repr(error)
        for problem in problems:
            if not any(word in problem for word in ("use ", "needs ", "behind the file", "before", "feed ", "Build ")):
                raised[name] = problem
    assert not raised, "\n".join(f"{name}: {problem}" for name, problem in raised.items())
    assert seen > 80
