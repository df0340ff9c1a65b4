"""score beyond its listing: how far sums of scores can be trusted, and their correction by whole networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lanaprof.distill import CandidateScore, ScoreRecipe
from lanaprof.flows.judging import JudgedNetwork, JudgeRules
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project, load_project
from lanaprof.flows.scorefiles import ScoreFiles

FEW = ("--images", "32", "--tune-steps", "2", "--tune-batch-size", "16", "--seeds", "2")


def test_networks_say_how_far_sums_can_be_trusted(bench: Any) -> None:
    """Random networks are fine-tuned with several seeds; sums, own KL and the ceiling are ranked with them."""
    document = bench.run("score", *FEW, "--networks", "8")
    found = document["correlation"]
    scores = {(s["layer"], s["operation"]): s["score"] for s in document["scores"]}

    assert (found["networks"], found["tune_steps"]) == (8, 2)
    for name in ("score", "own_kl", "ceiling"):
        assert -1 <= found[name]["low"] <= found[name]["high"] <= 1
    for point in found["points"]:
        assert len(point["tuned_kl"]) == 2
        assert point["score"] == pytest.approx(sum(scores[name] for name in point["choices"].items()))
    assert len({tuple(point["choices"].items()) for point in found["points"]}) == 8


def test_judged_networks_are_not_judged_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More networks go on from those that were judged; scores that are stored are not taken again."""
    first = bench.run("score", *FEW, "--networks", "8")["correlation"]["points"]
    monkeypatch.setattr("lanaprof.flows.project.Project.load_teacher", None)
    again = bench.run("score", *FEW, "--networks", "8")
    assert again["stored"] == 0
    assert again["correlation"]["points"] == first


def test_report_shows_what_was_judged_before(bench: Any, cli: Any) -> None:
    """--report adds the correlation of networks judged earlier, and --plot draws it."""
    judged = bench.run("score", *FEW, "--networks", "8")["correlation"]
    ran = cli("score", "--images", "32", "--report", "--plot", "trust.svg")
    assert "Kendall" in ran.out
    assert "ranking by" in ran.out
    assert "on 32 held-out images" in ran.out
    drawing = (bench.folder / "trust.svg").read_text()
    assert drawing.count("<circle") == judged["networks"]


@pytest.fixture
def scores(bench: Any) -> dict[tuple[str, str], float]:
    listed = bench.run("score", "--images", "32", "--report")["scores"]
    return {(s["layer"], s["operation"]): s["score"] for s in listed}


def _become(scores: dict[tuple[str, str], float], first: float, others: float, *, least: float = 0.0) -> Any:
    """Networks of a divergence that is known; in a project trained for 4 steps there is none to find."""

    def judge(
        project: Project, networks: Sequence[Choices], rules: JudgeRules, **_options: Any
    ) -> tuple[JudgedNetwork, ...]:
        names = [layer.name for layer in project.space.layers]
        found = []
        for choices in networks:
            parts = [scores[name] for name in zip(names, choices, strict=True)]
            kl = (least + first * parts[0] + others * sum(parts[1:])) ** 2
            found.append(JudgedNetwork(choices, kl, (kl,) * rules.seeds))
        return tuple(found)

    return judge


def test_fitted_scores_are_what_select_uses(
    bench: Any, scores: dict[tuple[str, str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--fit stores corrected scores under their own name: here the first layer counts twice."""
    monkeypatch.setattr("lanaprof.flows.judging.judge_networks", _become(scores, -2, -1))
    fit = bench.run("score", *FEW, "--fit", "24")["fit"]
    rows = bench.query("select layer, operation, score from scores where metric = ?", fit["metric"])

    assert (fit["metric"], fit["power"], fit["networks"]) == ("kl+fitted", 1.0, 24)
    assert fit["weights"]["1.0"] > 1.5 * max(fit["weights"]["1.1"], fit["weights"]["1.2"])
    assert len(rows) == len(scores)
    for layer, operation, corrected in rows:
        assert corrected == pytest.approx(fit["weights"][layer] * scores[layer, operation], abs=1e-12)
    total = {(layer, operation): corrected for layer, operation, corrected in rows}
    chosen = bench.run("select", "--budget", "90%", "--no-verify")
    assert chosen["score"] == pytest.approx(sum(total[name] for name in chosen["choices"].items()))


def test_a_fit_to_networks_that_contradict_the_scores_is_refused(
    bench: Any, scores: dict[tuple[str, str], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where better scores made worse networks, nothing is stored."""
    monkeypatch.setattr("lanaprof.flows.judging.judge_networks", _become(scores, 1, 1, least=10.0))
    assert "did not become better" in bench.refuse("score", *FEW, "--fit", "8")


def test_plot_without_networks_says_what_to_type(bench: Any) -> None:
    """There is nothing to draw before networks were judged."""
    assert "lanaprof score --networks" in bench.refuse("score", "--images", "32", "--plot", "trust.png")


def test_networks_of_other_weights_are_forgotten(bench: Any) -> None:
    """What was judged with other candidates' weights says nothing about these."""
    bench.run("score", *FEW, "--networks", "8")
    path = bench.folder / ".lanaprof" / "judged.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "of": "other"}))
    assert "correlation" not in bench.run("score", "--images", "32", "--report")


def test_a_damaged_file_of_networks_is_named(bench: Any) -> None:
    """The message says what to do about it."""
    (bench.folder / ".lanaprof" / "judged.json").write_text("{")
    assert "lanaprof score" in bench.refuse("score", "--images", "32", "--report")


def test_a_host_of_average_cost(bench: Any) -> None:
    """Candidates judged in an average network are kept under a name that says so."""
    document = bench.run("score", "--images", "32", "--host", "average", "--batch-norm", "keep")
    assert document["metric"] == "kl(batch_norm=keep, host=average)"
    assert bench.query("select distinct metric from scores order by time desc limit 1") == [
        ("kl(batch_norm=keep, host=average)",)
    ]


def test_what_was_judged_is_read_the_next_time(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted score goes on layer by layer; the second call stores anew, so that these are the newest."""
    first = bench.run("score", "--images", "16", "--metric", "loss")
    bench.run("score", "--images", "16", "--metric", "accuracy")
    damaged = sorted((bench.folder / ".lanaprof" / "scores").iterdir())[0]
    damaged.write_text("{")
    bench.run("score", "--images", "16", "--metric", "loss")
    bench.run("score", "--images", "16", "--metric", "accuracy")
    monkeypatch.setattr("lanaprof.flows.project.Project.load_teacher", None)
    again = bench.run("score", "--images", "16", "--metric", "loss")

    assert again == first
    assert bench.query("select metric from scores order by time desc limit 1") == [("loss",)]


def test_scores_of_a_metric_of_ones_own_are_not_kept(bench: Any) -> None:
    """Its function may have changed since, unseen."""
    project = load_project()
    names = {
        name: ScoreFiles(project, recipe=ScoreRecipe(name), host=None, data_digest="d")
        for name in ("kl", "tiny:f")
    }
    for files in names.values():
        files.keep("1.0", (CandidateScore("1.0", "teacher", 0.0, 0.0, 16),))
    assert names["kl"].find("1.0") is not None
    assert names["tiny:f"].find("1.0") is None
