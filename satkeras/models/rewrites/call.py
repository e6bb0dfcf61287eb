"""The call of a layer that is rewritten, and what a rewrite makes of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from satkeras._compat import call_of, keras, takes_training
from satkeras.models.graph import Node

_layers = keras.layers


class Refused(Exception):
    """A use of a layer that core layers cannot compute, with the reason and the way out."""


class CoreLayers:
    """The layers of a core model while it is being built: each part of a source layer is made once.

    Attributes:
      weights: those that each layer gets when the model is there.
      called: every call of a layer so far, with the tensors that it reads.
      images: by a sequence's id the image that it stands for.
      groups: by a tensor's id the groups of channels that it joins.
    """

    def __init__(self):
        self.weights: dict[keras.layers.Layer, Sequence[np.ndarray]] = {}
        self.called: list[tuple[keras.layers.Layer, list]] = []
        self.images: dict[int, Any] = {}
        self.groups: dict[int, list] = {}
        self._made: dict[tuple, keras.layers.Layer] = {}
        self._names: set[str] = set()
        self._kept = []  # tensors whose id is a key here

    def layer(self, node: Node, key: tuple, name: str, make) -> keras.layers.Layer:
        """The layer for a part of a node's layer: what `make(name)` returned the first time that it was asked for."""
        key = (id(node.layer), *key)
        if key not in self._made:
            while name in self._names:
                name += "_"
            self._names.add(name)
            self._made[key] = make(name)
        return self._made[key]

    def remember(self, table: dict, tensor, value):
        """Notes what is known of a tensor, and returns the tensor."""
        self._kept.append(tensor)
        table[id(tensor)] = value
        return tensor


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer that is rewritten.

    Attributes:
      node: the call in the user's model.
      name: of the user's layer, with the path to it.
      core: the core model's layers so far.
    """

    node: Node
    name: str
    core: CoreLayers

    @property
    def layer(self):
        """The user's layer."""
        return self.node.layer

    def apply(self, cls: type, x, part: str = "", weights: Sequence[np.ndarray] = (), **config):
        """A tensor through a new core layer, the same one in each call of the user's layer.

        Args:
          cls: the core layer's class.
          x: a symbolic tensor, or a list of them.
          part: a name for what the core layer does; "" for the one that has the user's layer's name.
          weights: its weights, in the order of `get_weights()`.
          config: arguments of `cls`.
        """
        defaults = {"dtype": self._policy(x), "trainable": self.layer.trainable}
        name = f"{self.name}_{part}" if part else self.name
        key = (cls, part, repr(sorted(config.items(), key=lambda item: item[0])))
        layer = self.core.layer(self.node, key, name, lambda name: cls(name=name, **{**defaults, **config}))
        if len(weights):
            self.core.weights[layer] = weights
        return self._called(layer, x)

    def kept(self, x):
        """A tensor, or a list of them, through a copy of the user's layer; for its own inputs, what it made of them."""
        given = list(x) if isinstance(x, (list, tuple)) else [x]
        if self.node.tensor is not None and [*map(id, given)] == [id(parent.tensor) for parent in self.node.inputs]:
            self.core.called.append((self.layer, given))
            return self.node.tensor

        def copy(name):
            return type(self.layer).from_config({**self.layer.get_config(), "name": name})

        layer = self.core.layer(self.node, ("kept",), self.name, copy)
        self.core.weights[layer] = self.layer.get_weights()
        return self._called(layer, x)

    def _called(self, layer, x):
        self.core.called.append((layer, list(x) if isinstance(x, (list, tuple)) else [x]))
        training = self.node.training if takes_training(layer) else None
        return layer(x) if training is None else layer(x, training=training)

    def _policy(self, x):
        """The layer's dtype policy; an operator's is that of what it reads, since it has none of its own."""
        if not hasattr(self.layer, "symbol"):
            return self.layer.dtype_policy
        return call_of(x[0] if isinstance(x, (list, tuple)) else x).layer.dtype_policy

    # Sequences (n, c) as images (1, n, c).

    def image(self, x):
        """A sequence (n, c) as an image (1, n, c); without an operator if it was one before."""
        if id(x) in self.core.images:
            return self.core.images[id(x)]
        if len(x.shape) != 3:
            raise Refused(f"needs sequences of shape (n, channels), gets {tuple(x.shape[1:])}; use its 2-D class")
        length, channels = self.fixed(x)
        return self.apply(_layers.Reshape, x, "image", target_shape=(1, length, channels))

    def sequence(self, image):
        """An image (1, n, c) as the sequence (n, c) that it stands for."""
        _, length, channels = self.fixed(image)
        flat = self.apply(_layers.Reshape, image, "sequence", target_shape=(length, channels))
        return self.core.remember(self.core.images, flat, image)

    def fixed(self, x) -> tuple[int, ...]:
        """The shape of a tensor without its batch axis.

        Raises:
          Refused: a size is not fixed.
        """
        shape = tuple(x.shape[1:])
        if None in shape:
            raise Refused(
                f"needs an input of fixed size, gets {shape}; give quantize_model input_shape=, the sizes to build for"
            )
        return shape


def activation(call: Call, cls: type, x, **config):
    """A core layer that treats every rank alike; of a sequence that is an image, on the image."""
    image = call.core.images.get(id(x))
    if image is None:
        return call.apply(cls, x, **config)
    return call.sequence(call.apply(cls, image, **config))
