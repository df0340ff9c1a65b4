"""Charts: axes, SVG, PNG, and where they are written."""

from __future__ import annotations

import re
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lanaprof.errors import BadInput
from lanaprof.flows.axes import axis_for, log_axis_for
from lanaprof.flows.comparing import CacheComparison, SourceComparison
from lanaprof.flows.drawing import (
    Circle,
    Dots,
    Drawing,
    Polygon,
    Text,
    png_from_drawing,
    svg_from_drawing,
    text_width,
)
from lanaprof.flows.drawing import Path as Line
from lanaprof.flows.frontiers import FrontierPoint
from lanaprof.flows.layermap import frontier_map
from lanaprof.flows.marks import Mark
from lanaprof.flows.pages import STYLE
from lanaprof.flows.plotting import Bar, bars_chart, frontier_chart, write_frontier
from lanaprof.flows.ratiochart import ratios_chart
from lanaprof.lut import Comparison, Environment, OperatorRatio

POINTS = [FrontierPoint(1e-3, -0.5, {}), FrontierPoint(2e-3, -0.2, {}), FrontierPoint(4e-3, 0.0, {})]


def texts(drawing: Drawing) -> list[str]:
    return [shape.text for shape in drawing.shapes if isinstance(shape, Text)]


@given(
    st.lists(
        st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=1
    )
)
def test_an_axis_holds_its_values(values: list[float]) -> None:
    """All values lie between the ends, ticks rise, and there are neither too few nor too many."""
    axis = axis_for(values)
    ticks = [value for value, _ in axis.ticks]
    slack = 1e-6 * (axis.high - axis.low)

    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 10


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([-0.1, 0.0], ["−0.10", "−0.08", "−0.06", "−0.04", "−0.02", "0.00"]),
        ([0.0, 10.0], ["0.0", "2.5", "5.0", "7.5", "10.0"]),
    ],
)
def test_ticks_are_round(values: list[float], labels: list[str]) -> None:
    """Ticks are 1, 2, 2.5 or 5 times a power of ten, with just the digits they need."""
    assert [text for _, text in axis_for(values, ticks=5 if values[1] < 5 else 4).ticks] == labels


@given(st.lists(st.floats(1e-6, 1e6), min_size=1))
def test_a_logarithmic_axis_holds_its_values(values: list[float]) -> None:
    """All values lie between the ends, which differ, and equal ratios are equal distances."""
    axis = log_axis_for(values)

    assert axis.low <= min(values) * (1 + 1e-9)
    assert max(values) <= axis.high * (1 + 1e-9)
    assert axis.share((axis.low * axis.high) ** 0.5) == pytest.approx(0.5)
    assert 2 <= len(axis.ticks) <= 16


def test_the_frontier_is_a_staircase() -> None:
    """Between two points the cheaper one is the best there is: the line goes across, then up."""
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=None)
    line = next(s for s in drawing.shapes if isinstance(s, Line) and s.colour == "accent")
    steps = list(zip(line.points, line.points[1:], strict=False))

    assert all(a[0] == b[0] or a[1] == b[1] for a, b in steps)
    assert len(line.points) == 2 * len(POINTS)


def test_axes_say_what_and_in_which_unit() -> None:
    """Milliseconds for milliseconds, and the device's name."""
    assert {"latency on cpu (ms)", "score (teacher = 0)", "teacher 5 ms"} <= set(
        texts(frontier_chart(POINTS, device="cpu", teacher_s=5e-3))
    )


def test_selections_are_marked_by_how_sure_they_are() -> None:
    """A measured selection is a full dot, a predicted one hollow."""
    marks = [
        Mark(label="a1", latency_s=2e-3, score=-0.2, measured=True),
        Mark(label="b2", latency_s=3e-3, score=-0.1, measured=False),
    ]
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=None, marks=marks)
    dots = [s for s in drawing.shapes if isinstance(s, Circle) and s.colour == "mark" and s.title]

    assert [(dot.title, dot.hollow) for dot in dots] == [("a1", False), ("b2", True)]


def test_kinds_differ_in_form() -> None:
    """A student is a diamond, a baseline a square: nobody has to tell colours apart."""
    marks = [
        Mark(label=kind, latency_s=2e-3, score=-0.2, measured=True, kind=kind)
        for kind in ("student", "baseline")
    ]
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=None, marks=marks)
    corners = {s.title: s.points for s in drawing.shapes if isinstance(s, Polygon) and s.title}
    centre_x = sum(x for x, _ in corners["student"]) / 4

    assert any(x == pytest.approx(centre_x) for x, _ in corners["student"])  # a corner on top
    assert all(abs(x - centre_x) > 1 for x, _ in corners["baseline"])
    assert {"fine-tuned student", "baseline"} <= set(texts(drawing))


def test_intervals_of_marks_fit_on_the_sheet() -> None:
    """Error bars widen the axes: none of a chart's lines leaves the frame."""
    mark = Mark(
        label="s", latency_s=2e-3, score=-0.2, measured=True, kind="student",
        latency_span_s=(1e-3, 9e-3), score_span=(-2.0, 0.5),
    )  # fmt: skip
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=None, marks=[mark])
    points = [point for s in drawing.shapes if isinstance(s, Line) for point in s.points]

    assert len([s for s in drawing.shapes if isinstance(s, Line) and s.colour == "good"]) == 4
    assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in points)


def test_thousands_of_points_stay_a_small_drawing() -> None:
    """Points of the frontier that cannot be told apart are drawn once; both ends always are."""
    many = [FrontierPoint(1e-3 + n * 1e-7, -1 + n * 1e-4, {}) for n in range(10_000)]
    drawing = frontier_chart(many, device="cpu", teacher_s=None)
    dots = [s for s in drawing.shapes if isinstance(s, Circle) and s.title]

    assert len(dots) <= 1000
    assert (dots[0].title, dots[-1].title) == ("1 ms, score -1.0000", "2 ms, score -0.0001")


def test_labels_do_not_cover_each_other() -> None:
    """Marks at one place: labels take the four places around it, the rest is left to the tooltip."""
    names = [f"mark {number}" for number in range(6)]
    marks = [Mark(label=name, latency_s=2e-3, score=-0.2, measured=True) for name in names]
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=None, marks=marks)
    drawn = [s for s in drawing.shapes if isinstance(s, Text) and s.text in names]

    assert [shape.text for shape in drawn] == names[:4]
    assert len({(shape.at[0] > drawn[0].at[0] - 1, shape.at[1]) for shape in drawn}) == 4


def test_one_point_is_a_chart() -> None:
    """A frontier of a single architecture does not divide by zero."""
    assert "latency on cpu (ms)" in texts(frontier_chart(POINTS[:1], device="cpu", teacher_s=None))


def test_svg_is_well_formed_and_escapes_names() -> None:
    """Names with markup stay text."""
    svg = svg_from_drawing(frontier_chart(POINTS, device='a<b>&"c"', teacher_s=2e-3))
    root = ElementTree.fromstring(svg)

    assert 'latency on a<b>&"c" (ms)' in [
        element.text for element in root.iter() if element.tag.endswith("text")
    ]


def test_bars_name_what_was_selected() -> None:
    """Each layer has the teacher's bar; a skipped layer has no second one, but says so."""
    drawing = bars_chart(
        [Bar("a", 1e-3, 5e-4, "conv(kernel=1)"), Bar("b", 1e-3, 0.0, "skip")], title="latency"
    )

    assert {"a", "b", "conv(kernel=1)", "skip", "latency (ms)"} <= set(texts(drawing))
    assert svg_from_drawing(drawing).count("<rect") == 2 + 1 + 2  # bars, and the legend's two


def test_every_shape_is_painted_in_both_outputs() -> None:
    """Dots and outlines are in the SVG and on the PNG, where they belong."""
    shapes = (
        Dots(points=((10, 10), (30, 10)), radius=3, colour="mark"),
        Polygon(points=((40, 5), (50, 5), (50, 15), (40, 15)), colour="accent", title="a <b>"),
    )
    drawing = Drawing(width=60, height=20, label="shapes", shapes=shapes, description="two & more")
    root = ElementTree.fromstring(svg_from_drawing(drawing))
    image = Image.open(BytesIO(png_from_drawing(drawing))).convert("RGB")

    assert [element.text for element in root.iter() if element.tag.endswith(("desc", "title"))] == [
        "two & more", "a <b>",
    ]  # fmt: skip
    assert [image.getpixel(at) for at in ((20, 20), (60, 20), (90, 20))] == [
        (194, 80, 10), (194, 80, 10), (31, 95, 191),
    ]  # fmt: skip


def test_png_has_the_drawing_on_white() -> None:
    """Two pixels per unit; the frontier's blue is on it, in the same place as in the drawing."""
    drawing = frontier_chart(POINTS, device="cpu", teacher_s=5e-3)
    image = Image.open(BytesIO(png_from_drawing(drawing))).convert("RGB")
    dot = next(s for s in drawing.shapes if isinstance(s, Circle) and s.title)

    assert image.size == (2 * drawing.width, 2 * drawing.height)
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((round(2 * dot.centre[0]), round(2 * dot.centre[1]))) == (31, 95, 191)


def test_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    """The page is self-contained: no address but those of its own parts, no script from elsewhere."""
    write_frontier(tmp_path / "f.html", POINTS, device="cpu", teacher_s=5e-3)
    text = (tmp_path / "f.html").read_text()

    assert "<svg" in text
    assert re.findall(r'src=|href="[^#]|url\(|@import', text) == []


def test_page_gives_the_frontier_in_numbers(tmp_path: Path) -> None:
    """Who cannot see the chart reads its points; it looks as reports do."""
    write_frontier(tmp_path / "f.html", POINTS, device="cpu", teacher_s=5e-3)
    text = (tmp_path / "f.html").read_text()

    assert re.findall(r'<td class="n" data-v="[^"]+">([^<]+)</td>', text) == [
        "1 ms", "20%", "-0.5000", "2 ms", "40%", "-0.2000", "4 ms", "80%", "0.0000",
    ]  # fmt: skip
    assert f"<style>{STYLE}</style>" in text


@pytest.mark.parametrize("name", ["f.png", "f.svg", "f.html"])
def test_known_endings_are_written(tmp_path: Path, name: str) -> None:
    """The ending chooses the format, and nothing else is left behind."""
    write_frontier(tmp_path / name, POINTS, device="cpu", teacher_s=None)

    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["f.pdf", "f", "f.jpeg"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    """An ending nobody can write names those that work."""
    with pytest.raises(BadInput, match=r"\.html, \.png"):
        write_frontier(tmp_path / name, POINTS, device="cpu", teacher_s=None)


@pytest.mark.parametrize("name", ["missing/f.html", "taken.html"])
def test_places_that_cannot_be_written_are_errors(tmp_path: Path, name: str) -> None:
    """A folder that is not there, or that has the file's name, is the user's to change."""
    (tmp_path / "taken.html").mkdir()

    with pytest.raises(BadInput, match="cannot be written"):
        write_frontier(tmp_path / name, POINTS, device="cpu", teacher_s=None)


def test_no_points_are_an_error(tmp_path: Path) -> None:
    """An empty frontier is no chart."""
    with pytest.raises(BadInput, match="no points"):
        write_frontier(tmp_path / "f.html", [], device="cpu", teacher_s=None)


def compared(names: list[str]) -> SourceComparison:
    """Return a comparison of operators with these names, each a little slower than the last."""
    place = Environment(
        backend="b", backend_version="1", cpu_model="c", isa="i", cores=1, smt=False, threads=1, options=()
    )
    rows = tuple(
        OperatorRatio(
            operator=f"{number:032}", ratio=1 + number / 100, low=0.9, high=None, relative=1.0, q=1.0,
            changed=number == 7, disagree=False, noisy=False, cache="hot",
        )
        for number in range(len(names))
    )  # fmt: skip
    comparison = Comparison(
        operators=rows,
        common_ratio=1.0,
        scatter=0.0,
        spread=0.0,
        disagreement=None,
        median=0.0,
        p95=0.0,
        skipped=0,
    )
    texts = tuple((row.operator, name) for row, name in zip(rows, names, strict=True))
    return SourceComparison(
        a=place, b=place, parts=(CacheComparison("hot", "", comparison),), only_a=0, only_b=0, descriptions=texts,
        candidates={}, warnings=(),
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 119])
def test_long_names_of_operators_are_whole(count: int) -> None:
    """They go over several lines, which keep apart from other rows' and stay on the sheet."""
    name = "Conv 1x1 ×2, DepthwiseConv 3x3 ×1, Relu ×3, Add ×1, 48×14×14 → 48×14×14 and 2 more"
    drawing = ratios_chart(compared([name] * count))
    lines = [shape for shape in drawing.shapes if isinstance(shape, Text) and shape.anchor == "end"]
    heights = sorted(line.at[1] for line in lines)

    assert " ".join(line.text for line in lines[: len(lines) // count]) == name
    assert min(line.at[0] - text_width(line.text, line.size) for line in lines) >= 0
    assert min((b - a for a, b in pairwise(heights)), default=12) >= 12
    assert heights[-1] < drawing.height


def test_thousands_of_operators_have_no_names_beside_them() -> None:
    """The name stands in the dot's title alone; what changed of its own is a diamond, not just another colour."""
    drawing = ratios_chart(compared(["Conv"] * 1000))

    assert "Conv" not in texts(drawing)
    assert sum(isinstance(s, Circle) and s.title.startswith("Conv: ") for s in drawing.shapes) == 999
    assert sum(isinstance(s, Polygon) and s.title.startswith("Conv: ") for s in drawing.shapes) == 1


def test_a_page_maps_the_frontier_by_layers(tmp_path: Path) -> None:
    """One bar for each run of points that agree in a layer; skipped layers are empty, a span is in all its layers."""
    choices = [
        {"b.1": "teacher", "b.2": "slim", "b.10": "skip"}, {"b.1": "teacher", "b.2": "slim", "b.10": "teacher"},
        {"b.1..b.2": "conv", "b.10": "teacher"},
    ]  # fmt: skip
    points = [
        FrontierPoint(0.001 * number, float(number), chosen) for number, chosen in enumerate(choices, 1)
    ]
    write_frontier(tmp_path / "f.html", points, device="cpu", teacher_s=None)
    found = frontier_map(points, ["b.1", "b.2", "b.10"])

    assert found in (tmp_path / "f.html").read_text()
    assert re.findall("<title>(.*?)</title>", found) == [
        "b.1: teacher, 1 ms to 2 ms", "b.1: conv over b.1..b.2, 3 ms to 3 ms", "b.2: slim, 1 ms to 2 ms",
        "b.2: conv over b.1..b.2, 3 ms to 3 ms", "b.10: teacher, 2 ms to 3 ms",
    ]  # fmt: skip


@pytest.mark.parametrize("layers", [0, 501])
def test_there_is_no_map_of_nothing_or_of_very_many_layers(layers: int) -> None:
    """Columns would be thinner than a hair."""
    chosen = {f"b.{number}": "teacher" for number in range(layers)}

    assert frontier_map([FrontierPoint(1e-3, -1.0, chosen), FrontierPoint(2e-3, 0.0, chosen)]) == ""
