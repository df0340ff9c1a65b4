"""Charts as one list of shapes with two outputs: SVG text for pages, PNG by Pillow.

Colours are roles (``accent``, ``muted``, …), not values: the SVG takes them from the page's CSS, which has a light
and a dark set, and the PNG from the light one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = [
    "CSS",
    "Circle",
    "Dots",
    "Drawing",
    "Path",
    "Polygon",
    "Rectangle",
    "Shape",
    "Text",
    "png_from_drawing",
    "svg_from_drawing",
    "text_width",
]

Point = tuple[float, float]

# role → (light, dark); hues stay apart for colour-blind readers, contrast to the paper is at least 3
_COLOURS: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14171c"),
    "ink": ("#1c2128", "#e8eaed"),
    "muted": ("#5c6570", "#9aa4b0"),
    "grid": ("#e5e8ec", "#2a3038"),
    "accent": ("#1f5fbf", "#78aef5"),
    "soft": ("#a9c3ea", "#34507c"),
    "mark": ("#c2500a", "#f59e5b"),
    "good": ("#1a7f4b", "#58c48c"),
    "bad": ("#b3261e", "#f28b82"),
}

CSS = (
    ":root{color-scheme:light dark;"
    + "".join(f"--{role}:{light};" for role, (light, _) in _COLOURS.items())
    + "}@media (prefers-color-scheme:dark){:root{"
    + "".join(f"--{role}:{dark};" for role, (_, dark) in _COLOURS.items())
    + "}}"
    + "svg.chart{display:block;width:100%;height:auto;font-family:inherit}"
    + "svg.chart .hot{cursor:default}svg.chart .hot:hover{stroke:var(--ink);stroke-width:1.5}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A line through points; ``dash`` makes it broken, scripts find it by its ``name``."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0
    dash: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """A filled dot; ``title`` is shown where the pointer rests.

    ``hollow`` fills the middle with paper, ``open`` with nothing; scripts find it by its ``name``.
    """

    centre: Point
    radius: float
    colour: str
    title: str = ""
    hollow: bool = False
    open: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Many small dots without a word, as one shape: thousands of them stay a small file."""

    points: tuple[Point, ...]
    radius: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygon:
    """A filled or hollow outline, such as a diamond, with a title like a circle's."""

    points: tuple[Point, ...]
    colour: str
    title: str = ""
    hollow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """A filled bar from its upper left corner."""

    corner: Point
    width: float
    height: float
    colour: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A line of text at its baseline; ``anchor`` is start, middle or end; ``upright`` turns it by 90 degrees."""

    at: Point
    text: str
    colour: str = "ink"
    size: float = 12.0
    anchor: str = "start"
    bold: bool = False
    upright: bool = False


Shape = Path | Circle | Dots | Polygon | Rectangle | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Shapes on a sheet, in the order they are painted.

    ``label`` names the chart for screen readers, ``description`` says what is to be seen in it.
    """

    width: float
    height: float
    label: str
    shapes: tuple[Shape, ...]
    description: str = ""


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is, in the units of its size; fonts differ by some 10 %."""
    return 0.56 * size * len(text)


# ------------------------------------------------------------------------------------------------- SVG


def svg_from_drawing(drawing: Drawing) -> str:
    """Return an ``<svg>`` element that scales with its container and takes colours from the page."""
    body = "".join(_svg(shape) for shape in drawing.shapes)
    if drawing.description:
        body = f"<desc>{escape(drawing.description)}</desc>{body}"
    return (
        f'<svg class="chart" viewBox="0 0 {_number(drawing.width)} {_number(drawing.height)}" role="img" '
        f'aria-label="{escape(drawing.label)}" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _svg(shape: Shape) -> str:
    if isinstance(shape, Path):
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
        dash = ' stroke-dasharray="5 4"' if shape.dash else ""
        dash += f' class="{escape(shape.name)}"' if shape.name else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="var(--{shape.colour})" '
            f'stroke-width="{_number(shape.width)}" stroke-linejoin="round"{dash}/>'
        )
    if isinstance(shape, Text):
        x, y = (_number(value) for value in shape.at)
        turn = f' transform="rotate(-90 {x} {y})"' if shape.upright else ""
        weight = ' font-weight="600"' if shape.bold else ""
        return (
            f'<text x="{x}" y="{y}" fill="var(--{shape.colour})" font-size="{_number(shape.size)}" '
            f'text-anchor="{shape.anchor}"{weight}{turn}>{escape(shape.text)}</text>'
        )
    if isinstance(shape, Dots):  # lines of no length with round ends
        marks = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in shape.points)
        return (
            f'<path d="{marks}" fill="none" stroke="var(--{shape.colour})" '
            f'stroke-width="{_number(2 * shape.radius)}" stroke-linecap="round"/>'
        )
    title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
    named = [shape.name] if isinstance(shape, Circle) and shape.name else []
    kinds = [*(["hot"] if shape.title else []), *named]
    hot = f' class="{escape(" ".join(kinds))}"' if kinds else ""
    fill = f'fill="var(--{shape.colour})"'
    if not isinstance(shape, Rectangle) and shape.hollow:
        fill = f'fill="var(--paper)" stroke="var(--{shape.colour})" stroke-width="2"'
    if isinstance(shape, Circle) and shape.open:
        fill = f'fill="none" stroke="var(--{shape.colour})" stroke-width="3"'
    if isinstance(shape, Polygon):
        outline = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
        return f'<polygon points="{outline}" {fill}{hot}>{title}</polygon>'
    if isinstance(shape, Circle):
        x, y = (_number(value) for value in shape.centre)
        return f'<circle cx="{x}" cy="{y}" r="{_number(shape.radius)}" {fill}{hot}>{title}</circle>'
    x, y = (_number(value) for value in shape.corner)
    size = f'width="{_number(shape.width)}" height="{_number(shape.height)}"'
    return f'<rect x="{x}" y="{y}" {size} rx="1.5" {fill}{hot}>{title}</rect>'


# ------------------------------------------------------------------------------------------------- PNG

_SCALE = 2  # pixels per unit, as on a dense screen
_FINER = 2  # drawn so many times larger, then reduced: smooth edges
_DASH = (5.0, 4.0)  # units on, units off
# Pillow's own font has no such letters, and no other font is sure to be there.
_PLAIN = str.maketrans({"µ": "u", "×": "x", "–": "-", "−": "-", "…": "...", "→": "->", "·": "-", "≤": "<="})


def png_from_drawing(drawing: Drawing) -> bytes:
    """Return the drawing as a PNG file on white paper, twice as many pixels wide as its width says."""
    from PIL import Image, ImageDraw  # not needed for SVG

    factor = _SCALE * _FINER
    size = (round(drawing.width * factor), round(drawing.height * factor))
    image = Image.new("RGB", size, _light("paper"))
    canvas = ImageDraw.Draw(image)
    texts = [shape for shape in drawing.shapes if isinstance(shape, Text)]
    for shape in drawing.shapes:
        if not isinstance(shape, Text):
            _paint(canvas, shape, factor)
    image = image.resize((size[0] // _FINER, size[1] // _FINER), Image.Resampling.LANCZOS)
    for text in texts:  # the font smooths its own edges
        _write(image, text)
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _light(role: str) -> str:
    return _COLOURS[role][0]


def _paint(canvas: ImageDraw, shape: Path | Circle | Dots | Polygon | Rectangle, factor: float) -> None:
    colour = _light(shape.colour)
    if isinstance(shape, Dots):
        for centre in shape.points:
            _paint(canvas, Circle(centre=centre, radius=shape.radius, colour=shape.colour), factor)
        return
    if isinstance(shape, Polygon):
        points = [(x * factor, y * factor) for x, y in shape.points]
        outline = {"fill": _light("paper"), "outline": colour, "width": round(2 * factor)}
        canvas.polygon(points, **(outline if shape.hollow else {"fill": colour}))
        return
    if isinstance(shape, Path):
        for piece in _dashes(shape.points) if shape.dash else [shape.points]:
            points = [(x * factor, y * factor) for x, y in piece]
            canvas.line(points, fill=colour, width=max(1, round(shape.width * factor)), joint="curve")
    elif isinstance(shape, Circle):
        (x, y), radius = shape.centre, shape.radius
        box = [value * factor for value in (x - radius, y - radius, x + radius, y + radius)]
        if shape.hollow or shape.open:
            middle = None if shape.open else _light("paper")
            canvas.ellipse(box, fill=middle, outline=colour, width=round(2 * factor))
        else:
            canvas.ellipse(box, fill=colour)
    else:
        x, y = shape.corner
        canvas.rectangle([value * factor for value in (x, y, x + shape.width, y + shape.height)], fill=colour)


def _dashes(points: Sequence[Point]) -> list[tuple[Point, ...]]:
    """Return the pieces of a broken line."""
    pieces: list[tuple[Point, ...]] = []
    on, off = _DASH
    for (x0, y0), (x1, y1) in pairwise(points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        at = 0.0
        while at < length:
            ends = [
                (x0 + (x1 - x0) * t / length, y0 + (y1 - y0) * t / length) for t in (at, min(at + on, length))
            ]
            pieces.append(tuple(ends))
            at += on + off
    return pieces


def _write(image: Any, text: Text) -> None:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=text.size * _SCALE)
    words = text.text.translate(_PLAIN)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
    colour = _light(text.colour)
    x, y = text.at[0] * _SCALE, text.at[1] * _SCALE
    bold = 0.3 * _SCALE if text.bold else 0  # the font has one weight: a thin outline makes another
    if not text.upright:
        ImageDraw.Draw(image).text((x, y), words, fill=colour, font=font, anchor=anchor, stroke_width=bold)
        return
    length, height = round(font.getlength(words)) + 2, round(text.size * _SCALE * 1.5)
    label = Image.new("L", (length, height), 0)
    ImageDraw.Draw(label).text((1, height * 0.75), words, fill=255, font=font, anchor="ls", stroke_width=bold)
    label = label.rotate(90, expand=True)
    along = {"start": length, "middle": length / 2, "end": 0}[text.anchor]
    image.paste(colour, (round(x - height * 0.75), round(y - along)), label)
