"""Draws `docs/portable.svg`: a channel's sums on their lattice, and the sums on which runtimes part.

    python -m benchmarks.portability_picture

The numbers are those of one channel; which sums are bad, the exporter's own rules say.
"""

import dataclasses
import pathlib

import numpy as np

from tflite_export.portability.channels import Channels
from tflite_export.portability.rounding_rules import disagree
from tflite_export.portability.search import portable_choice

PATH = pathlib.Path("docs/portable.svg")
DIVISOR, MULTIPLIER, BIAS = 6, 0.0787, 1
FIRST, LAST = -47, 47  # of the sums that are drawn
WIDTH, ROW, LEFT = 1040, 92, 20
RED, GREY, BLACK, BLUE = "#d73027", "#bbbbbb", "#222222", "#4575b4"


def channel() -> Channels:
    """A channel of an 8-bit stream, both signs."""
    one = np.float32(1)
    weight = np.array([MULTIPLIER], np.float32)
    divisor, below, above, bias = (np.array([n]) for n in (DIVISOR, -(10**6), 10**6, BIAS))
    return Channels(divisor, below, above, bias, one, weight, one, -128, 127)


def rows() -> list[tuple[str, Channels]]:
    """The channel as it was trained, with another bias, and with the scale and bias that are chosen."""
    given = channel()
    choice = portable_choice(given)
    chosen = dataclasses.replace(given, weight_scale=choice.weight_scale, bias=choice.bias)
    other = dataclasses.replace(given, bias=given.bias + 1)
    return [
        (f"as trained: m = {MULTIPLIER}, bias {BIAS}. In red the sums on which two runtimes part", given),
        (f"bias {BIAS + 1}: the sums move over, and meet other bad ones; 256 levels leave no residue free", other),
        (
            f"m moved by {float(choice.moved[0]):+.2%}, bias {int(choice.bias[0])}: the bad sums line up, none is met",
            chosen,
        ),
    ]


def _x(value: float) -> float:
    return LEFT + (value - FIRST) / (LAST - FIRST) * (WIDTH - 2 * LEFT)


def _row(title: str, found: Channels, top: int) -> list[str]:
    line = top + 58
    sums = np.arange(FIRST, LAST + 1)
    bad = disagree(sums, found.scales, found.lowest, found.highest)
    reached = (sums - found.bias[0]) % DIVISOR == 0
    parts = [f'<text x="{LEFT}" y="{top + 16}" fill="{BLACK}">{title}</text>']
    parts.append(f'<line x1="{_x(FIRST)}" y1="{line}" x2="{_x(LAST)}" y2="{line}" stroke="{GREY}"/>')
    for tie in found.ties / float(found.scales.exact[0]):
        if FIRST <= tie <= LAST:
            parts.append(
                f'<line x1="{_x(tie):.1f}" y1="{line - 26}" x2="{_x(tie):.1f}" y2="{line + 18}" stroke="{BLUE}" '
                'stroke-dasharray="4 3"/>'
            )
    for value, is_bad, is_reached in zip(sums, bad, reached, strict=True):
        colour = RED if is_bad else GREY
        parts.append(
            f'<line x1="{_x(value):.1f}" y1="{line - 5}" x2="{_x(value):.1f}" y2="{line + 5}" stroke="{colour}" '
            f'stroke-width="{3 if is_bad else 1}"/>'
        )
        if is_reached:
            fill = RED if is_bad else BLACK
            parts.append(f'<circle cx="{_x(value):.1f}" cy="{line - 14}" r="5" fill="{fill}"/>')
    return parts


def picture() -> str:
    """The whole picture, as SVG."""
    drawn = rows()
    height = ROW * len(drawn) + 40
    key = (
        "ticks: integers; dots: the sums that inputs can make, bias + 6 n; dashed: ties between two levels; "
        "red ticks: bad sums; a red dot: runtimes part"
    )
    parts = [part for place, (title, found) in enumerate(drawn) for part in _row(title, found, 10 + place * ROW)]
    parts.append(f'<text x="{LEFT}" y="{height - 12}" fill="{BLACK}" font-size="13">{key}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
    return head + 'font-size="15"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    PATH.write_text(picture())
