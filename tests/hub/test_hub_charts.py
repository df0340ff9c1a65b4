"""The charts of a measurement: nothing that was measured is left out unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from lanaprof.flows.drawing import Dots, Drawing, Polygon, Rectangle, Text
from lanaprof.hub.charts import histogram, rounds_chart


def texts(drawing: Drawing) -> list[str]:
    return [shape.text for shape in drawing.shapes if isinstance(shape, Text)]


@pytest.fixture
def disturbed(make: Any) -> Any:
    """A hundred runs of about 1 ms, and one that took 50."""
    samples = (*(1e-3 + step * 1e-6 for step in range(100)), 50e-3)
    return make.measurement(samples=samples, rounds=tuple(step // 10 for step in range(101)))


def test_a_disturbed_run_does_not_squeeze_the_others(disturbed: Any) -> None:
    """It is counted in words beside the bars, which hold all others, in ten of them at least."""
    drawing = histogram(disturbed)
    bars = [shape for shape in drawing.shapes if isinstance(shape, Rectangle)]

    assert "1 more took up to 50 ms" in texts(drawing)
    assert sum(int(bar.title.split()[0]) for bar in bars) == 100
    assert sum(bar.height > 0 for bar in bars) >= 10
    assert "101 samples between 1 ms and 50 ms" in drawing.label


def test_a_disturbed_run_stands_at_the_edge_of_its_round(disturbed: Any) -> None:
    """As a triangle whose title says how long it took."""
    drawing = rounds_chart(disturbed)

    assert [shape.title for shape in drawing.shapes if isinstance(shape, Polygon)] == ["50 ms"]
    assert sum(len(shape.points) for shape in drawing.shapes if isinstance(shape, Dots)) == 100
    assert "1 more took up to 50 ms" in texts(drawing)


@pytest.mark.parametrize(
    "samples", [(1e-3,), (1e-3, 1e-3), (0.0, 0.0, 1e-9), tuple(1e-3 + n * 1e-5 for n in range(9))]
)
def test_runs_that_agree_are_all_drawn(make: Any, samples: tuple[float, ...]) -> None:
    """Few, equal or zero: nothing is beyond the edge."""
    row = make.measurement(samples=samples, rounds=(0,) * len(samples))

    assert not [text for text in (*texts(histogram(row)), *texts(rounds_chart(row))) if "more took" in text]
