"""Spans in what joins the rooms: costs of a problem, the fastest network, what is worth training, composed networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanaprof.config import ProjectConfig, parse_device
from lanaprof.flows.learning import wanted_candidates
from lanaprof.flows.networks import calibration_networks
from lanaprof.flows.operators import export_networks, export_operators
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import _shifted
from lanaprof.flows.starting import init_project
from lanaprof.lut import open_store
from lanaprof.lut.keys import operator_key
from lanaprof.ops import fuse
from lanaprof.profiler.export import exported_graph
from lanaprof.space import Architecture, Layer, Space, Span
from lanaprof.teachers import assemble

SHAPE = (8, 4, 4)
LAYERS = tuple(Layer(name, SHAPE, SHAPE, 10, "s", ("teacher", "conv")) for name in "abcd")
SPANS = (Span("a", "b", "ds"), Span("b", "d", "ds"), Span("b", "d", "skip"), Span("c", "d", "ds"))
SPACE = Space("net", (3, 8, 8), LAYERS, SPANS)
PLACES = [(place.name, operation) for place in SPACE.places for operation in place.candidates]


def networks(space: Space) -> list[tuple[str, ...]]:
    """Return all networks of a small space."""
    found = []
    runs = [(run.name, operation) for run in space.runs for operation in run.candidates]
    for count in range(len(runs) + 1):
        for chosen in itertools.combinations(runs, count):
            covered = [name for run, _ in chosen for name in space.covered(run)]
            if len(set(covered)) < len(covered):
                continue
            free = [layer for layer in space.layers if layer.name not in covered]
            for own in itertools.product(*(layer.candidates for layer in free)):
                named = (*chosen, *zip((layer.name for layer in free), own, strict=True))
                found.append(Architecture("", named).complete(space))
    return found


ALL = networks(SPACE)


def total(costs: Mapping[tuple[str, str], float], choices: tuple[str, ...]) -> float:
    return math.fsum(costs[layer.name, operation] for layer, operation in SPACE.parts(choices))


@given(st.lists(st.integers(-5, 9), min_size=len(PLACES), max_size=len(PLACES)))
def test_costs_below_zero_move_without_changing_any_network(values: list[int]) -> None:
    """No cost is negative, and every network costs with the fixed part what it did."""
    raw = dict(zip(PLACES, map(float, values), strict=True))

    shifted, fixed = _shifted(raw, SPACE, 100.0)

    costs = dict(zip(raw, shifted, strict=True))
    assert min(shifted) >= 0
    assert all(
        math.isclose(100 + total(raw, choices), fixed + total(costs, choices), abs_tol=1e-9)
        for choices in ALL
    )


@dataclass
class Known:
    """What the flows ask of a predictor, from a plain table of seconds."""

    latencies_s: Mapping[tuple[str, str], float]
    space: Space = SPACE

    @property
    def project(self) -> Any:
        return SimpleNamespace(space=self.space, config=SimpleNamespace(seed=0, costs=("params",)))

    def measured_candidates(self) -> dict[str, list[str]]:
        return {
            place.name: [one for one in place.candidates if (place.name, one) in self.latencies_s]
            for place in self.space.places
        }

    def candidate_features(self, layer: str, operation: str) -> tuple[float, ...]:
        return (self.latencies_s[layer, operation], 0.0, 1.0, 0.0)


@given(st.lists(st.integers(1, 9), min_size=len(PLACES), max_size=len(PLACES)))
def test_the_fastest_network_is_found_among_all(values: list[int]) -> None:
    """By way of spans wherever these are faster."""
    known = Known(dict(zip(PLACES, map(float, values), strict=True)))

    fastest = Predictor.cheapest(cast(Predictor, known))

    assert total(known.latencies_s, fastest) == min(total(known.latencies_s, choices) for choices in ALL)


def test_calibration_networks_lean_towards_fast_spans() -> None:
    """Cheap networks have the spans that are faster than their layers, and none that nobody measured."""
    latencies_s = dict.fromkeys(PLACES, 1e-3) | {("b..d", "ds"): 1e-4}
    del latencies_s["c..d", "ds"]

    drawn = calibration_networks(cast(Predictor, Known(latencies_s)), 40, 0)

    leaning = [total(latencies_s, choices) for choices in drawn[1:6]]
    others = [total(latencies_s, choices) for choices in drawn[11:]]
    assert ("teacher",) * 4 == drawn[0]
    assert min(leaning) == pytest.approx(1.1e-3)  # one layer and the fast span
    assert sum(leaning) / len(leaning) < sum(others) / len(others)
    assert not any(name == "c..d" for choices in drawn for name, _ in SPACE.named(choices))


def test_a_span_dearer_than_its_layers_is_hopeless() -> None:
    """The teacher's layers together are what it is compared with, in latency and in every other cost."""
    latencies_s = {("a..b", "ds"): 1.9, ("b..d", "ds"): 3.1, ("c..d", "ds"): 2.1}
    params = {"a..b": 99, "b..d": 31, "c..d": 19}

    def estimate(layer: str, operation: str) -> Any:
        seconds = 1.0 if operation == "teacher" else latencies_s.get((layer, operation))
        if seconds is None:
            return None
        return SimpleNamespace(operator=layer, latency_s=seconds, ci_low_s=seconds, ci_high_s=seconds)

    known: Any = Known({})
    known.find_estimate = estimate
    known.operators = SimpleNamespace(candidates={}, operator=lambda layer, _operation: layer)
    known.table = SimpleNamespace(find=lambda _key: None)
    known.candidate_cost_s = lambda layer, operation: latencies_s.get((layer, operation), 0.0)
    known.fitted = None
    known.statistics = {
        place.name: SimpleNamespace(params=params.get(place.name, 10), weight_bytes=0, peak_bytes=0, macs=0)
        for place in SPACE.places
    }

    wanted = wanted_candidates(known.project, [known])

    assert {"a..b": ("ds",), "b..d": (), "c..d": ("ds",)} == {
        name: chosen for name, chosen in wanted.candidates.items() if ".." in name
    }


TAIL = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(3))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(*blocks), *head)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose three layers can be replaced two or three at a time."""
    folder = tmp_path_factory.mktemp("composed")
    (folder / "chained.py").write_text(TAIL, encoding="utf-8")
    (folder / "ops.txt").write_text("ds\n1.0..1.1: skip\n1.1..1.2: conv\n", encoding="utf-8")
    config = ProjectConfig(
        teacher="chained:network", input="3x8x8", layers=("1.*",), devices=("cpu",), data="random",
        ops=str(folder / "ops.txt"),
    )  # fmt: skip
    return init_project(folder, config)


@pytest.mark.parametrize(
    "choices",
    [
        (("1.0..1.1", "skip"), ("1.2", "ds")),
        (("1.0", "ds"), ("1.1..1.2", "conv")),
    ],
)
def test_networks_with_spans_are_composed_as_torch_exports_them(
    made: Project, choices: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    """The same key, so that a network is timed once however it was made."""
    cpu = parse_device("cpu")
    complete = Architecture("", choices).complete(made.space)
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(made, cpu, store)

        composed = export_networks(made, cpu, store, [complete])[complete]

    network = assemble(made.load_teacher(), choices, space=made.space, seed=0)
    assert operator_key(exported_graph(fuse(network), (1, 3, 8, 8))) == composed


def test_spaces_without_spans_have_the_circuit_they_had(made: Project) -> None:
    """Relay's context does not know of spans: measurements of the layers' candidates stay."""
    plain = replace(made.space, spans=())

    assert plain.relay_digest(1) == made.space.relay_digest(1)
