"""Distilling and scoring on a real cluster of three nodes: same weights, same scores, nothing twice.

One session on the cluster, made once: interrupted, gone on with, a node killed, scored. The tests look at what it left.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lanaprof.cli import main
from lanaprof.distill import DistillResult, Limits, Progress, Recipe, ScoreRecipe
from lanaprof.distill.groups import Spread
from lanaprof.flows.learning import distill_project, wanted_candidates
from lanaprof.flows.project import load_project
from lanaprof.flows.scoring import ScoreReport, score_project
from lanaprof.flows.spreading import distill_over, opened_cluster, score_over
from lanaprof.lut import open_store

pytestmark = pytest.mark.slow  # three nodes, and a Python with torch on each

RECIPE = Recipe(steps=40, batch_size=16)
SCORING = ScoreRecipe(images=48)
OFTEN = Limits(checkpoint_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What happened on the cluster.

    Attributes:
        folder: the project's.
        begun: the groups that had a checkpoint after the interrupt.
        doomed: the node that was killed.
        finished: weights that were there at that moment, and when they were written.
        result: of the call after the interrupt.
        spread: the same.
        scores: of the two nodes left.
        told: what a person was told.
        printed: what got to standard output.
    """

    folder: Path
    begun: set[str]
    doomed: str
    finished: dict[Path, int]
    result: DistillResult
    spread: Spread
    scores: ScoreReport
    told: list[str]
    printed: str


def _weights(folder: Path) -> dict[str, bytes]:
    """Return the content of all weight files of a project."""
    root = folder / ".lanaprof" / "weights"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}


def _checkpoints(folder: Path) -> set[str]:
    """Return the names of the groups that have begun."""
    found = (folder / ".lanaprof" / "weights").glob("*/checkpoint@*.pt")
    return {path.stem.partition("@")[2] for path in found}


def _quiet(_progress: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def alone(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScoreReport]:
    """The project distilled and scored on one machine."""
    folder = tmp_path_factory.mktemp("alone") / "project"
    shutil.copytree(fresh, folder)
    project = load_project(folder)
    distill_project(project, wanted_candidates(project, []), RECIPE, progress=_quiet)
    with open_store(str(folder / "lanaprof.db"), create=True) as store:
        return folder, score_project(project, store, recipe=SCORING, team="local", progress=_quiet)


@pytest.fixture(scope="module")
def session(nodes: Any, fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The project distilled and scored on the cluster, against resistance."""
    folder = tmp_path_factory.mktemp("together") / "project"
    shutil.copytree(fresh, folder)
    project, told = load_project(folder), list[str]()
    wanted = wanted_candidates(project, [])
    doomed = nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    finished: dict[Path, int] = {}
    ended = threading.Event()

    def interrupt(_progress: Progress) -> None:
        if _checkpoints(folder):
            raise KeyboardInterrupt

    def kill() -> None:
        held = folder / "held"
        while not held.exists() or not held.read_text():
            if ended.wait(0.05):  # without having held anybody: the tests say so
                return
        worker = int(held.read_text())
        weights = (folder / ".lanaprof" / "weights").rglob("*.safetensors")
        finished.update({path: path.stat().st_mtime_ns for path in weights})
        nodes.remove_node(doomed, allow_graceful=False)
        os.kill(worker, signal.SIGKILL)  # one that is stopped does not see that its node is gone

    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        opened_cluster(project, nodes.address, tell=told.append) as cluster,
    ):
        with pytest.raises(KeyboardInterrupt):
            distill_over(cluster, project, wanted, RECIPE, limits=OFTEN, progress=interrupt)
        begun = _checkpoints(folder)
        (folder / "doomed").write_text(str(doomed.all_processes["raylet"][0].process.pid))
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            result, spread = distill_over(cluster, project, wanted, RECIPE, limits=OFTEN, progress=_quiet)
        finally:
            ended.set()
            killer.join()
        with open_store(str(folder / "lanaprof.db"), create=True) as store:
            scores, _ = score_over(cluster, project, store, recipe=SCORING, team="local", progress=_quiet)
    return Session(
        folder=folder,
        begun=begun,
        doomed=doomed.node_id,
        finished=finished,
        result=result,
        spread=spread,
        scores=scores,
        told=told,
        printed=printed.getvalue(),
    )


def test_weights_are_those_of_one_machine(session: Session, alone: tuple[Path, ScoreReport]) -> None:
    """To the last bit, after an interrupt and a lost node; those of a candidate for several layers, too."""
    assert _weights(alone[0]) == _weights(session.folder)
    assert len(_weights(alone[0])) == 13


def test_scores_are_those_of_one_machine(session: Session, alone: tuple[Path, ScoreReport]) -> None:
    """Row by row, to the last bit; all of them are stored by the process that spread them."""
    assert alone[1] == session.scores


def test_a_lost_node_is_told_of(session: Session) -> None:
    """The attempt that was lost is the killed node's; its group was finished by another."""
    lost = [attempt for attempt in session.spread.attempts if not attempt.finished]

    assert [session.doomed] == [attempt.node for attempt in lost]
    assert [True] == [text.startswith(f"lost {lost[0].part} on the node") for text in session.told]
    assert session.spread.summary["lost"] == 1


def test_a_lost_group_goes_on_from_its_checkpoint(session: Session) -> None:
    """Whoever takes it over begins behind its first step."""
    (lost,) = (attempt.part for attempt in session.spread.attempts if not attempt.finished)
    (again,) = (one for one in session.spread.attempts if one.finished and one.part == lost)

    assert again.first is not None
    assert again.first.done > again.first.total / RECIPE.steps


def test_an_interrupted_call_is_gone_on_with(session: Session) -> None:
    """The groups it had begun are groups of the next call, which begins behind their first step."""
    first = {attempt.part: attempt.first for attempt in session.spread.attempts if attempt.finished}

    assert session.begun
    for part in session.begun:
        word = first[part]
        assert word is not None
        assert word.done > word.total / RECIPE.steps


def test_nothing_is_written_twice(session: Session) -> None:
    """What had been trained when the node was killed is untouched; everything counts once."""
    assert all(path.stat().st_mtime_ns == written for path, written in session.finished.items())
    assert 13 == session.result.trained + session.result.reused


def test_nothing_but_documents_gets_to_standard_output(session: Session) -> None:
    """Ray's own words about a killed node would spoil what --json prints."""
    assert session.printed == ""


def test_what_is_trained_is_not_spread_again(
    nodes: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command finds all weights there; its document says over what it was spread."""
    monkeypatch.chdir(session.folder)
    words = ("distill", "--steps", "40", "--batch-size", "16", "--ray", nodes.address, "--json")

    done = CliRunner().invoke(main, words)

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (0, 13) == (found["trained"], found["reused"])
    assert found["cluster"] == {"nodes": 0, "groups": 0, "lost": 0}
