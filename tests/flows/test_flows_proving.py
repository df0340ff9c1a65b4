"""The proving loop on networks whose latencies are scripted: what it times, what it tries again, where it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanaprof.errors import BackendError, UserError
from lanaprof.flows import proving
from lanaprof.flows.networks import TimedNetworks, calibration_networks
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.proving import Proof, prove, time_beside
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import FitResult
from lanaprof.profiler.calibration import predict as predict_network
from lanaprof.solver import Problem, problem_from_arrays
from lanaprof.space import Layer, Space

IMAGE = (16, 8, 8)
LATENCIES_S = {TEACHER: 3e-3, "conv": 2e-3, "ds": 1e-3}
ALIKE_S = {TEACHER: 1.02e-3, "conv": 1.01e-3, "ds": 1e-3}
SCORES = {TEACHER: 0.0, "conv": -0.1, "ds": -0.3}
COST = "latency_s@script"
Choices = tuple[str, ...]
Timer = Callable[[int, Choices], float]


@dataclass(frozen=True)
class Known:
    """What the loop asks of a predictor: each network is the sum of its candidates, times the calibration."""

    project: Any
    latencies_s: Mapping[str, float]
    fitted: FitResult | None = None
    cost_name: str = COST

    def measured_candidates(self) -> dict[str, list[str]]:
        return {layer.name: list(layer.candidates) for layer in self.project.space.layers}

    def candidate_features(self, _layer: str, operation: str) -> tuple[float, float, float, float]:
        return (self.latencies_s[operation], 1e4, 1.0, 1e3)

    def features(self, choices: Choices) -> tuple[float, ...]:
        count = len(choices)
        total_s = sum(self.latencies_s[operation] for operation in choices)
        return (total_s, 1e4 * count, float(count), 1e3 * count, 1.0)

    def predict(self, choices: Choices) -> Any:
        if self.fitted is None:
            return SimpleNamespace(latency_s=self.features(choices)[0])
        return predict_network(self.fitted, self.features(choices))


@dataclass
class Scripted:
    """A machine whose latencies are given by campaign and network; notes what was timed in each campaign.

    A network that takes no time at all is one that its runtime refuses.
    """

    layers: int
    timer: Timer
    latencies_s: Mapping[str, float]
    campaigns: list[list[Choices]]

    @property
    def predictor(self) -> Predictor:
        rows = tuple(Layer(f"b{n}", IMAGE, IMAGE, 100, "s", tuple(LATENCIES_S)) for n in range(self.layers))
        config = SimpleNamespace(seed=0)
        project = SimpleNamespace(space=Space("net", (3, 8, 8), rows), config=config)
        return cast(Predictor, Known(project, self.latencies_s))

    def problem(self, _predictor: Predictor) -> Problem:
        names = [f"b{n}" for n in range(self.layers)]
        return problem_from_arrays(
            names,
            [list(LATENCIES_S)] * self.layers,
            scores=list(SCORES.values()) * self.layers,
            costs={COST: list(self.latencies_s.values()) * self.layers},
            fixed={COST: 0.0},
        )

    def time(self, _project: Any, _bench: Any, asked: Sequence[Choices], **_settings: Any) -> TimedNetworks:
        """Stand in for a campaign: the door to the machine."""
        self.campaigns.append(list(asked))
        assert len(self.campaigns) < 20, "the loop does not end"
        found, refused = {}, {}
        for choices in asked:
            seconds = self.timer(len(self.campaigns), choices)
            if not seconds:
                refused[choices] = "no kernel"
                continue
            found[choices] = SimpleNamespace(
                latency_s=seconds, ci_low_s=seconds * 0.999, ci_high_s=seconds * 1.001
            )
        return TimedNetworks(cast(Mapping[Any, Any], found), refused=refused)

    def prove(self, budget_s: float, *, fraction: float | None = None) -> Proof:
        predictor = self.predictor
        return prove(
            predictor.project,
            cast(Any, None),
            predictor,
            problem_of=self.problem,
            budgets={COST: budget_s},
            fraction=fraction,
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    """Return what makes a scripted machine."""

    def make(timer: Timer, *, layers: int = 6, latencies_s: Mapping[str, float] = LATENCIES_S) -> Scripted:
        made = Scripted(layers, timer, latencies_s, [])
        monkeypatch.setattr(proving, "time_networks", made.time)
        return made

    return make


def table_s(choices: Choices) -> float:
    return sum(LATENCIES_S[operation] for operation in choices)


def test_what_the_table_says_is_proved(machine: Callable[..., Scripted]) -> None:
    """Where networks take what the table says, one round and one confirmation are enough."""
    bench = machine(lambda _campaign, choices: table_s(choices))

    proof = bench.prove(12.2e-3)

    assert ("verified", 1, 2) == (proof.status, proof.rounds, len(bench.campaigns))
    assert 12e-3 == pytest.approx(proof.measurement.latency_s)
    assert proof.common_factor == pytest.approx(1.0)


def test_a_refuted_attempt_is_not_retried(machine: Callable[..., Scripted]) -> None:
    """What lay inside in its round and outside when timed once more is not timed a third time, nor returned."""
    first: list[Choices] = []

    def timer(campaign: int, choices: Choices) -> float:
        if campaign == 1 and not first and table_s(choices) > 11.5e-3:
            first.append(choices)  # the best proposal: it comes first
        lucky = campaign == 1 or choices != first[0]
        return table_s(choices) * (1.0 if lucky else 1.08)

    bench = machine(timer)
    proof = bench.prove(12.2e-3)

    assert "verified" == proof.status
    assert first[0] != proof.choices
    assert 2 == sum(first[0] in asked for asked in bench.campaigns)


def test_a_machine_that_refutes_everything_ends_the_loop(machine: Callable[..., Scripted]) -> None:
    """Whatever is timed once more takes three times as long: after six rounds at most it is over the budget."""
    seen: set[Choices] = set()

    def timer(_campaign: int, choices: Choices) -> float:
        again = choices in seen and choices not in anchors
        seen.add(choices)
        return table_s(choices) * (3.0 if again else 1.0)

    bench = machine(timer)
    anchors = set(calibration_networks(bench.predictor, 16, 0))
    proof = bench.prove(12.2e-3)
    times = {choices: sum(choices in asked for asked in bench.campaigns) for choices in seen - anchors}

    assert ("over_budget", None) == (proof.status, proof.teacher)
    assert proof.rounds <= 6
    assert max(times.values()) == 2


def test_an_attempt_that_only_the_usual_speed_refutes_is_not_retried(
    machine: Callable[..., Scripted],
) -> None:
    """Its interval lies inside, but only because the machine was fast that time: more of the same decides nothing."""
    cheapest = ("ds",) * 6

    def timer(campaign: int, choices: Choices) -> float:
        return table_s(choices) * (0.96 if campaign == 2 and choices != cheapest else 1.0)

    bench = machine(timer)
    proof = bench.prove(6.02e-3)  # no room for the reserve, and nothing cheaper

    assert (proof.status, proof.choices) == ("over_budget", cheapest)
    assert proof.measurement.ci_high_s is not None
    assert proof.measurement.ci_high_s <= 6.02e-3
    assert sum(cheapest in asked for asked in bench.campaigns) == 2


def test_anchors_are_in_every_campaign_of_a_tiny_space(machine: Callable[..., Scripted]) -> None:
    """Three networks, all of them proposed: they are the calibration's own, too, and say how fast the machine is."""

    def timer(campaign: int, choices: Choices) -> float:
        return ALIKE_S[choices[0]] * (1.01 if campaign == 1 else 1.02)

    bench = machine(timer, layers=1, latencies_s=ALIKE_S)
    proof = bench.prove(1.05e-3)

    assert [len(asked) for asked in bench.campaigns] == [3] * len(bench.campaigns)
    assert proof.factors == pytest.approx((1.01, 1.02))
    assert proof.status == "verified"


def test_networks_timed_beside_are_judged_at_the_usual_speed(machine: Callable[..., Scripted]) -> None:
    """A campaign on a machine that happens to be 4 % faster lets nothing slip in that is usually over the budget."""
    bench = machine(lambda campaign, choices: table_s(choices) * (0.96 if campaign > 2 else 1.0))
    budget_s = 12.2e-3
    proof = bench.prove(budget_s)
    near, far = ("conv",) * 6, ("conv",) * 5 + (TEACHER,)  # 12 and 13 ms: 12.48 ms in that campaign

    held = time_beside(
        bench.predictor.project,
        cast(Any, None),
        bench.predictor,
        proof,
        [near, far],
        budget_s=12.6e-3,
    )

    assert (True, False) == (held[near].inside, held[far].inside)
    assert 12.48e-3 == pytest.approx(held[far].measurement.latency_s)
    assert held[far].held_s == pytest.approx(13e-3 * (1 + 1 + 0.96) / 3)
    assert (TEACHER,) * 6 in bench.campaigns[-1]


def test_a_relative_budget_is_judged_by_the_teacher_beside(machine: Callable[..., Scripted]) -> None:
    """The table says 18 ms for the teacher, it takes 16 now: 51 % of that has room for 8 ms, not for 9."""
    teacher = (TEACHER,) * 6
    bench = machine(lambda _campaign, choices: 16e-3 if choices == teacher else table_s(choices))
    absolute, relative = bench.prove(9.18e-3), bench.prove(9.18e-3, fraction=0.51)

    assert absolute.measurement.latency_s == pytest.approx(9e-3)
    assert relative.status == "verified"
    assert relative.budget_s == pytest.approx(0.51 * 16e-3)
    assert relative.teacher is not None
    assert relative.measurement.ci_high_s is not None
    assert relative.teacher.latency_s is not None
    assert relative.measurement.latency_s == pytest.approx(8e-3)
    assert relative.measurement.ci_high_s / relative.teacher.latency_s <= 0.51


def test_a_relative_budget_does_not_mind_how_fast_the_machine_is(machine: Callable[..., Scripted]) -> None:
    """A quarter slower in everything than when the table was made: the same network is half the teacher."""
    plain = machine(lambda _campaign, choices: table_s(choices)).prove(9.18e-3, fraction=0.51)
    slower = machine(lambda _campaign, choices: 1.25 * table_s(choices)).prove(9.18e-3, fraction=0.51)

    assert (slower.status, slower.choices) == ("verified", plain.choices)
    assert slower.budget_s == pytest.approx(1.25 * plain.budget_s)


def test_what_is_timed_beside_a_relative_answer_is_held_against_the_teacher_there(
    machine: Callable[..., Scripted],
) -> None:
    """Finalists, too: in their campaign the machine is 4 % faster, and so is the teacher."""
    bench = machine(lambda campaign, choices: table_s(choices) * (0.96 if campaign > 2 else 1.0))
    proof = bench.prove(9.2e-3, fraction=0.51)
    inside, over = ("ds",) * 3 + ("conv",) * 3, ("ds",) * 2 + ("conv",) * 4

    held = time_beside(
        bench.predictor.project, cast(Any, None), bench.predictor, proof, [inside, over], budget_s=1.0
    )

    assert held[inside].budget_s == pytest.approx(0.51 * 18e-3 * 0.96)
    assert (held[inside].inside, held[over].inside) == (True, False)


# ------------------------------------------------------------------------------------------ refused networks


def test_a_refused_proposal_is_not_asked_for_again(machine: Callable[..., Scripted]) -> None:
    """The best by the table cannot be built: the next best is proved, and the proof tells of the other."""
    first: list[Choices] = []

    def timer(campaign: int, choices: Choices) -> float:
        if campaign == 1 and not first:
            first.append(choices)  # the best proposal: it comes first
        return 0.0 if choices == first[0] else table_s(choices)

    bench = machine(timer)
    proof = bench.prove(12.2e-3)

    assert ("verified", [True]) == (proof.status, [first[0] in asked for asked in bench.campaigns[:1]])
    assert not any(first[0] in asked for asked in bench.campaigns[1:])
    assert {"no kernel"} == {one.reason for one in proof.refused}
    assert first[0] in [tuple(operation for _, operation in one.choices) for one in proof.refused]


def test_a_runtime_that_refuses_whatever_is_proposed_ends_the_loop(machine: Callable[..., Scripted]) -> None:
    """After six campaigns of which nothing new came through; the reason is told."""
    anchors: set[Choices] = set()
    bench = machine(lambda _campaign, choices: table_s(choices) if choices in anchors else 0.0)
    anchors |= set(calibration_networks(bench.predictor, 16, 0))

    with pytest.raises(UserError, match=r"6 times nothing that was proposed could be timed.*no kernel"):
        bench.prove(12.2e-3)
    assert 6 == len(bench.campaigns)


def test_a_relative_budget_needs_the_teacher(machine: Callable[..., Scripted]) -> None:
    """A runtime that refuses the teacher: nothing says what half of its latency is."""
    bench = machine(lambda _campaign, choices: 0.0 if set(choices) == {TEACHER} else table_s(choices))

    with pytest.raises(BackendError, match="the teacher could not be timed: no kernel"):
        bench.prove(9.18e-3, fraction=0.51)


def test_finalists_that_are_refused_are_left_out(machine: Callable[..., Scripted]) -> None:
    """Those beside them are judged all the same."""
    broken, fine = ("conv",) * 6, ("ds",) * 6
    bench = machine(lambda campaign, choices: 0.0 if campaign > 2 and choices == broken else table_s(choices))
    proof = bench.prove(12.2e-3)

    held = time_beside(
        bench.predictor.project, cast(Any, None), bench.predictor, proof, [broken, fine], budget_s=12.6e-3
    )

    assert {fine} == set(held)
