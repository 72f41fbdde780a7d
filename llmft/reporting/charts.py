"""Charts as SVG text, so that a report needs no script, no font, and no other file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH, HEIGHT = 440, 220  # about the width of a card on a page and of a phone, so that text is not scaled
RIGHT, TOP, BOTTOM = 12, 12, 34
DIGIT = 7  # width of a digit in 12 px text: the longest label decides the width of the left axis


@dataclass(frozen=True)
class Line:
    """A series of points, in the color of its CSS class. Without a name it is not in the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    joined: bool = True
    """Whether a line connects the points."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover a range, ends included: steps of 1, 2, or 5 times a power of ten."""
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        high = low + (abs(low) or 1.0)  # a range of less than 1e-6 of its values counts as a single number
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    # 0.999: a range of exactly five steps must not move up to the next step because of rounding.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def chart(lines: Sequence[Line], x_label: str, title: str) -> str:
    """An SVG element with axes; it scales to the width of the page. `title` is the text for screen readers."""
    lines = [replace(line, points=[p for p in line.points if math.isfinite(p[1])]) for line in lines]
    points = [point for line in lines for point in line.points] or [(0.0, 0.0)]  # all NaN: axes without a line
    xs, ys = (
        ticks(min(x for x, _ in points), max(x for x, _ in points)),
        ticks(min(y for _, y in points), max(y for _, y in points)),
    )
    # The x axis ends with the data, and the y axis with a round number. 1e-9: a single point has no width to divide by.
    x0, x1 = min(x for x, _ in points), max(max(x for x, _ in points), min(x for x, _ in points) + 1e-9)
    y0, y1 = ys[0], ys[-1]
    left = 14 + DIGIT * max(len(f"{value:g}") for value in ys)

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x0) / (x1 - x0) * (WIDTH - left - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in ys:
        _, y = at(x0, value)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for value in (value for value in xs if x0 <= value <= x1):
        x, _ = at(value, y0)
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    for line in lines:
        if line.joined:
            path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
            parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if len(line.points) <= 40 or not line.joined:  # circles of more points would touch and hide the line
            dots = "".join(
                f'<circle class="{line.style}" cx="{x}" cy="{y}" r="3"/>' for x, y in (at(*p) for p in line.points)
            )
            parts.append(dots)
    parts.append("</svg>")
    legend = "".join(f'<span class="{line.style}">{escape(line.name)}</span>' for line in lines if line.name)
    return "".join(parts) + f'<p class="legend">{legend}</p>'
