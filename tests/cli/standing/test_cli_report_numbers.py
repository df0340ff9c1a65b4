"""The report's numbers against the database and the files they come from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lanaprof.distill.stopping import SpaceCosts
from lanaprof.flows.artifacts import without_precision
from lanaprof.flows.chosen import own_selections
from lanaprof.flows.predicting import open_predictor
from lanaprof.flows.shrinking import space_costs
from lanaprof.flows.students import student_path
from lanaprof.flows.verified import TimedNetwork, find_verified, note_verified
from lanaprof.flows.verifying import VerifiedNetwork, VerifyReport
from lanaprof.lut import Measurement
from lanaprof.ops import SKIP, TEACHER
from lanaprof.profiler.calibration import Prediction
from lanaprof.space import Architecture

FORMAT = "lanaprof-dropped/1"


@pytest.fixture
def chosen(stages: Any) -> Any:
    """Take the project to a selection; return it."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    return stages.selected()


def known_numbers(stages: Any) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float], Any]:
    """Return the database's own latencies and scores by (layer, operation), and what each candidate costs a network."""
    project = stages.project
    with stages.store() as store:
        predictor = open_predictor(project, project.device("cpu"), store, team="vision")
        scores = {(row.layer, row.operation): row.score for row in store.scores()}
    latencies = {}
    for layer in project.space.layers:
        for operation in layer.candidates:
            estimate = predictor.find_estimate(layer.name, operation)
            if estimate is not None:
                assert estimate.latency_s is not None
                latencies[layer.name, operation] = estimate.latency_s
            elif operation == SKIP:
                latencies[layer.name, operation] = 0.0
        scores[layer.name, TEACHER] = 0.0
    return latencies, scores, predictor


def test_choices_stand_beside_the_teacher(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """Per layer: operation, its latency and the teacher's, and its score, as the database has them."""
    cli("report")
    latencies, scores, _ = known_numbers(stages)
    shown = page().tables["What was chosen in each layer"][1:]
    expected = [
        (layer, op, latencies.get((layer, op)), latencies[layer, TEACHER], scores.get((layer, op)))
        for layer, op in chosen.choices
    ]

    assert expected == [
        (
            row[0][0],
            row[1][0],
            *(pytest.approx(cell[1], rel=1e-5) if cell[1] else cell[1] for cell in row[2:]),
        )
        for row in shown
    ]


def test_reasons_name_the_best_exchanges(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """The cheaper candidate loses least score per millisecond saved of all, the dearer one gains most."""
    cli("report")
    _, scores, predictor = known_numbers(stages)
    shown = {row[0][0]: row[1:] for row in page().tables["What other choices would have changed"][1:]}
    compared = 0
    for layer, own in chosen.choices:
        if layer not in shown:
            continue
        rates = {}
        for other in stages.project.space.get_layer(layer).candidates:
            if (layer, other) in scores and other != own:
                seconds = predictor.candidate_cost_s(layer, other) - predictor.candidate_cost_s(layer, own)
                rates[other] = seconds, (scores[layer, other] - scores[layer, own]) / (seconds * 1e3)
        cheaper = [rate for seconds, rate in rates.values() if seconds < 0]
        dearer = [rate for seconds, rate in rates.values() if seconds > 0]
        cells = shown[layer]
        assert cells[3][1] == (pytest.approx(min(cheaper), rel=1e-4) if cheaper else None)
        assert cells[7][1] == (pytest.approx(max(dearer), rel=1e-4) if dearer else None)
        compared += bool(cheaper) + bool(dearer)

    assert compared > 3


def test_every_candidate_is_in_a_table(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """With its score, its standard error and the error of distilling, sorted by number and not by text."""
    cli("report")
    _, scores, _ = known_numbers(stages)
    tables = page().tables
    for layer in stages.project.space.layers:
        rows = tables[f"{layer.name}: all {len(layer.candidates)} candidates"][1:]
        shown = {row[0][0].removesuffix(" (chosen)"): row for row in rows}
        assert set(shown) == set(layer.candidates)
        for operation, row in shown.items():
            score = scores.get((layer.name, operation))
            assert row[2][1] == (None if score is None else pytest.approx(score, rel=1e-5))
            if operation not in (TEACHER, SKIP):
                assert row[2][0].endswith("± 0.0010")

    marked = []
    for layer, _ in chosen.choices:
        label = next(name for name in tables if name.startswith(f"{layer}: "))
        marked += [row[0][0] for row in tables[label] if row[0][0].endswith("(chosen)")]
    assert marked == [f"{operation} (chosen)" for _, operation in chosen.choices]


def test_csv_has_all_candidates(stages: Any, chosen: Any, cli: Any) -> None:
    """``--csv`` writes one row a candidate, numbers in seconds as the database has them."""
    ran = cli("report", "--csv", "all.csv", "--json")
    latencies, scores, _ = known_numbers(stages)
    with Path("all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert ran.json["csv"] == "all.csv"
    assert len(rows) == stages.project.space.candidate_count
    assert {(r["layer"], r["operation"]): float(r["latency_s"]) for r in rows if r["latency_s"]} == latencies
    assert {(r["layer"], r["operation"]): float(r["score"]) for r in rows if r["score"]} == scores
    assert [(r["layer"], r["operation"]) for r in rows if r["chosen"] == "1"] == list(chosen.choices)


def dropped(stages: Any) -> tuple[str, str, str]:
    """Note that one candidate was given up for another one; return layer, operation, rival."""
    project = stages.project
    with stages.store() as store:
        predictor = open_predictor(project, project.device("cpu"), store, team="vision")
        costs: SpaceCosts = space_costs(project, [predictor])
    for layer in project.space.layers:
        own = sorted((c[0][1], op) for op, c in costs[layer.name].items() if op not in (TEACHER, SKIP))
        if len(own) > 1 and costs[layer.name][own[-1][1]][0][0] > own[0][0]:
            entry = {
                "layer": layer.name, "operation": without_precision(own[-1][1]), "step": 25, "error": 0.5,
                "rival": own[0][1], "rival_error": 0.0625, "curve": [[10, 0.9], [25, 0.5]],
            }  # fmt: skip
            text = json.dumps({"format": FORMAT, "dropped": [entry]})
            (stages.folder / ".lanaprof" / "weights" / "k1" / "dropped.json").write_text(text)
            return layer.name, own[-1][1], own[0][1]
    raise AssertionError("no candidate costs more than another one")


def test_states_are_counted(stages: Any, cli: Any, page: Any) -> None:
    """Trained, given up with the reason, hopeless by the table: per layer, and together all candidates."""
    stages.trained(count=1)
    layer, operation, rival = dropped(stages)
    cli("report")
    (head, *rows) = page().tables["What became of the candidates"]
    names = [text for text, _ in head]
    last = dict(zip(names, (text for text, _ in rows[-1]), strict=True))
    states = names[2 : names.index("best replacement")]
    special = sum((TEACHER in x.candidates) + (SKIP in x.candidates) for x in stages.project.space.layers)

    assert (last["trained, no score"], last["stopped early"]) == ("1", "1")
    assert sum(int(last[name]) for name in states) + special == int(last["candidates"])
    count = len(stages.project.space.get_layer(layer).candidates)
    row = next(r for r in page().rows(f"{layer}: all {count} candidates") if r[0] == operation)
    assert row[-1] == f"given up after 25 steps: {rival} costs no more and was at an error of 0.0625 by then"
    assert (row[3], row[4]) == ("0.5000", "25")


def test_curves_are_drawn(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """Each layer with trained candidates has a chart of their errors, and says which ended lowest."""
    cli("report")
    text = page().text
    layers = {layer for layer, _ in stages.names()}
    labels = [str(given.get("aria-label")) for tag, given in page().tags if tag == "svg"]

    assert len([label for label in labels if label.endswith("as they were distilled")]) == len(layers)
    assert "The lowest ends at 0.1: " in text  # the first candidate's


def finetuned(stages: Any, selection: Any) -> None:
    """Leave what ``finetune`` leaves: weights, evaluations, history."""
    project = stages.project
    path = student_path(project, Architecture("", selection.choices).complete(project.space))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    judged = {"images": 400, "accuracy": 0.5, "loss": 1.0, "agreement": 0.9, "kl": 0.2}
    history = [
        {"step": 0, "train_loss": None, **judged},
        {"step": 9, "train_loss": 0.7, **judged, "kl": 0.05},
    ]
    stages_found = {
        "assembled": {**judged, "kl": 0.8},
        "finetuned": {**judged, "kl": 0.05},
        "history": history,
    }
    path.with_suffix(".json").write_text(json.dumps(stages_found))


def test_students_stand_beside_the_teacher(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """Measured latency, speed-up, and quality with a 95 % interval: 1.96 √(0.5 · 0.5 / 400) = 4.9 points."""
    finetuned(stages, chosen)
    cli("report")
    teacher, student = page().rows("Quality of teacher, students and baselines")

    assert teacher == ["teacher", "2 ms", "1.00×", "–", "100.00%", "0.0000"]
    assert student == [
        f"student {chosen.id[:12]}", "1.12 ms", "1.79×", "50.00% ± 4.90%", "90.00% ± 2.94%", "0.0500",
    ]  # fmt: skip
    assert page().rows("What fine-tuning did on held-out data")[0][1:] == [
        "assembled", "50.00%", "90.00%", "0.8000", "400",
    ]  # fmt: skip


def test_fine_tuning_has_its_history(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """Every look at held-out data, in a chart and in numbers."""
    finetuned(stages, chosen)
    cli("report")

    assert page().rows("Fine-tuning in numbers") == [
        [chosen.id[:12], "0", "–", "0.2000", "50.00%"],
        [chosen.id[:12], "9", "0.7000", "0.0500", "50.00%"],
    ]
    assert "goes from 0.2 to 0.05 nats" in page().text


def test_predictions_stand_beside_measurements(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """A selection and a verified network: predicted, measured, error."""
    project = stages.project
    with stages.store() as store:
        environment = open_predictor(
            project, project.device("cpu"), store, team="vision"
        ).table.environment.id
    row = {
        "device": "cpu", "environment": environment, "time": "2026-03-05T00:00:00Z", "predicted_s": 1.02e-3,
        "low_s": 1.01e-3, "high_s": 1.1e-3, "measured_s": 1e-3, "ci_low_s": 0.99e-3, "ci_high_s": 1.01e-3,
    }  # fmt: skip
    noted = [row, {**row, "environment": "another"}, {"nonsense": 1}, {**row, "measured_s": 0}]
    (stages.folder / ".lanaprof" / "verified.json").write_text(json.dumps(noted))
    cli("report")

    assert page().rows("All 2 networks in numbers") == [
        ["verified 2026-03-05T00:00:00Z", "1.02 ms", "1.01 ms to 1.1 ms", "1 ms", "+2.00 %", "no"],
        [f"selection {chosen.id[:12]}", "1.1 ms", "–", "1.12 ms", "−1.79 %", "–"],
    ]
    assert len(find_verified(project, project.device("cpu"), environment)) == 1


def test_what_verify_found_is_kept(stages: Any) -> None:
    """Each verification adds its networks; those of another environment are not mixed in."""
    project, cpu = stages.project, stages.project.device("cpu")
    record = Measurement(
        operator="0" * 32, environment="1" * 32, cache="hot", protocol="network/2", status="ok", latency_s=2e-3,
        ci_low_s=1.9e-3, ci_high_s=2.1e-3, team="vision", host="h1", time="2026-03-05T00:00:00Z",
    )  # fmt: skip
    network = VerifiedNetwork((), 2.2e-3, Prediction(2.1e-3, 1.8e-3, 2.4e-3, 0.9, calibrated=True), record)
    report = VerifyReport((network,), 1.0, 0.05, 0.05, 0.05, 1.0, 0.3, 0.0, 0.0, too_noisy=False, seconds=1.0)
    for environment in ("here", "there", "here"):
        note_verified(project, cpu, environment, report)

    assert find_verified(project, cpu, "here") == 2 * (
        TimedNetwork(
            kind="verified", name="verified 2026-03-05T00:00:00Z", predicted_s=2.1e-3, low_s=1.8e-3, high_s=2.4e-3,
            measured_s=2e-3, ci_low_s=1.9e-3, ci_high_s=2.1e-3,
        ),
    )  # fmt: skip


def test_frontier_ends_in_numbers(stages: Any, chosen: Any, cli: Any, page: Any) -> None:
    """The frontier's points are those of the command, cheapest first."""
    points = cli("frontier", "--device", "cpu", "--json").json["points"]
    cli("report")
    label = next(name for name in page().tables if name.startswith("The frontier in numbers"))
    rows = page().tables[label][1:]

    assert (rows[0][0][1], rows[0][2][1]) == pytest.approx(
        (points[0]["latency_s"], points[0]["score"]), rel=1e-4
    )
    assert (rows[-1][0][1], rows[-1][2][1]) == pytest.approx(
        (points[-1]["latency_s"], points[-1]["score"]), rel=1e-4
    )
    with stages.store() as store:
        assert len(own_selections(stages.project, store)) == 1
