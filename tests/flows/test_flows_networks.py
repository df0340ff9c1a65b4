"""Whole networks: which are timed to calibrate, and the factor by which a machine is slower as a whole."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanaprof.flows.networks import TimedNetworks, calibration_networks, common_factor
from lanaprof.flows.predicting import Predictor
from lanaprof.lut import Measurement
from lanaprof.ops import SKIP, TEACHER
from lanaprof.space import Layer, Space

LATENCIES_S = {TEACHER: 4e-3, "mbconv(expand=4)": 3e-3, "mbconv(expand=2)": 2e-3, "ds": 1e-3}
IMAGE = (16, 8, 8)


@dataclass(frozen=True)
class Known:
    """What is asked of a predictor here: candidates with their latencies, and networks as sums."""

    space: Space

    @property
    def project(self) -> Any:
        return SimpleNamespace(space=self.space)

    def measured_candidates(self) -> dict[str, list[str]]:
        return {layer.name: list(layer.candidates) for layer in self.space.layers}

    def candidate_features(self, _layer: str, operation: str) -> tuple[float, ...]:
        return (LATENCIES_S.get(operation, 0.0), 0.0, 1.0)

    def predict(self, choices: Sequence[str]) -> Any:
        return SimpleNamespace(latency_s=sum(self.candidate_features("", choice)[0] for choice in choices))


def known(*candidates: str, layers: int = 12) -> Predictor:
    """Return a predictor of a space whose layers all have these candidates."""
    rows = tuple(Layer(f"blocks.{n}", IMAGE, IMAGE, 100, "s", candidates) for n in range(layers))
    return cast(Predictor, Known(Space("net", (3, 8, 8), rows)))


def timed(
    predictor: Predictor, factors: Sequence[float], seed: int = 0
) -> Mapping[tuple[str, ...], Measurement]:
    """Return distinct random networks, each measured at its factor times its prediction."""
    generator = random.Random(seed)
    found: dict[tuple[str, ...], Any] = {}
    while len(found) < len(factors):
        choices = tuple(generator.choice(list(LATENCIES_S)) for _ in range(12))
        if choices not in found:
            latency_s = predictor.predict(choices).latency_s * factors[len(found)]
            found[choices] = SimpleNamespace(latency_s=latency_s)
    return found


# ------------------------------------------------------------------------------------------ the common factor


def test_the_common_factor_is_exact_when_all_shift_alike() -> None:
    """A machine 3 % slower in everything."""
    predictor = known(*LATENCIES_S)

    assert pytest.approx(1.03, rel=1e-12) == common_factor(predictor, timed(predictor, [1.03] * 16))


def test_one_disturbed_network_does_not_decide() -> None:
    """The others scatter by 0.5 %; one that took twice as long moves the factor by less than 0.2 %."""
    generator = random.Random(1)
    predictor = known(*LATENCIES_S)
    factors = [1.02 * math.exp(generator.gauss(0, 0.005)) for _ in range(16)]

    calm = common_factor(predictor, timed(predictor, factors))
    disturbed = common_factor(predictor, timed(predictor, [*factors[:-1], 2.0]))

    assert pytest.approx(calm, rel=2e-3) == disturbed
    assert math.exp(sum(map(math.log, [*factors[:-1], 2.0])) / 16) > 1.04 * calm  # what a mean would say


def test_scatter_averages_out() -> None:
    """Over many campaigns the factor of 16 networks with 0.8 % of scatter is off by 0.2 %, its standard error."""
    predictor, generator = known(*LATENCIES_S), random.Random(2)

    off = []
    for seed in range(40):
        factors = [1.01 * math.exp(generator.gauss(0, 0.008)) for _ in range(16)]
        off.append(math.log(common_factor(predictor, timed(predictor, factors, seed)) / 1.01))

    assert math.sqrt(sum(value**2 for value in off) / len(off)) < 0.003


# ------------------------------------------------------------------------------------ networks to calibrate on


def mean_s(predictor: Predictor, networks: Sequence[tuple[str, ...]]) -> float:
    return sum(predictor.predict(choices).latency_s for choices in networks) / len(networks)


def test_the_teacher_and_cheap_networks_are_among_them() -> None:
    """The first is the teacher; a quarter leans towards cheap candidates, further and further."""
    predictor = known(*LATENCIES_S)

    networks = calibration_networks(predictor, 16, 0)

    assert (TEACHER,) * 12 == networks[0]
    cheap, others = networks[1:5], networks[5:]
    assert mean_s(predictor, cheap) < 0.6 * mean_s(predictor, others)
    assert predictor.predict(cheap[-1]).latency_s < 1.1 * 12 * LATENCIES_S["ds"]


def test_they_are_distinct_and_seeded() -> None:
    """Sixteen different ones, the same again for the same seed, others for another."""
    predictor = known(*LATENCIES_S)
    first, again, other = (calibration_networks(predictor, 16, seed) for seed in (0, 0, 1))

    assert len(set(first)) == len(first) == 16
    assert first == again
    assert set(first) & set(other) <= {(TEACHER,) * 12, ("ds",) * 12}


def test_a_space_with_few_architectures_gives_them_all() -> None:
    """Two layers of two candidates: four, and no endless search."""
    assert 4 == len(calibration_networks(known(TEACHER, "ds", layers=2), 16, 0))


@pytest.mark.parametrize("count", [5, 16, 48, 200])
def test_any_number_can_be_asked_for(count: int) -> None:
    """However far the last of them lean, in layers without choice, too."""
    free = known(*LATENCIES_S)
    rows = free.project.space.layers
    space = Space("net", (3, 8, 8), (*rows, Layer("last", IMAGE, IMAGE, 100, "s", (TEACHER,))))

    networks = calibration_networks(cast(Predictor, Known(space)), count, 0)

    assert count == len(networks)
    assert {TEACHER} == {choices[-1] for choices in networks}


def test_skip_costs_nothing_and_is_the_cheapest() -> None:
    """The one that leans most skips all that can be skipped."""
    assert (SKIP,) * 12 in calibration_networks(known(TEACHER, "ds", SKIP), 32, 0)


# ------------------------------------------------------------------------------------------ too noisy


@pytest.mark.parametrize(
    ("differences", "repeatability", "too_noisy"),
    [
        ((), (0.0, 0.0), False),
        ((0.002, -0.004, 0.006), (0.004, 0.0058), False),
        ((0.011, -0.012, 0.013), (0.012, 0.0129), True),  # above 1 % in the median
        ((0.0, 0.0, 0.0, 0.0, -0.2), (0.0, 0.16), True),  # above 2.5 % at 95 %
    ],
)
def test_second_builds_say_how_well_the_machine_repeats(
    differences: tuple[float, ...], repeatability: tuple[float, float], too_noisy: bool
) -> None:
    """Median and 95 % point of the sizes of the differences, linearly between their order statistics."""
    found = TimedNetworks({}, differences)

    assert pytest.approx(repeatability) == found.repeatability
    assert too_noisy == found.too_noisy
