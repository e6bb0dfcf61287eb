"""Draws `docs/sat.svg`: what SAT makes of a weight and of an activation, and the gradient of its clip value.

    python -m benchmarks.sat_picture

The curves are the library's own functions.
"""

import pathlib

import matplotlib
import matplotlib.figure
import numpy as np
import tensorflow as tf

from satkeras.formulas import activations
from satkeras.formulas.weights import clamp_weights, odd_grid_ste

PATH = pathlib.Path("docs/sat.svg")
BLUE, RED, GREY = "#4575b4", "#d73027", "#999999"
ALPHA, LEVELS = 2.0, (0, 3)


def alpha_gradient(formula, x: np.ndarray) -> np.ndarray:
    """For each value of x, the derivative of its quantized one by alpha."""
    alpha = tf.fill(x.shape, ALPHA)  # one for each value, so that their gradients stay apart
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        y = formula(tf.constant(x), alpha, LEVELS)
    return tape.gradient(y, alpha).numpy()


def picture() -> matplotlib.figure.Figure:
    """Three panels."""
    figure = matplotlib.figure.Figure(figsize=(11, 3.4), layout="constrained")
    weight, activation, gradient = figure.subplots(1, 3)

    w = np.linspace(-1.5, 1.5, 1201, dtype=np.float32)
    clamped = clamp_weights(w)
    weight.plot(w, clamped, color=GREY, label="clamped: tanh(w) / max |tanh(w)|")
    weight.plot(w, odd_grid_ste(clamped, 4), color=BLUE, linewidth=1, label="4 bits, 16 levels")
    weight.plot(w, odd_grid_ste(clamped, 2), color=RED, label="2 bits, 4 levels")
    weight.set(title="a weight", yticks=[-1, 0, 1], xlabel="latent weight w")

    x = np.linspace(-0.5, 3.5, 1201, dtype=np.float32)
    activation.plot(x, np.clip(x, 0, ALPHA), color=GREY, label="clipped at α = 2")
    activation.plot(x, activations.pact(x, tf.constant(ALPHA), LEVELS), color=RED, label="2 bits, 4 levels")
    activation.axvline(ALPHA, color=GREY, linestyle=":")
    activation.set(title="an activation", xlabel="x")

    gradient.plot(x, alpha_gradient(activations.pact, x), color=GREY, label="PACT")
    gradient.plot(x, alpha_gradient(activations.calibrated_pact, x), color=RED, label="SAT, calibrated")
    gradient.axvline(ALPHA, color=GREY, linestyle=":")
    gradient.set(title="its part of α's gradient", xlabel="x")

    weight.set_ylim(-1.05, 1.9)  # room for the legend
    for axes in (weight, activation, gradient):
        axes.legend(fontsize=8, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "satkeras", "font.family": "sans-serif"}):
        picture().savefig(PATH, metadata={"Date": None})
