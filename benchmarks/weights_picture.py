"""Draws `docs/weights.svg`: the weights of a kernel, and the levels that they are rounded to.

    python -m benchmarks.weights_picture

The kernel is 3x3x16x16 normal weights, after DoReFa's transform; the grids are the library's own functions.
"""

import pathlib

import numpy as np

from satkeras.formulas.weights import clamp_weights, odd_grid_ste, symmetric_grid_ste

PATH = pathlib.Path("docs/weights.svg")
WIDTH, PANEL, LEFT, BINS = 1040, 150, 20, 63
GREY, BLUE, BLACK = "#cccccc", "#4575b4", "#222222"
GRIDS = [
    ("W4, DoReFa's grid: 16 levels, none of them zero", odd_grid_ste, 4),
    ("W4, the symmetric grid: 15 levels, zero among them; int4 holds it", symmetric_grid_ste, 4),
    ("W2, the symmetric grid: ternary; int2 holds it", symmetric_grid_ste, 2),
]


def kernel() -> np.ndarray:
    """Clamped weights in [-1, 1]."""
    latent = np.random.default_rng(0).normal(0, 0.05, 2304).astype(np.float32)
    return np.asarray(clamp_weights(latent))


def _x(value: float) -> float:
    return LEFT + (value + 1) / 2 * (WIDTH - 2 * LEFT)


def _bar(value: float, share: float, width: float, base: int, colour: str) -> str:
    height = share * (PANEL - 50)
    return (
        f'<rect x="{_x(value) - width / 2:.1f}" y="{base - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}"/>'
    )


def _panel(title: str, weights: np.ndarray, quantized: np.ndarray, top: int) -> list[str]:
    base = top + PANEL - 20
    counts, edges = np.histogram(weights, BINS, (-1, 1))
    levels, sizes = np.unique(quantized, return_counts=True)
    width = (WIDTH - 2 * LEFT) / BINS
    parts = [f'<text x="{LEFT}" y="{top + 16}" fill="{BLACK}">{title}</text>']
    middles = (edges[1:] + edges[:-1]) / 2
    parts += [
        _bar(middle, count / counts.max(), width, base, GREY)
        for middle, count in zip(middles, counts, strict=True)
        if count
    ]
    parts += [
        _bar(level, size / sizes.max(), 6, base, BLUE) for level, size in zip(levels.tolist(), sizes, strict=True)
    ]
    parts.append(f'<line x1="{_x(-1)}" y1="{base}" x2="{_x(1)}" y2="{base}" stroke="{BLACK}"/>')
    return parts


def picture() -> str:
    """The whole picture, as SVG."""
    weights = kernel()
    parts = []
    for place, (title, grid, num_bits) in enumerate(GRIDS):
        quantized = np.round(np.asarray(grid(weights, num_bits)), 6)
        parts += _panel(title, weights, quantized, 10 + place * PANEL)
    height = PANEL * len(GRIDS) + 40
    key = "grey: the latent weights, -1 .. 1; blue: how many come to each level (each scaled to its largest)"
    parts.append(f'<text x="{LEFT}" y="{height - 12}" fill="{BLACK}" font-size="13">{key}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
    return head + 'font-size="15"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    PATH.write_text(picture())
