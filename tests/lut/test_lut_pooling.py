"""Pooled latencies: a random-effects mean on the log scale."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from lanaprof.lut.pooling import Pooled, pool
from lanaprof.lut.records import Timing


def timing(host: str, log_latency: float, error: float = 0.005) -> Timing:
    """Return a measurement around 1 ms whose 95 % interval says a standard error, in log units."""
    latency_s = 1e-3 * math.exp(log_latency)
    half = math.exp(1.959964 * error)
    return Timing(
        id=f"{host}{log_latency}", operator="x", cache="hot", space="", protocol="hot/1", status="ok",
        latency_s=latency_s, ci_low_s=latency_s / half, ci_high_s=latency_s * half, team="t", host=host,
        time="2026-01-01T00:00:00Z",
    )  # fmt: skip


def pooled(*rows: Timing) -> Pooled:
    return pool([rows])[0]


def half_width(found: Pooled) -> float:
    return math.log(found.ci_high_s / found.ci_low_s) / 2


def test_one_measurement_stays_as_it_is() -> None:
    """Nothing is added to a single number, and nothing rounds it."""
    row = timing("a", 0.1)

    found = pooled(row)

    assert (found.latency_s, found.ci_low_s, found.ci_high_s) == (row.latency_s, row.ci_low_s, row.ci_high_s)


def test_agreeing_hosts_narrow_the_interval() -> None:
    """Four equal numbers: their value, and half the standard error of one."""
    found = pooled(*(timing(host, 0.0, 0.004) for host in "abcd"))

    assert found.latency_s == pytest.approx(1e-3)
    assert half_width(found) == pytest.approx(1.959964 * 0.004 / 2)
    assert (found.spread, found.hosts) == (0.0, 4)


def test_interval_grows_with_what_hosts_disagree_about() -> None:
    """The farther two equally exact hosts are apart the wider it is, and it always spans both."""
    found = [pooled(timing("a", -apart), timing("b", apart)) for apart in (0.0, 0.01, 0.02, 0.04)]

    widths = [half_width(each) for each in found]
    assert widths == sorted(widths)
    assert widths[-1] > 0.04
    assert [each.latency_s for each in found] == pytest.approx([1e-3] * 4)


def test_variance_between_two_hosts_by_hand() -> None:
    """Of ±0.03 the variance is 2 · 0.03² = 0.0018, of which 0.005² is the intervals' own."""
    found = pooled(timing("a", -0.03), timing("b", 0.03))

    assert found.spread == pytest.approx(math.sqrt(0.0018 - 0.005**2))
    # Student's with 4 degrees of freedom, at least: 2.776 standard errors of a mean of two.
    assert half_width(found) == pytest.approx(2.776 * math.sqrt(0.0018 / 2), rel=0.005)


def test_a_host_counts_once() -> None:
    """Ten campaigns on one host do not outvote the other host."""
    often = [timing("a", 0.04 + index * 1e-4) for index in range(10)]

    found = pooled(*often, timing("b", -0.04))

    assert math.log(found.latency_s / 1e-3) == pytest.approx(0.0, abs=0.002)


def test_a_vague_measurement_weighs_little() -> None:
    """With hosts that agree, weights are those of the intervals: 25 to 1."""
    found = pooled(timing("a", 0.0, 0.001), timing("b", 0.005, 0.005))

    assert math.log(found.latency_s / 1e-3) == pytest.approx(0.005 / 26)


def test_campaigns_of_one_host_are_pooled_with_what_varies_between_them() -> None:
    """One host measured twice, 4 % apart: the interval spans both."""
    found = pooled(timing("a", -0.02, 0.001), timing("a", 0.02, 0.001))

    assert found.hosts == 1
    assert half_width(found) > 0.02


def test_groups_do_not_mix() -> None:
    """Many groups at once give what each gives alone."""
    groups = [
        [timing("a", 0.0), timing("b", 0.01), timing("b", 0.02)],
        [timing("a", 0.3)],
        [timing("a", 1.0), timing("a", 1.1)],
    ]

    for one, alone in zip(pool(groups), (pooled(*group) for group in groups), strict=True):
        assert one.latency_s == pytest.approx(alone.latency_s)
        assert half_width(one) == pytest.approx(half_width(alone))


def test_intervals_without_width_or_down_to_zero_are_taken() -> None:
    """Neither outweighs everything, nor breaks the logarithm."""
    rows = [timing("a", 0.0, 0.0), timing("b", 0.02)._replace(ci_low_s=0.0)]

    found = pooled(*rows)

    assert 1e-3 <= found.latency_s <= 1e-3 * math.exp(0.02)


@pytest.mark.parametrize(("hosts", "spread", "least"), [(2, 0.0, 0.93), (3, 0.02, 0.84), (5, 0.02, 0.89)])
def test_coverage_in_simulations(hosts: int, spread: float, least: float) -> None:
    """The truth is inside as often as the decision says: less than 95 % with few hosts, never much more."""
    chance = random.Random(7)

    def campaigns(host: int) -> Sequence[Timing]:
        shift = chance.gauss(0.0, spread)
        errors = chance.choices((0.002, 0.004, 0.01), k=chance.choice((1, 2)))
        return [timing(str(host), shift + chance.gauss(0.0, error), error) for error in errors]

    found = pool([[row for host in range(hosts) for row in campaigns(host)] for _ in range(2000)])

    inside = sum(each.ci_low_s <= 1e-3 <= each.ci_high_s for each in found) / len(found)
    assert least < inside < 0.985
