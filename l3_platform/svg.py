"""Small charts as SVG text: boxes with axes, into which bars, lines and dots are drawn. Takes a millisecond, matplotlib a hundred.

Fit for an `<img>`: nothing is loaded, nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

BLUE, ORANGE, GREY, INK = "#2f6f9f", "#c9792b", "#9a9a9a", "#333333"
FONT = 10.5  # pixels
CHAR = 0.6 * FONT  # mean width of a character


@dataclass
class Axes:
    """A box in pixels with a scale on each side; what is drawn is given in data units. `log_y`: y counts from 1 upwards."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    log_y: bool = False
    drawn: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point, never outside the box."""
        share_x = (x - self.x[0]) / (self.x[1] - self.x[0])
        low, high, y = (math.log10(max(value, 0.5)) for value in (*self.y, y)) if self.log_y else (*self.y, y)
        share_y = (y - low) / (high - low)
        return self.left + self.width * min(max(share_x, 0.0), 1.0), self.top + self.height * (1 - min(max(share_y, 0.0), 1.0))

    def bar(self, x: tuple[float, float], y: tuple[float, float], color: str = BLUE) -> None:
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        self.drawn.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="{color}"/>'
        )

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float = 1.2, dashed: bool = False) -> None:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        dash = ' stroke-dasharray="5,4"' if dashed else ""
        self.drawn.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="{width}"{dash}/>')

    def dots(self, points: Sequence[tuple[float, float]], color: str = BLUE) -> None:
        for x, y in (self.at(*point) for point in points):
            self.drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')

    def note(self, x: float, y: float, said: str, side: str = "start", color: str = INK) -> None:
        """Text beside a point: to the right of it (`start`), to the left (`end`), or above (`middle`)."""
        across, down = self.at(x, y)
        shift, drop = {"start": (4, 3.5), "end": (-4, 3.5), "middle": (0, -3)}[side]
        self.drawn.append(text(across + shift, down + drop, said, side, color))

    def frame(self, x_label: str = "", y_label: str = "") -> None:
        """The left and the lower edge with their ticks; a side without a label has none of its own."""
        bottom = self.top + self.height
        self.drawn.append(
            f'<path d="M{self.left},{self.top}V{bottom}H{self.left + self.width}" fill="none" stroke="{INK}" stroke-width="0.8"/>'
        )
        if x_label:
            for value in ticks(*self.x):
                across, _ = self.at(value, self.y[0])
                self.drawn.append(text(across, bottom + 13, short(value), "middle"))
            self.drawn.append(text(self.left + self.width / 2, bottom + 28, x_label, "middle"))
        if y_label:
            for value in decades(*self.y) if self.log_y else ticks(*self.y):
                _, down = self.at(self.x[0], value)
                self.drawn.append(text(self.left - 5, down + 3.5, short(value), "end"))
            middle = self.top + self.height / 2
            self.drawn.append(text(12, middle, y_label, "middle", turned=True))

    def key(self, names: Sequence[tuple[str, str]], left: float) -> None:
        """Color and name of what is drawn, one below the other."""
        for row, (color, name) in enumerate(names):
            down = self.top + 10 + 14 * row
            self.drawn.append(f'<rect x="{left}" y="{down - 5}" width="14" height="3" fill="{color}"/>')
            self.drawn.append(text(left + 20, down, name))


def text(x: float, y: float, said: str, side: str = "start", color: str = INK, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{side}" fill="{color}"{turn}>{escape(said)}</text>'


def picture(width: float, height: float, *parts: Axes | str) -> bytes:
    drawn = "\n".join(line for part in parts for line in (part.drawn if isinstance(part, Axes) else [part]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="{FONT}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{drawn}\n</svg>\n'
    ).encode()


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values, 1, 2 or 5 apart, within the bounds."""
    span = (high - low) / most
    power = 10 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * span)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 10, 100...; between them 2 and 5 where there are few."""
    powers = range(max(0, math.floor(math.log10(max(low, 1)))), math.ceil(math.log10(max(high, 1))) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    return [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
