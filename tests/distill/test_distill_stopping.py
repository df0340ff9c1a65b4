"""Candidates that nothing can select are given up early."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lanaprof.distill import (
    DataSource,
    Limits,
    Progress,
    Recipe,
    distill,
    find_dropped,
    find_trained,
    plan,
)
from lanaprof.distill.stopping import Referee, Standing, is_no_dearer, rung_steps, standing_at
from lanaprof.space import Space
from lanaprof.teachers import Teacher

WORKER = Path(__file__).with_name("killed_worker.py")
SHORT = Recipe(steps=40, batch_size=8)
THIRD = "body.third"
# Linear candidates learn this layer quickly; a single pixel's convolution cannot.
GOOD, BAD = "conv(act=none)", "conv(kernel=1)"
WANTED = {THIRD: (GOOD, BAD)}
BAD_DEARER = {THIRD: {"teacher": ((9.0, 9.1),), GOOD: ((1.0, 1.1),), BAD: ((1.2, 1.3),)}}
BAD_CHEAPER = {THIRD: {"teacher": ((9.0, 9.1),), GOOD: ((1.0, 1.1),), BAD: ((0.8, 0.9),)}}


def _judged(
    costs: Mapping[str, tuple[tuple[float, float], ...]], standings: dict[str, Standing], *, step: int = 100
) -> dict[str, str]:
    referee = Referee({"l": costs}, 200, {})
    verdicts = referee.judge(step, {("l", operation): found for operation, found in standings.items()})
    return {verdict.name[1]: verdict.rival for verdict in verdicts}


def test_worse_and_no_cheaper_is_given_up() -> None:
    """The rival must cost no more beyond both intervals, and have the smaller error."""
    standings = {"conv": Standing(0.1, 0.001), "ds": Standing(0.3, 0.001)}
    assert _judged({"conv": ((1.0, 1.1),), "ds": ((1.1, 1.2),)}, standings) == {"ds": "conv"}
    assert _judged({"conv": ((1.0, 1.1),), "ds": ((1.05, 1.2),)}, standings) == {}  # the intervals overlap
    assert _judged({"conv": ((1.0, 1.1),), "ds": ((1.0, 1.1),)}, standings) == {"ds": "conv"}  # one operator


def test_every_cost_counts() -> None:
    """What is cheaper in one of several costs stays."""
    standings = {"conv": Standing(0.1, 0.001), "ds": Standing(0.3, 0.001)}
    assert _judged({"conv": ((1, 1), (5, 5)), "ds": ((2, 2), (4, 4))}, standings) == {}
    assert _judged({"conv": ((1, 1), (4, 4)), "ds": ((2, 2), (4, 4))}, standings) == {"ds": "conv"}


def test_a_lead_must_be_clear() -> None:
    """A small lead, or one within noise, gives nobody up: candidates still overtake one another."""
    costs = {"conv": ((1, 1),), "ds": ((2, 2),)}
    close = {"conv": Standing(0.1, 0.0), "ds": Standing(0.11, 0.0)}
    noisy = {"conv": Standing(0.1, 0.1), "ds": Standing(0.3, 0.1)}
    assert _judged(costs, close) == {}
    assert _judged(costs, noisy) == {}


def test_early_leads_must_be_larger() -> None:
    """What is enough half-way is not after an eighth."""
    costs = {"conv": ((1, 1),), "ds": ((2, 2),)}
    early, *_, late = rung_steps(200)
    lead = (rung_steps(200)[early] + rung_steps(200)[late]) / 2
    standings = {"conv": Standing(0.1, 0.0), "ds": Standing(0.1 * lead, 0.0)}
    assert _judged(costs, standings, step=early) == {}
    assert _judged(costs, standings, step=late) == {"ds": "conv"}


def test_skip_and_teacher_are_rivals() -> None:
    """A candidate worse than leaving the layer out, or no cheaper than the teacher's layer, is given up."""
    costs = {"teacher": ((2, 2),), "skip": ((0, 0),), "conv": ((1, 1),), "ds": ((3, 3),)}
    standings = {"conv": Standing(0.9, 0.001), "ds": Standing(0.1, 0.001), "skip": Standing(0.5, 0.001)}
    assert _judged(costs, standings) == {"conv": "skip", "ds": "teacher"}


def test_unknown_costs_judge_nobody() -> None:
    """A candidate that nobody measured is neither given up nor a rival."""
    standings = {"conv": Standing(0.1, 0.001), "ds": Standing(0.9, 0.001)}
    assert _judged({"conv": ((1, 1),)}, standings) == {}
    assert _judged({"ds": ((1, 1),)}, standings) == {}


def test_what_diverged_judges_nobody() -> None:
    """An infinite error neither wins nor breaks the comparison of the others."""
    costs = {"conv": ((1, 1),), "ds": ((2, 2),), "conv(kernel=1)": ((0, 0),)}
    standings = {
        "conv(kernel=1)": Standing(float("nan"), float("nan")),
        "ds": Standing(0.9, 0.001),
        "conv": Standing(0.1, 0.001),
    }
    assert _judged(costs, standings) == {"ds": "conv"}


def test_finished_candidates_are_rivals() -> None:
    """Those trained by an earlier call count with what they had at the same rung, not with their last error."""
    costs = {"l": {"conv": ((1.0, 1.0),), "ds": ((2.0, 2.0),)}}
    at = {("l", "ds"): Standing(0.3, 0.001)}
    slow = Referee(costs, 200, {("l", "conv"): {100: Standing(0.29, 0.001)}})
    fast = Referee(costs, 200, {("l", "conv"): {100: Standing(0.1, 0.001)}})
    assert slow.judge(100, at) == ()
    assert [verdict.rival for verdict in fast.judge(100, at)] == ["conv"]


def test_precisions_share_weights_not_costs() -> None:
    """A candidate is given up only where each of its precisions has a rival's that costs no more."""
    only_halves = {"conv@fp16": ((1, 1),), "ds@fp16": ((2, 2),), "ds@bf16": ((0.5, 0.5),)}
    assert not is_no_dearer(only_halves, "conv", "ds")
    assert is_no_dearer({**only_halves, "ds@bf16": ((1, 1),)}, "conv", "ds")


def test_standing_counts_recent_losses() -> None:
    """The losses of untrained weights do not count; the standard error is that of the mean."""
    standing = standing_at([100.0] * 20 + [1.0, 3.0] * 5, 30)
    assert standing.error == 2.0
    assert standing.standard_error == pytest.approx((10 / 9) ** 0.5 / 10**0.5)


def test_survivors_have_the_same_weights(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Giving up others changes no bit of those that are left."""
    whole = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path / "whole")
    kept = distill(
        teacher, space, noise, wanted=WANTED, recipe=SHORT, costs=BAD_DEARER, folder=tmp_path / "kept"
    )
    digests = {one.operation: one.digest for one in whole.candidates}
    assert [one.operation for one in kept.candidates] == [GOOD]
    assert kept.candidates[0].digest == digests[GOOD]
    assert kept.candidates[0].error == next(one.error for one in whole.candidates if one.operation == GOOD)


def test_given_up_is_told_and_not_trained_again(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The file says why; the next call, and the plan, leave the candidate alone."""
    result = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, costs=BAD_DEARER, folder=tmp_path)
    found = find_dropped(tmp_path, result.key)
    entry = found[THIRD, BAD]
    assert list(found) == [(THIRD, BAD)]
    assert (entry.rival, result.stopped, result.stopped_now) == (GOOD, (entry,), 1)
    assert entry.step in rung_steps(SHORT.steps)
    assert entry.error > entry.rival_error > 0
    assert entry.curve[-1][0] == entry.step
    again = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, costs=BAD_DEARER, folder=tmp_path)
    assert (again.trained, again.reused, again.stopped_now, again.stopped) == (0, 1, 0, (entry,))
    promised = plan(teacher, space, noise, wanted=WANTED, recipe=SHORT, costs=BAD_DEARER, folder=tmp_path)
    assert (promised.train, promised.reused, promised.stopped) == ((), 1, 1)


def test_other_costs_bring_it_back(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """Once the rival is no longer the cheaper one, or nothing is to be given up, the candidate is trained."""
    asked: dict[str, Any] = {"wanted": WANTED, "recipe": SHORT}
    first = distill(teacher, space, noise, **asked, costs=BAD_DEARER, folder=tmp_path)
    assert plan(teacher, space, noise, **asked, folder=tmp_path).train == ((THIRD, BAD),)
    second = distill(teacher, space, noise, **asked, costs=BAD_CHEAPER, folder=tmp_path)
    assert (first.trained, second.trained, second.stopped) == (1, 1, ())
    third = distill(teacher, space, noise, **asked, costs=BAD_DEARER, folder=tmp_path)
    assert (third.reused, third.stopped) == (2, ())  # what has its weights counts as trained


def test_later_candidates_meet_finished_rivals(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Trained in two calls, the same candidate is given up at the same step as in one."""
    asked: dict[str, Any] = {"recipe": SHORT, "costs": BAD_DEARER}
    whole = distill(teacher, space, noise, wanted=WANTED, **asked, folder=tmp_path / "whole")
    distill(teacher, space, noise, wanted={THIRD: (GOOD,)}, **asked, folder=tmp_path / "turns")
    later = distill(teacher, space, noise, wanted={THIRD: (BAD,)}, **asked, folder=tmp_path / "turns")
    assert later.stopped == whole.stopped
    assert len(later.stopped) == 1


def test_progress_counts_what_is_spared(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Giving a candidate up moves the progress on by the steps it is spared; it still ends at its total."""
    seen: list[Progress] = []
    distill(
        teacher,
        space,
        noise,
        wanted=WANTED,
        recipe=SHORT,
        costs=BAD_DEARER,
        folder=tmp_path,
        progress=seen.append,
    )
    done = [one.done for one in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total == 2 * SHORT.steps
    assert len(done) == SHORT.steps  # the survivor's steps


def test_killed_after_giving_up(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """Killed between rungs, the next call goes on and ends with the same weights and the same given up."""
    worker = runpy.run_path(str(WORKER))
    recipe, wanted, costs = worker["LONG_RECIPE"], worker["WANTED"], worker["COSTS"]
    folder = tmp_path / "killed"
    ended = subprocess.run(
        [sys.executable, str(WORKER), "stop", str(folder), str(max(rung_steps(recipe.steps)) + 2)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    seen: list[int] = []
    resumed = distill(
        teacher,
        space,
        noise,
        wanted=wanted,
        recipe=recipe,
        costs=costs,
        folder=folder,
        progress=lambda progress: seen.append(progress.done),
    )
    whole = distill(
        teacher, space, noise, wanted=wanted, recipe=recipe, costs=costs, folder=tmp_path / "whole"
    )
    assert len(seen) < recipe.steps  # it went on from a checkpoint
    assert len(whole.stopped) > 0
    assert find_dropped(folder, whole.key) == find_dropped(tmp_path / "whole", whole.key)
    assert [one.digest for one in resumed.candidates] == [one.digest for one in whole.candidates]
    assert find_trained(folder, whole.key).keys() == find_trained(tmp_path / "whole", whole.key).keys()


def test_damaged_file_of_the_given_up(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A file that cannot be read costs its knowledge and nothing else: the candidate is judged again."""
    asked: dict[str, Any] = {"wanted": WANTED, "recipe": SHORT, "costs": BAD_DEARER, "folder": tmp_path}
    first = distill(teacher, space, noise, **asked)
    path = tmp_path / first.key / "dropped.json"
    content = json.loads(path.read_text())
    path.write_text("half a fi")
    second = distill(teacher, space, noise, **asked)
    assert (second.stopped_now, second.stopped) == (1, first.stopped)
    assert json.loads(path.read_text()) == content


def test_layers_stay_whole_where_they_fit(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A layer goes into the next turn as a whole rather than in two: its candidates are compared."""
    wanted = {"body.first": ("conv", "conv(kernel=1)", "ds"), "body.second": ("conv", "ds")}
    alone = [
        layer.memory_bytes
        for layer in plan(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path).layers
    ]
    limits = Limits(max_bytes=sum(alone) - 1)
    seen: list[int] = []
    distill(
        teacher,
        space,
        noise,
        wanted=wanted,
        recipe=Recipe(steps=4, batch_size=8),
        folder=tmp_path,
        limits=limits,
        progress=lambda progress: seen.append(progress.done),
    )
    assert seen == [3, 6, 9, 12, 14, 16, 18, 20]
