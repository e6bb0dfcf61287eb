"""The ways out of what no exact integer operator computes, by Keras class."""

from satkeras._compat import keras
from satkeras.models.layers import row_of

# Parts of class names, and what to do instead.
WAYS_OUT = {
    ("LSTM", "GRU", "RNN", "Bidirectional", "StackedRNNCells", "SimpleRNN", "ConvLSTM"): "a recurrent layer rounds its "
    "state otherwise in every runtime; use Conv1D layers with padding='causal', or run it behind the file",
    ("Attention", "AdditiveAttention", "MultiHead", "GroupedQuery"): "attention multiplies tensors that no int8 kernel "
    "multiplies exactly; run it behind the file",
    ("LayerNormalization", "GroupNormalization", "RMSNormalization", "SpectralNormalization"): "it divides by what it "
    "reads, which no int8 kernel does exactly; use BatchNormalization",
    ("LocallyConnected",): "no kernel has other weights at every place; use Conv2D, or Flatten and Dense",
    ("Conv3D",): "no int8 kernel has three dimensions; use 2-D layers, the third dimension among the channels or the "
    "batch",
    ("Embedding", "Lookup", "Hashing", "Vectorization", "Discretization", "Encoding", "HashedCrossing"): "it reads "
    "integers or text; look them up before the file, and give the model the numbers",
    ("TimeDistributed",): "the layer inside cannot be called step by step: give it a fixed number of steps and a layer "
    "that is refused nowhere else",
    ("Dot", "Einsum"): "no int8 kernel multiplies two tensors' matrices exactly; run it behind the file",
}
# The same by TensorFlow operator.
OPERATORS_OUT = {
    "math.argmax": "compare the file's outputs behind it, which loses nothing: values.argmax(-1)",
}


def cannot_be_followed(name: str) -> str:
    """Why a layer of a class that is not Keras' is refused."""
    return (
        f"{name} is no class of Keras', and its call cannot be followed: for that it may use layers and TensorFlow "
        "functions alone, no weights, losses or metrics of its own, and do the same in training. Else run it behind "
        "the file"
    )


def unknown_class(layer: keras.layers.Layer) -> str:
    """Why a layer of a class without a row is refused, and the way out; "" if it has a row."""
    if row_of(layer) is not None:
        return ""
    name = type(layer).__name__
    for parts, advice in WAYS_OUT.items():
        if any(part in name for part in parts):
            return advice
    if isinstance(layer, keras.Model):
        return f"{name} is a subclassed model, whose layers cannot be seen from outside; call them one by one"
    if not type(layer).__module__.startswith("tf_keras."):
        return cannot_be_followed(name)
    return f"no operator computes {name} exactly; use other layers, or run it behind the file"
