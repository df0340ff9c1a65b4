"""The map of a frontier: what stands in every layer at every latency, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lanaprof.flows.architectures import KINDS, Part, layers_of, parts_of
from lanaprof.flows.axes import SMALL
from lanaprof.flows.drawing import Drawing, Path, Rectangle, Shape, Text, svg_from_drawing, text_width
from lanaprof.flows.frontiers import FrontierPoint
from lanaprof.flows.pages import figure
from lanaprof.units import format_duration

__all__ = ["HOW_TO_READ", "MapRows", "frontier_map", "layer_map", "map_rows", "thinned"]

HOW_TO_READ = (
    "A column is a layer, a height a latency, the fastest on top; breaks are where the operation changes."
)
P = TypeVar("P")
_WIDTH, _LEFT, _RIGHT, _TOP = 860.0, 84.0, 20.0, 40.0
_HEIGHT = 380.0  # of all rows together, where there are enough
_ROW_MOST = 26.0
_TICKS = 8  # latencies that are written
_GAP = 1.0  # between operations, at most
_TITLED = 2.5  # units; lower bars cannot be pointed at, and thousands of titles are a large page
_LAYERS_MOST = 500  # on a page that is not the explorer's
_ROWS_MOST = 80  # likewise
# What became of a layer → colour and share of the column's width: told apart without colours, too.
_LOOKS = {
    "kept": ("muted", 0.14),
    "replaced": ("accent", 0.86),
    "skipped": ("muted", 0.0),
    "part of a span": ("mark", 0.5),
    "not named": ("muted", 0.0),
}


@dataclass(frozen=True, slots=True)
class MapRows:
    """Where the rows of a map lie: the first one's upper edge, and how high each is."""

    top: float
    height: float

    def middle(self, number: int) -> float:
        """Return the height of a row's middle."""
        return self.top + (number + 0.5) * self.height


def map_rows(count: int) -> MapRows:
    """Return where so many rows lie."""
    return MapRows(_TOP, min(_ROW_MOST, _HEIGHT / count))


def layer_map(
    layers: Sequence[str], rows: Sequence[Sequence[Part]], latencies_s: Sequence[float], *, chosen: int | None
) -> Drawing:
    """Return the map: layers across, the points of a frontier downwards, the fastest on top.

    A break in a column is where another operation begins. Scripts find the chosen row's line by the name ``chosen``.

    Args:
        layers: in order, at least one.
        rows: what stands in each layer, by point.
        latencies_s: by point.
        chosen: the number of the point whose row is marked.
    """
    places = map_rows(len(rows))
    width = (_WIDTH - _LEFT - _RIGHT) / len(layers)
    bottom = places.top + places.height * len(rows)
    shapes: list[Shape] = []
    for column in range(len(layers)):
        shapes += _column(column, layers[column], [row[column] for row in rows], latencies_s, (places, width))
    step = max(1, -(-len(rows) // _TICKS))
    for number in range(0, len(rows), step):
        text = format_duration(latencies_s[number], digits=3) if latencies_s[number] > 0 else "0 s"
        at = (_LEFT - 14, places.middle(number) + 4)
        shapes.append(Text(at=at, text=text, colour="muted", size=SMALL, anchor="end"))
    shapes += _names(layers, width, bottom)
    if chosen is not None:
        y = places.middle(chosen)
        ends = ((_LEFT - 10, y), (_WIDTH - _RIGHT + 8, y))
        shapes.append(
            Path(points=ends, colour="mark", width=max(2.0, min(4.0, places.height)), name="chosen")
        )
    shapes += _legend({part.kind for row in rows for part in row})
    label = (
        f"What stands in {len(layers)} layers at {len(rows)} latencies; the table of layers says it of one"
    )
    return Drawing(width=_WIDTH, height=bottom + 44, label=label, shapes=tuple(shapes))


def frontier_map(points: Sequence[FrontierPoint], layers: Sequence[str] = ()) -> str:
    """Return the map of a frontier as a figure with its caption, in HTML; nothing where there is nothing to see.

    Of many points some are drawn, from the fastest to the dearest; of spaces with very many layers there is no map.

    Args:
        points: from cheap to dear.
        layers: in the teacher's order; empty for those that the points name, in natural order.
    """
    shown = thinned(points, _ROWS_MOST)
    order = tuple(layers) or layers_of(each.choices.items() for each in shown[:1] + shown[-1:])
    if not 0 < len(order) <= _LAYERS_MOST or len(points) < 2:
        return ""
    rows = [parts_of(each.choices.items(), order) for each in shown]
    drawing = layer_map(order, rows, [each.latency_s for each in shown], chosen=None)
    return figure(svg_from_drawing(drawing), HOW_TO_READ)


def thinned(points: Sequence[P], most: int) -> tuple[P, ...]:
    """Return so many points at most, evenly from the first to the last.

    >>> thinned("abcdefg", 3)
    ('a', 'd', 'g')
    """
    if len(points) <= most:
        return tuple(points)
    return tuple(points[round(number * (len(points) - 1) / (most - 1))] for number in range(most))


def _column(
    number: int,
    layer: str,
    parts: Sequence[Part],
    latencies_s: Sequence[float],
    places: tuple[MapRows, float],
) -> list[Shape]:
    """Return one layer's bars: one for each run of points that agree."""
    rows, width = places
    found: list[Shape] = []
    begin = 0
    for end in range(1, len(parts) + 1):
        if end < len(parts) and parts[end] == parts[begin]:
            continue
        colour, share = _LOOKS[parts[begin].kind]
        if share:
            height = (end - begin) * rows.height - min(_GAP, 0.3 * rows.height)
            times = [format_duration(max(latencies_s[each], 1e-12), digits=3) for each in (begin, end - 1)]
            title = f"{layer}: {parts[begin].text}, {times[0]} to {times[1]}" if height >= _TITLED else ""
            found.append(
                Rectangle(
                    corner=(_LEFT + (number + (1 - share) / 2) * width, rows.top + begin * rows.height),
                    width=max(0.75, width * share), height=height, colour=colour,
                    title=title,
                )
            )  # fmt: skip
        begin = end
    return found


def _names(layers: Sequence[str], width: float, bottom: float) -> list[Shape]:
    """Return the first and the last layer's names under the map, and as many between as there is room for."""
    widest = max(text_width(name, SMALL) for name in layers) + 12
    step = max(1, int(-(-widest // width)))
    found: list[Shape] = []
    for number in range(0, len(layers), step):
        text = layers[number] if len(layers[number]) <= 24 else layers[number][:23] + "…"
        middle = _LEFT + (number + 0.5) * width
        found.append(Text(at=(middle, bottom + 17), text=text, colour="muted", size=SMALL, anchor="middle"))
    found.append(Text(at=(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, bottom + 38), text="layer", anchor="middle"))
    return found


def _legend(kinds: set[str]) -> list[Shape]:
    found: list[Shape] = []
    x = _LEFT
    for kind in KINDS:
        if kind not in kinds:
            continue
        colour, share = _LOOKS[kind]
        if share:
            corner = (x + 11 * (1 - share) / 2, 9.0)
            found.append(Rectangle(corner=corner, width=11 * share, height=14, colour=colour))
        text = kind if share else f"{kind} (empty)"
        found.append(Text(at=(x + 17, 20), text=text, colour="muted", size=SMALL))
        x += 40 + text_width(text, SMALL)
    return found
