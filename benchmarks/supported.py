"""Writes `docs/supported.md` from the tables of the library: every layer, operator and function that it knows.

python -m benchmarks.supported
"""

import pathlib

from satkeras._compat import keras
from satkeras.models.activations import supported_functions
from satkeras.models.keras3_operations import OPERATIONS
from satkeras.models.layers import TABLE, Kind
from satkeras.models.rewrites import OPERATORS, REWRITES
from satkeras.models.rewrites.inputs import RESIZED
from satkeras.models.unsupported import WAYS_OUT

PATH = pathlib.Path("docs/supported.md")
HEAD = """# What is taken

Written from the library's tables (`python -m benchmarks.supported`). `satkeras.check_model(model)` says the same of
your model, call by call, and `quantize_model` refuses what is not here before anything is built (`Resizing` and
`CenterCrop` with the size to feed).

| a layer ... | layers |
| --- | --- |
"""
FOLLOWED = """

## Layers, models and activation functions of your own

A `Layer` or `Model` subclass inside a model, a whole subclassed model of one input, a `TimeDistributed` layer, a Lambda
and a function given as `activation=` are followed: what counts are the layers and operators that the code calls. Its
weights are those of layers; it adds no losses or metrics, and calls the same in training as at inference. A class that
inherits the call of one of Keras', such as a Conv2D with other defaults, is that class."""


def page() -> str:
    """The page, as Markdown."""
    rows = [f"| {kind.value} | {_classes(cls for cls, row in TABLE.items() if row.kind is kind)} |" for kind in Kind]
    rewritten = _classes(cls for cls in REWRITES if cls not in TABLE and cls not in RESIZED)
    rows.append(f"| is rewritten in those above | {rewritten} |")
    return (
        HEAD
        + "\n".join(rows)
        + FOLLOWED
        + "\n\n## TensorFlow operators in a functional model, and Lambdas of them\n\n"
        + ", ".join(f"`tf.{name}`" for name in sorted(OPERATORS))
        + "\n\n## Operations of Keras 3\n\n"
        + ", ".join(f"`{name}`" for name in sorted(OPERATIONS))
        + "; with TensorFlow as its backend also what is made of the operators above"
        + "\n\n## Activation functions, as an argument or as a layer\n\n"
        + ", ".join(f"`{name}`" for name in supported_functions())
        + "\n\n## What is refused, and the way out\n\n| names with | way out |\n| --- | --- |\n"
        + "\n".join(f"| {', '.join(parts)} | {advice} |" for parts, advice in WAYS_OUT.items())
        + "\n"
    )


def _classes(classes) -> str:
    own = {cls.__name__ if cls.__module__.startswith("satkeras.") else f"`{cls.__name__}`" for cls in classes}
    public = {name for name in own if name.startswith("`") or not hasattr(keras.layers, name)}
    return ", ".join(sorted(public))


if __name__ == "__main__":
    PATH.write_text(page())
