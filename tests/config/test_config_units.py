"""Text with units: what is read, what is refused, what comes back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanaprof.errors import BadInput
from lanaprof.units import (
    RelativeBudget,
    format_duration,
    parse_count,
    parse_duration,
    parse_latency_budget,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5ms", 5e-3),
        ("250us", 250e-6),
        ("250 µs", 250e-6),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("2h", 7200.0),
        (".5ms", 5e-4),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Every unit, with and without a space."""
    assert seconds == pytest.approx(parse_duration(text))


@pytest.mark.parametrize(
    "text", ["5", "", "ms", "-5ms", "0ms", "nanms", "infms", "5 parsecs", "5ms5", "1e400s", "five ms"]
)
def test_bad_durations(text: str) -> None:
    """Without a unit, of no size, or no number: refused with an example."""
    with pytest.raises(BadInput) as caught:
        parse_duration(text)

    assert "write it like" in caught.value.hint


@pytest.mark.parametrize(("text", "advice"), [("5", "5m"), ("5 mss", "10m"), ("soon", "10m")])
def test_advice_is_of_the_usual_size(text: str, advice: str) -> None:
    """A command that takes minutes does not suggest milliseconds."""
    with pytest.raises(BadInput) as caught:
        parse_duration(text, what="--max-time", example="10m")

    assert caught.value.hint == f"write it like {advice}"


@pytest.mark.parametrize("text", ["-50%", "0%", "nan%", "0x", "-2x", "x", "%"])
def test_bad_relative_budgets(text: str) -> None:
    """A share of the teacher is greater than zero, too."""
    with pytest.raises(BadInput):
        parse_latency_budget(text)


def test_relative_budgets() -> None:
    """Half of the teacher, said in two ways."""
    assert RelativeBudget(0.5) == parse_latency_budget("50%") == parse_latency_budget("2x")


def test_sizes_and_counts() -> None:
    """MB is a power of ten, MiB a power of two."""
    assert (20_000_000, 16 * 2**20, 512) == (parse_size("20MB"), parse_size("16MiB"), parse_size("512B"))
    assert (5_000_000, 300_000_000, 12) == (parse_count("5M"), parse_count("300M"), parse_count("12"))


@pytest.mark.parametrize("text", ["20", "20XB", "-1MB"])
def test_bad_sizes(text: str) -> None:
    """A size has a known unit and is greater than zero."""
    with pytest.raises(BadInput):
        parse_size(text)


@given(st.floats(min_value=1e-9, max_value=100.0))
def test_a_printed_duration_reads_back(seconds: float) -> None:
    """Text → seconds → text keeps four digits."""
    assert math.isclose(seconds, parse_duration(format_duration(seconds, digits=6)), rel_tol=1e-5)
