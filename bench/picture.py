"""A line chart as SVG, written by hand: axes from zero, a line and a label for each curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 110, 40, 40
COLOURS = ("#2f6fb3", "#c2571a", "#3f8f4f", "#8a4fa3")


@dataclass
class Curve:
    """A line: minutes and megabytes."""

    name: str
    x: list[float]
    y: list[float]


def draw(title: str, curves: Sequence[Curve]) -> str:
    """The picture of all curves."""
    most_x = max([x for curve in curves for x in curve.x], default=0.0) or 1.0
    most_y = max([y for curve in curves for y in curve.y], default=0.0) or 1.0
    step_x, step_y = _step(most_x), _step(most_y)
    top_y = math.ceil(most_y / step_y) * step_y
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at_x(x: float) -> float:
        return LEFT + x / most_x * wide

    def at_y(y: float) -> float:
        return TOP + high - y / top_y * high

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12" fill="#444">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#222">{escape(title)}</text>',
    ]
    for n in range(round(top_y / step_y) + 1):
        y = at_y(n * step_y)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + wide}" stroke="#ddd"/>')
        unit = " MB" if n * step_y >= top_y - step_y / 2 else ""
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{n * step_y:g}{unit}</text>')
    for n in range(int(most_x / step_x) + 1):
        x = at_x(n * step_x)
        unit = " min" if (n + 1) * step_x > most_x else ""
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n * step_x:g}{unit}</text>')
    for number, curve in enumerate(curves):
        if not curve.x:
            continue
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = at_x(curve.x[-1]) + 6, at_y(curve.y[-1]) + 4
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _step(most: float) -> float:
    """A round distance between marks, so that there are some five of them."""
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
