"""Which operators changed of their own: simulations with known truth, and the distributions they rest on."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from lanaprof.lut import Environment, Estimate, Table, compare_tables
from lanaprof.lut.changes import OPERATORS_LEAST, benjamini_hochberg, find_changes, two_sided_tail


@pytest.mark.parametrize(
    ("degrees", "value"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (7, 2.36462), (30, 2.04227), (10**6, 1.95996)],
)
def test_tails_are_students(degrees: int, value: float) -> None:
    """The two-sided 5 % points of the printed tables."""
    assert 0.05 == pytest.approx(two_sided_tail(value, degrees), abs=1e-5)
    assert 0.05 == pytest.approx(two_sided_tail(-value, degrees), abs=1e-5)


def test_false_discovery_rates_of_the_printed_example() -> None:
    """The 15 p values of Benjamini and Hochberg (1995): four are discoveries at 5 %."""
    chances = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
        0.7590, 1.0000,
    ]  # fmt: skip
    found = benjamini_hochberg(chances)

    assert 4 == sum(1 for q in found if q <= 0.05)
    assert 0.0001 * 15 == pytest.approx(found[0])
    assert list(found) == sorted(found)


def simulate(
    generator: random.Random, count: int, slower: int, *, effect: float, error: float, scatter: float
) -> tuple[list[float], list[float]]:
    """Return shifts and errors: all 1.5 % slower, the first few by ``effect`` more."""
    errors = [error * math.exp(generator.gauss(0, 0.5)) for _ in range(count)]
    shifts = [
        0.015 + (effect if number < slower else 0.0) + generator.gauss(0, math.hypot(each, scatter))
        for number, each in enumerate(errors)
    ]
    return shifts, errors


@pytest.mark.parametrize("scatter", [0.0, 0.005, 0.015])
@pytest.mark.parametrize(("count", "slower"), [(8, 0), (40, 0), (40, 4), (40, 12), (200, 20)])
def test_false_discoveries_are_rare(count: int, slower: int, scatter: float) -> None:
    """Over many upgrades at most 5 % of what is called changed did not, whatever scatter the intervals hide.

    The scatter's floor and the long tails make it cautious, so that the mean stays below the nominal rate.
    """
    generator = random.Random(f"{count} {slower} {scatter}")
    rates = []
    for _ in range(120 if count < 100 else 40):
        changes = find_changes(*simulate(generator, count, slower, effect=0.1, error=0.006, scatter=scatter))
        false = sum(changes.changed[slower:])
        rates.append(false / max(1, sum(changes.changed)))

    assert fmean(rates) <= 0.05


def test_long_tails_are_no_changes() -> None:
    """Nothing changed, but campaigns differ as they do: Student's t with four degrees of freedom, errors of 0.6 %.

    The chance that anything at all of 40 operators is called changed stays small.
    """
    generator = random.Random(13)
    wrong = 0
    for _ in range(200):
        shifts = []
        for _ in range(40):
            squares = sum(generator.gauss(0, 1) ** 2 for _ in range(4))
            shifts.append(0.01 * generator.gauss(0, 1) / math.sqrt(squares / 4))
        wrong += any(find_changes(shifts, [0.006] * 40).changed)

    assert wrong / 200 <= 0.10


def test_real_changes_are_found() -> None:
    """Four of forty operators by 10 %, errors of 0.6 %, scatter of 0.5 %: nearly all are found."""
    generator = random.Random(5)
    found = []
    for _ in range(60):
        changes = find_changes(*simulate(generator, 40, 4, effect=0.1, error=0.006, scatter=0.005))
        found.append(sum(changes.changed[:4]) / 4)

    assert fmean(found) > 0.9


def test_scatter_and_common_shift_are_recovered() -> None:
    """1 % scatter beside errors of 0.6 %, a machine 1.5 % slower, 300 operators."""
    generator = random.Random(7)
    changes = find_changes(*simulate(generator, 300, 0, effect=0.0, error=0.006, scatter=0.01))

    assert 0.015 == pytest.approx(changes.common, abs=0.002)
    assert 0.01 == pytest.approx(changes.scatter, abs=0.0025)


def test_intervals_cover_the_true_ratio() -> None:
    """Of 4000 ratios of measurements with honest 95 % intervals, 95 % hold the truth."""
    generator = random.Random(11)
    environment = Environment(
        backend="b", backend_version="1", cpu_model="c", isa="i", cores=1, smt=False, threads=1
    )

    def estimate(name: str, truth_s: float) -> Estimate:
        error = 0.01 * math.exp(generator.gauss(0, 0.5))
        value = truth_s * math.exp(generator.gauss(0, error))
        half = math.exp(1.96 * error)
        return Estimate(
            operator=name, status="ok", latency_s=value, ci_low_s=value / half, ci_high_s=value * half, cache="hot",
            measurement="m", team="t", host="h", time="2026-01-01T00:00:00Z",
        )  # fmt: skip

    names = [str(number) for number in range(4000)]
    a = Table(environment, [estimate(name, 1e-3) for name in names])
    b = Table(environment, [estimate(name, 1.2e-3) for name in names])
    rows = compare_tables(a, b).operators
    inside = sum(1 for row in rows if row.high is not None and row.low <= 1.2 <= row.high)

    assert 0.95 == pytest.approx(inside / len(rows), abs=0.012)  # four standard errors


def test_a_tiny_but_certain_difference_is_no_change() -> None:
    """Builds of one session differ by 0.3 %: an exact 0.2 % is not called a change."""
    assert not any(find_changes([0.0] * 9 + [0.002], [1e-5] * 10).changed)


def test_an_unbounded_interval_tells_nothing() -> None:
    """Its q is 1, however far its ratio is away."""
    changes = find_changes([0.0] * 9 + [3.0], [0.01] * 9 + [math.inf])

    assert 1.0 == changes.q[-1]
    assert not changes.changed[-1]


def test_too_few_operators_are_not_judged() -> None:
    """One change of four may as well be the machine's."""
    changes = find_changes([0.0, 0.0, 0.0, 1.0], [0.001] * 4)

    assert OPERATORS_LEAST > 4
    assert (False,) * 4 == changes.changed


def test_equal_tables_do_not_differ() -> None:
    """No distances at all are no division by zero."""
    changes = find_changes([0.0] * 20, [0.0] * 20)

    assert 0.0 == changes.common
    assert not any(changes.changed)
