"""What comes into a report from outside: baselines, finalists, hostile names, and very many candidates."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.flows.finalists import write_finalists
from lanaprof.flows.report.candidates import Candidate, LayerView
from lanaprof.flows.report.charts import candidates_chart, curves_chart, errors_chart, history_chart
from lanaprof.flows.verified import TimedNetwork
from lanaprof.lut import Score
from lanaprof.ops import SKIP, TEACHER
from lanaprof.space import Layer, save_space

ROW = {
    "name": "random search",
    "latency_s": 1.5e-3,
    "quality": 0.9,
    "metric": "accuracy",
    "standard_error": 0.01,
}


def write(rows: Any, path: str = ".lanaprof/baselines.json") -> str:
    Path(path).write_text(json.dumps(rows))
    return path


def test_baselines_of_the_project_are_shown(stages: Any, cli: Any, page: Any) -> None:
    """Without an option .lanaprof/baselines.json counts: latency, speed-up over the teacher, quality, its interval."""
    write([ROW, {**ROW, "name": "greedy", "quality": 0.05, "metric": "kl", "standard_error": None}])
    cli("report")
    rows = page().rows("Quality of teacher, students and baselines")

    assert rows[1:] == [
        ["random search", "1.5 ms", "1.33×", "90.00% ± 1.96%", "–", "–"],
        ["greedy", "1.5 ms", "1.33×", "–", "–", "0.0500"],
    ]
    assert "random search: 1.5 ms, accuracy 90.00%" in page().text


def test_baselines_may_lie_elsewhere(stages: Any, cli: Any, page: Any) -> None:
    """``--baselines`` comes before the project's own, and another metric gets a column."""
    write([ROW])
    ran = cli("report", "--baselines", write([{**ROW, "name": "x", "metric": "top5"}], "b.json"))
    (head, _, row) = page().tables["Quality of teacher, students and baselines"]

    assert ran.code == 0, ran.err
    assert (head[-1][0], row[0][0], row[-1][1]) == ("top5", "x", 0.9)


@pytest.mark.parametrize(
    "rows",
    [
        {"name": "x"}, [1], [{"name": "x"}], [{**ROW, "latency_s": 0}], [{**ROW, "quality": "good"}],
        [{**ROW, "standard_error": -1}],
    ],
)  # fmt: skip
def test_baselines_without_sense_are_refused(stages: Any, cli: Any, rows: Any) -> None:
    """The message names the file, the hint shows what a row looks like, and no page is written."""
    ran = cli("report", "--baselines", write(rows, "b.json"), "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert "b.json" in ran.json["error"]["message"]
    assert '"latency_s"' in ran.json["error"]["hint"]
    assert not Path("report.html").exists()


def test_absent_file_of_baselines_is_an_error(stages: Any, cli: Any) -> None:
    """A slip in the name is told."""
    ran = cli("report", "--baselines", "nowhere.json", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")


def test_finalists_are_shown_where_they_were_held(stages: Any, cli: Any, page: Any) -> None:
    """Who was timed, judged and chosen; without finalists there is no such part."""
    stages.scored()
    selection = stages.selected()
    cli("report")
    assert "finalists" not in page().sections

    names = [layer.name for layer in stages.project.space.layers]
    first = {
        "choices": dict.fromkeys(names, TEACHER), "score": -0.5, "predicted_s": 1e-3, "measured_s": 1.01e-3,
        "inside": True, "kl": 0.25, "kl_standard_error": 0.01, "tuned_kl": 0.125, "tuned_kl_standard_error": 0.02,
        "tuned_difference": 0.0, "tuned_difference_standard_error": 0.0, "chosen": True,
    }  # fmt: skip
    out = {
        **first,
        "choices": {names[0]: "conv"},
        "inside": False,
        "kl": None,
        "tuned_kl": None,
        "chosen": False,
    }
    write_finalists(stages.project, selection.id, [first, out])
    cli("report")
    rows = page().rows("Finalists, the best first")

    assert rows[0] == [
        "0", "−0.5000", "1 ms", "1.01 ms", "0.2500 ± 0.0100", "0.1250 ± 0.0200", "0.0000 ± 0.0000", "chosen",
    ]  # fmt: skip
    assert (rows[1][0], rows[1][-1]) == ("1", "over the budget")


def test_hostile_names_stay_text(stages: Any, cli: Any, page: Any) -> None:
    """A layer, a baseline and a metric with markup in their names add no tag and no attribute to the page."""
    evil = "</td><img src=x onerror=alert(1)>\"'&"
    project = stages.project
    layers = (replace(project.space.layers[0], name=evil), *project.space.layers[1:])
    save_space(replace(project.space, layers=layers), "space.json")
    stages.trained()
    stages.add(
        *(
            Score(
                teacher=project.weights_digest, candidate="d", data="d", layer=layer, operation=operation,
                metric=f"kl{evil}", score=-0.1, images=9, team="vision", time="2026-03-01T12:00:00Z",
            )
            for layer, operation in stages.names()
        )
    )  # fmt: skip
    stages.selected()
    write([{**ROW, "name": evil, "metric": evil}])
    ran = cli("report")
    shown = page()
    allowed = {"src", "onerror", "alert(1)"}

    assert ran.code == 0, ran.err
    assert [tag for tag, given in shown.tags if tag == "img" or allowed & set(given)] == []
    assert evil in [row[0] for row in shown.rows("What was chosen in each layer")]
    assert evil in [row[0] for row in shown.rows("Quality of teacher, students and baselines")]


# ------------------------------------------------------------------------------------------ very many


def views(layers: int, count: int) -> list[LayerView]:
    """Return made-up layers with as many candidates each."""
    generator = random.Random(1)
    found = []
    for number in range(layers):
        candidates = [
            Candidate(operation=TEACHER, state="teacher", latency_s=1e-3, cost_s=1e-3, score=0.0, error=0.0),
            Candidate(operation=SKIP, state="skip", latency_s=0.0, cost_s=0.0, score=-3.0),
        ]
        for other in range(count - 2):
            latency_s = generator.uniform(1e-4, 1e-3)
            error = generator.uniform(0.01, 0.5)
            curve = tuple((8 * (point + 1), error + 1 / (point + 1)) for point in range(24))
            candidates.append(
                Candidate(
                    operation=f"mbconv(expand={other + 1},kernel=5,act=relu)", state="scored", latency_s=latency_s,
                    ci_low_s=latency_s, ci_high_s=latency_s, cost_s=latency_s, score=-error * generator.random(),
                    standard_error=0.001, error=error, steps=192, curve=curve,
                )
            )  # fmt: skip
        names = tuple(one.operation for one in candidates)
        layer = Layer(f"blocks.{number}", (24, 14, 14), (24, 14, 14), 1000, f"s{number}", names)
        found.append(LayerView(layer, tuple(candidates), candidates[-1]))
    return found


def test_thousands_of_candidates_stay_a_small_page(
    stages: Any, cli: Any, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,600 candidates: below 3 MB; tables show the best and say where all of them are."""
    stages.scored()
    stages.trained()
    stages.selected()
    many = views(23, 200)
    monkeypatch.setattr("lanaprof.flows.reporting.layer_views", lambda _known: many)
    ran = cli("report", "--csv", "all.csv")
    label = next(name for name in page().tables if name.startswith("blocks.3: "))
    rows = page().rows(label)
    best = max(many[3].candidates[2:], key=lambda one: one.score or -9.0)

    assert ran.code == 0, ran.err
    assert Path("report.html").stat().st_size < 3_000_000
    assert label.startswith("blocks.3: 65 of 200 candidates; all are in the file")
    assert {TEACHER, best.operation, f"{many[3].candidates[-1].operation} (chosen)"} <= {
        row[0] for row in rows
    }
    assert len(Path("all.csv").read_text().splitlines()) == 1 + 23 * 200


def test_small_charts_have_few_shapes() -> None:
    """200 dots are one shape, 24 curves are drawn of 198, the chosen one among them."""
    (view,) = views(1, 200)
    dots, curves = candidates_chart(view), curves_chart(view)
    assert dots is not None
    assert curves is not None
    thick = [shape for shape in curves.shapes if getattr(shape, "width", 0) == 2.5]

    assert len(dots.shapes) < 60
    assert curves.label.startswith(("Errors of 24 of 198", "Errors of 25 of 198"))
    assert len(thick) == 1


def test_charts_without_data_are_none() -> None:
    """One candidate, no curve, one look: nothing to draw."""
    (view,) = views(1, 2)
    alone = LayerView(view.layer, view.candidates[:1])

    assert (candidates_chart(alone), curves_chart(view)) == (None, None)
    assert history_chart([{"step": 0, "kl": 0.5}], name="x") is None


def test_worst_error_is_told_in_words() -> None:
    """The chart of errors says for those who do not see it which prediction is furthest off."""
    near, far = (
        TimedNetwork(kind="verified", name=name, predicted_s=predicted_s, measured_s=1e-3)
        for name, predicted_s in (("near", 1.01e-3), ("far", 0.95e-3))
    )

    assert errors_chart([near, far], device="cpu").description == "The largest error is -5.00 %, of far."
