"""What charts share: round axes, the frame that places data on a sheet, and marks told apart by their form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lanaprof.flows.drawing import Circle, Path, Polygon, Shape, Text

__all__ = ["SMALL", "Axis", "Frame", "axis_for", "log_axis_for", "marker", "time_unit"]

SMALL = 11.0  # units of a text; a large chart is about 860 wide
_TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with round ticks: the ends in data units, and (value, label) per tick; ``log`` makes it logarithmic."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high end."""
        if self.log:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis_for(values: Sequence[float], *, ticks: int = 6, unit: float = 1.0) -> Axis:
    """Return an axis that holds all values and begins and ends on a round number.

    Args:
        values: at least one, finite.
        ticks: about so many.
        unit: labels are in this unit, e.g. 1e-3 for milliseconds of values in seconds.

    >>> axis_for([0.0, 0.0094], ticks=5, unit=1e-3).ticks
    ((0.0, '0'), (0.002, '2'), (0.004, '4'), (0.006, '6'), (0.008, '8'), (0.01, '10'))
    """
    low, high = min(values) / unit, max(values) / unit
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = abs(high) / 2 or 0.5
        low, high = low - half, high + half
    raw = (high - low) / max(1, ticks)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))  # 2.5 needs one more
    labels = [(number * step, f"{number * step:.{digits}f}") for number in range(first, last + 1)]
    exact = [(float(f"{value * unit:.12g}"), text.replace("-", "−")) for value, text in labels]
    return Axis(exact[0][0], exact[-1][0], tuple(exact))


def log_axis_for(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis that holds all values, with ticks at 1, 2, 5 times powers of ten.

    Args:
        values: at least one, positive, finite.

    >>> log_axis_for([0.03, 0.4]).ticks
    ((0.02, '0.02'), (0.05, '0.05'), (0.1, '0.1'), (0.2, '0.2'), (0.5, '0.5'))
    """
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    first = max(step for step in steps if step <= low * (1 + 1e-9))
    last = min(step for step in steps if step >= high * (1 - 1e-9) and step > first)
    inside = [step for step in steps if first <= step <= last]
    if len(inside) > 7:  # more would crowd: powers of ten alone, and the ends
        inside = [s for s in inside if s in (first, last) or f"{s:e}".startswith("1.0")]
    return Axis(first, last, tuple((step, f"{step:g}") for step in inside), log=True)


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which times up to this one read best, and its seconds."""
    return next(((name, scale) for name, scale in _TIME_UNITS if seconds >= scale), _TIME_UNITS[-1])


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the data lies on the sheet."""

    x: Axis
    y: Axis
    left: float
    top: float
    right: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the data lies on the sheet."""
        across = self.left + self.x.share(x) * (self.right - self.left)
        return across, self.bottom - self.y.share(y) * (self.bottom - self.top)

    def shapes(self, x_title: str, y_title: str) -> list[Shape]:
        """Return grid, ticks and titles; without a title, its place stays empty."""
        found: list[Shape] = []
        for value, text in self.y.ticks:
            height = self.at(self.x.low, value)[1]
            found.append(Path(points=((self.left, height), (self.right, height)), colour="grid"))
            found.append(
                Text(at=(self.left - 8, height + 4), text=text, colour="muted", size=SMALL, anchor="end")
            )
        for value, text in self.x.ticks:
            across = self.at(value, self.y.low)[0]
            found.append(Path(points=((across, self.bottom), (across, self.bottom + 5)), colour="muted"))
            label = Text(
                at=(across, self.bottom + 19), text=text, colour="muted", size=SMALL, anchor="middle"
            )
            found.append(label)
        found.append(Path(points=((self.left, self.bottom), (self.right, self.bottom)), colour="muted"))
        middle = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        if x_title:
            found.append(Text(at=(middle[0], self.bottom + 40), text=x_title, anchor="middle"))
        if y_title:
            found.append(Text(at=(16, middle[1]), text=y_title, anchor="middle", upright=True))
        return found


_FORMS = {  # corners in units of the radius; equal areas look equally large
    "square": ((-0.89, -0.89), (0.89, -0.89), (0.89, 0.89), (-0.89, 0.89)),
    "diamond": ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
    "triangle": ((0.0, -1.4), (1.3, 0.9), (-1.3, 0.9)),
}


def marker(
    form: str, at: tuple[float, float], radius: float, *, colour: str, title: str = "", hollow: bool = False
) -> Shape:
    """Return a mark; different things have different forms, since not everybody can tell colours apart.

    Args:
        form: circle, square, diamond or triangle.
        at: its middle.
        radius: of the circle with the same area, about.
        colour: a role.
        title: shown where the pointer rests.
        hollow: whether only its outline is drawn.
    """
    if form == "circle":
        return Circle(centre=at, radius=radius, colour=colour, title=title, hollow=hollow)
    corners = tuple((at[0] + radius * x, at[1] + radius * y) for x, y in _FORMS[form])
    return Polygon(points=corners, colour=colour, title=title, hollow=hollow)
