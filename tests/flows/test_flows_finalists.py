"""Finalists: who enters, who is out, who wins; how good networks are is scripted here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanaprof.errors import BadInput
from lanaprof.flows.choosing import Chosen, Question
from lanaprof.flows.finalists import (
    Finalist,
    Quality,
    Rules,
    finalists_to_json,
    hold_finalists,
    winner_of,
)
from lanaprof.flows.proving import Held, Proof
from lanaprof.solver import Problem, problem_from_arrays, solve
from lanaprof.space import Layer, Space

LAYERS, OPERATIONS = ("a", "b", "c"), ("teacher", "conv", "ds")
COST = "latency_s@cpu"
SCORES = {"teacher": 0.0, "conv": -0.1, "ds": -0.3}
COSTS_S = {"teacher": 3e-3, "conv": 2e-3, "ds": 1e-3}
BUDGET_S = 6.5e-3
ALL = list(itertools.product(OPERATIONS, repeat=3))
Choices = tuple[str, ...]


def problem() -> Problem:
    pairs = list(itertools.product(LAYERS, OPERATIONS))
    return problem_from_arrays(
        list(LAYERS),
        [list(OPERATIONS)] * 3,
        scores=[SCORES[operation] for _, operation in pairs],
        costs={COST: [COSTS_S[operation] for _, operation in pairs]},
        fixed={COST: 0.0},
    )


def latency_s(choices: Choices) -> float:
    return sum(COSTS_S[operation] for operation in choices)


def predicted(choices: Choices) -> Any:
    return SimpleNamespace(latency_s=latency_s(choices))


PREDICTOR = SimpleNamespace(cost_name=COST, predict=predicted)
SHAPE = (8, 4, 4)
SPACE = Space("net", (3, 8, 8), tuple(Layer(name, SHAPE, SHAPE, 100, "s", OPERATIONS) for name in LAYERS))
PROJECT = SimpleNamespace(space=SPACE)


def question(budget_s: float = BUDGET_S) -> Question:
    """Return what hold_finalists asks of a question."""
    return cast(
        Question,
        SimpleNamespace(
            project=PROJECT,
            predictor=PREDICTOR,
            budgets={COST: budget_s},
            budget_s=budget_s,
            problem=lambda _predictor=None: problem(),
        ),
    )


def chosen(margin_s: float = 0.0) -> Chosen:
    solution = solve(problem(), {COST: BUDGET_S - margin_s})
    choices = tuple(solution.choices[name] for name in LAYERS)
    return Chosen(choices, solution, predicted(choices), margin_s)


def measured(choices: Choices, factor: float = 1.0) -> Any:
    seconds = latency_s(choices) * factor
    return SimpleNamespace(latency_s=seconds, ci_low_s=seconds * 0.99, ci_high_s=seconds * 1.01)


def proof(choices: Choices = ("teacher", "conv", "ds"), status: str = "verified", **fields: Any) -> Proof:
    given = {
        "choices": choices, "score": -0.4, "measurement": measured(choices), "teacher": None, "rounds": 1,
        "corrected": PREDICTOR, "allowed_s": BUDGET_S, "factors": (1.0,), "too_noisy": False,
            "budget_s": BUDGET_S, "fraction": None,
    }  # fmt: skip
    return Proof(status, **{**given, **fields})


@dataclass
class ScriptedJudge:
    """Says what it is told to say; a KL for each network, alike on all images but for their own part."""

    assembled_kl: Mapping[Choices, float]
    tuned_kl: Mapping[Choices, float]
    asked: list[tuple[str, Choices]] = field(default_factory=list)

    def assembled(self, choices: Choices) -> Quality:
        self.asked.append(("assembled", choices))
        return images(self.assembled_kl[choices])

    def tuned(self, choices: Choices, advance: Callable[[float], None]) -> Quality:
        self.asked.append(("tuned", choices))
        advance(1.0)
        return images(self.tuned_kl[choices])


def images(kl: float) -> Quality:
    """Return four images that differ much more from each other than networks do."""
    return Quality(tuple(kl + part for part in (-3.0, -1.0, 1.0, 3.0)))


def by_score(choices: Choices) -> float:
    return 4.0 - sum(SCORES[operation] for operation in choices)


def hold(judge: ScriptedJudge, *, given: Proof | None = None, **rules: Any) -> tuple[Finalist, ...]:
    def timing(networks: Sequence[Choices]) -> dict[Choices, Held]:
        return {choices: Held(measured(choices), latency_s(choices), BUDGET_S) for choices in networks}

    settings = {"count": 4, "overlap": 0.7, "tuned": 2, **rules}
    return hold_finalists(
        question(), chosen(), given, rules=Rules(**settings), judge=judge, timing=timing if given else None
    )


def flat(kl: float = 1.0) -> dict[Choices, float]:
    return dict.fromkeys(ALL, kl)


def test_the_sums_order_is_kept_where_quality_agrees() -> None:
    """Divergence falls as the score rises: the optimum of the tables wins."""
    order = {choices: by_score(choices) for choices in ALL}

    found = hold(ScriptedJudge(order, order))

    assert chosen().choices == found[0].choices
    assert [True, False, False, False] == [one.chosen for one in found]


def test_networks_own_quality_overrules_their_scores() -> None:
    """The last by score that is the first by divergence is selected."""
    order = {choices: -by_score(choices) for choices in ALL}

    found = hold(ScriptedJudge(order, order))

    assert min(found, key=lambda one: one.score).choices == found[0].choices
    assert winner_of(found) is found[0]


def test_a_flip_after_the_short_fine_tune_is_respected() -> None:
    """The second as assembled becomes the first after training; the third had no chance to."""
    order = {choices: by_score(choices) for choices in ALL}
    before = hold(ScriptedJudge(order, order), tuned=0)
    tuned = dict.fromkeys(ALL, 2.0) | {before[1].choices: 1.0, before[2].choices: 0.5}

    found = hold(ScriptedJudge(order, tuned))

    assert [before[1].choices, before[0].choices, before[2].choices] == [one.choices for one in found[:3]]
    assert [True, True, False, False] == [one.tuned is not None for one in found]
    assert found[0].chosen


def test_those_over_the_budget_are_out() -> None:
    """What is timed over the budget is neither judged nor selected, however good; it is said and listed last."""
    told: list[str] = []
    judge = ScriptedJudge({choices: by_score(choices) for choices in ALL}, flat())

    def timing(networks: Sequence[Choices]) -> dict[Choices, Held]:
        return {
            choices: Held(measured(choices, 1.2), 1.2 * latency_s(choices), BUDGET_S) for choices in networks
        }

    found = hold_finalists(
        question(), chosen(), proof(), rules=Rules(4), judge=judge, timing=timing, tell=told.append
    )

    assert (("teacher", "conv", "ds"), True) == (found[0].choices, found[0].chosen)
    assert {found[0].choices} == {choices for _, choices in judge.asked}
    assert [False] * len(found[1:]) == [one.inside for one in found[1:]]
    assert len(found) - 1 == len(told)
    assert "is out: timed, it takes 110.8% of the budget" in told[0]  # 6 ms × 1.2 of 6.5 ms


def test_the_proved_answer_is_among_them_and_not_timed_again() -> None:
    """It enters with its own measurement, whether or not the diverse ones hold it."""
    timed: list[Choices] = []

    def timing(networks: Sequence[Choices]) -> dict[Choices, Held]:
        timed.extend(networks)
        return {choices: Held(measured(choices), latency_s(choices), BUDGET_S) for choices in networks}

    own = proof(("ds", "ds", "ds"), score=-0.9)
    judge = ScriptedJudge(flat(), flat())
    found = hold_finalists(question(), chosen(), own, rules=Rules(3), judge=judge, timing=timing)

    (entered,) = [one for one in found if one.choices == own.choices]
    assert own.measurement is entered.measurement
    assert own.choices not in timed
    assert len(found) == len(timed) + 1 == 4


def test_the_corrected_budget_holds_for_the_diverse_ones() -> None:
    """What the loop learnt about the table's optimism bounds what is proposed to be timed."""
    own = proof(("ds", "ds", "ds"), allowed_s=4.5e-3)
    found = hold(ScriptedJudge(flat(), flat()), given=own)

    assert max(one.predicted_s for one in found) <= 4.5e-3


def test_the_margin_of_the_confidence_holds_without_proof() -> None:
    """Unproved finalists keep the distance from the budget that the answer keeps."""
    judge = ScriptedJudge(flat(), flat())
    found = hold_finalists(question(), chosen(2e-3), None, rules=Rules(4), judge=judge)

    assert max(one.predicted_s for one in found) <= BUDGET_S - 2e-3


def test_no_finalists_without_a_network_inside() -> None:
    """The budget is not met: nothing is judged."""
    judge = ScriptedJudge({}, {})

    assert () == hold(judge, given=proof(status="over_budget"))
    assert [] == judge.asked


def test_a_network_that_gives_no_numbers_is_last() -> None:
    """NaN is no divergence of zero."""
    order = {choices: by_score(choices) for choices in ALL} | {chosen().choices: float("nan")}

    found = hold(ScriptedJudge(order, order), tuned=0)
    rows = finalists_to_json(cast(Any, PROJECT), found)

    assert chosen().choices == found[-1].choices
    assert (None, None) == (rows[-1]["kl"], rows[-1]["kl_standard_error"])


def test_differences_are_paired_by_image() -> None:
    """Images differ by 6 nats, the networks by 0.5 on each: the difference has no error."""
    better, worse = images(1.0), images(1.5)

    assert (0.5, 0.0) == worse.behind(better)
    assert (
        pytest.approx(2.5820 / 2, rel=1e-4) == better.standard_error
    )  # of -3, -1, 1, 3: sd 2.582, four images


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 2, "tuned": -1}])
def test_senseless_rules(wrong: dict[str, int]) -> None:
    """None at all, or fewer than none fine-tuned."""
    with pytest.raises(BadInput):
        Rules(**wrong)
