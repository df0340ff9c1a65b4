"""init, space, measure, calibrate, distill, score, frontier, predict, verify: what they do and the keys they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import open_store

at = pytest.mark.parametrize


@at("bench", ["fresh"], indirect=True)
def test_init_writes_the_project(bench: Any) -> None:
    """init leaves lanaprof.toml with what was typed, the space, and no database."""
    text = (bench.folder / "lanaprof.toml").read_text()
    space = json.loads((bench.folder / "space.json").read_text())

    assert 'teacher = "tiny:network"' in text
    assert 'ops = "ops.txt"' in text
    assert [layer["name"] for layer in space["layers"]] == ["1.0", "1.1", "1.2"]
    assert not (bench.folder / "lanaprof.db").exists()


@at("bench", ["fresh"], indirect=True)
def test_space_names_no_operator_before_the_export(bench: Any) -> None:
    """Before ``measure`` every candidate's operator is null, and ``skip`` stands only where shapes allow it."""
    document = bench.run("space")
    names = [[c["name"] for c in layer["candidates"]] for layer in document["layers"]]

    assert set(document) >= {"layers", "spans", "operators", "log10_size"}
    assert names[0] == ["teacher", "skip", "conv", "ds", "mbconv(expand=1)"]
    assert "skip" not in names[2]
    assert {c["operator"] for layer in document["layers"] for c in layer["candidates"]} == {None}
    assert document["layers"][2]["output_shape"] == [24, 6, 6]


@at("bench", ["measured"], indirect=True)
def test_alike_layers_share_operators(bench: Any) -> None:
    """After ``measure`` two layers of one shape have the same operators: each is timed once."""
    document = bench.run("space")
    keys = [{c["name"]: c["operator"] for c in layer["candidates"]} for layer in document["layers"]]

    assert keys[0] == keys[1]
    assert keys[0]["skip"] is None
    assert document["operators"] == len({key for layer in keys for key in layer.values()} - {None}) == 8


@at("bench", ["measured"], indirect=True)
def test_second_measure_measures_nothing(bench: Any) -> None:
    """Everything is there: nothing is exported or timed again, and the summary stays."""
    before = bench.files()
    document = bench.run("measure")

    assert (document["measured"], document["reused"], document["exported"]) == (0, 8, 0)
    assert {"noisy", "failed", "unsupported", "timeout", "seconds"} <= set(document)
    assert document["teacher_latency_s"] > 0
    assert len(document["slowest_layers"]) == 3
    assert bench.files() == before


@at("bench", ["fresh"], indirect=True)
def test_plan_measures_nothing(bench: Any) -> None:
    """--plan exports and stores the operators and says how many and how long."""
    document = bench.run("measure", "--plan")

    assert (document["operators"], document["missing"], document["measured"]) == (8, 8, 0)
    assert document["estimated_seconds"] > 0
    assert bench.query("select count(*) from measurements") == [(0,)]
    assert bench.query("select count(*) from operators")[0][0] >= 8


@at("bench", ["fresh"], indirect=True)
def test_max_time_ends_incomplete_and_the_same_command_goes_on(bench: Any) -> None:
    """With no time at all nothing is measured, exit code 3; without the limit the rest is done."""
    stopped = bench.run("measure", "--max-time", "1ms", code=3)
    finished = bench.run("measure")

    assert (stopped["measured"], stopped["complete"]) == (0, False)
    assert (finished["measured"], finished["complete"]) == (8, True)


@at("bench", ["measured"], indirect=True)
def test_force_measures_everything_again(bench: Any) -> None:
    """--force appends new rows; the old ones stay."""
    before = {row[0] for row in bench.query("select id from measurements")}
    document = bench.run("measure", "--force")
    after = {row[0] for row in bench.query("select id from measurements")}

    assert (document["measured"], document["reused"]) == (8, 0)
    assert before < after


@at("bench", ["measured"], indirect=True)
def test_retry_measures_only_that_state(bench: Any) -> None:
    """A failed operator counts as done until --retry failed."""
    bench.query(
        "update measurements set status = 'failed', latency_s = null, ci_low_s = null, ci_high_s = null "
        "where id = (select min(id) from measurements where cache = 'relay' "
        "and operator in (select operator from recipes))"
    )
    left = bench.run("measure")
    others = bench.run("measure", "--retry", "timeout")
    again = bench.run("measure", "--retry", "failed")

    assert (left["measured"], others["measured"], again["measured"]) == (0, 0, 1)


def test_calibrated_prediction_has_its_interval(bench: Any) -> None:
    """predict prints the central interval at the level asked for; a higher level is wider."""
    file = bench.architecture(b0="ds")
    usual = bench.run("predict", "--architecture", file)
    wide = bench.run("predict", "--architecture", file, "--level", "0.99")

    assert usual["calibrated"] is True
    assert usual["level"] == 0.9
    assert usual["low_s"] < usual["latency_s"] < usual["high_s"]
    assert wide["low_s"] < usual["low_s"]
    assert usual["high_s"] < wide["high_s"]


@at("bench", ["measured"], indirect=True)
def test_uncalibrated_prediction_of_the_teacher_is_exact(bench: Any) -> None:
    """Before ``calibrate`` the teacher's prediction is its measurement, with a wide stated interval."""
    document = bench.run("predict", "--architecture", bench.architecture())
    teacher_s = bench.run("measure")["teacher_latency_s"]

    assert document["calibrated"] is False
    assert document["latency_s"] == pytest.approx(teacher_s, rel=1e-9)
    assert document["high_s"] >= 1.15 * teacher_s * (1 - 1e-9)


@at("bench", ["measured"], indirect=True)
def test_interval_keeps_its_order_below_zero(bench: Any) -> None:
    """Where layers outweigh the network, the rest comes out negative: the interval stays in order."""
    bench.query(
        "update measurements set latency_s = 1.0, ci_low_s = 1.0, ci_high_s = 1.0 where cache = 'relay'"
    )
    document = bench.run("predict", "--architecture", bench.architecture(b0="skip"))

    assert document["low_s"] < document["latency_s"] < document["high_s"]


def test_predict_warns_of_a_stale_calibration(bench: Any, cli: Any) -> None:
    """A table measured anew no longer fits the calibration: the warning names the command."""
    bench.run("measure", "--force")
    ran = cli("predict", "--architecture", bench.architecture())

    assert ran.code == 0
    assert "lanaprof calibrate --device cpu" in ran.err


def test_distill_reuses_what_is_trained(bench: Any) -> None:
    """The same recipe again trains nothing; --plan says so beforehand."""
    plan = bench.run("distill", "--steps", "4", "--batch-size", "16", "--plan")
    again = bench.run("distill", "--steps", "4", "--batch-size", "16")

    assert (plan["train"], plan["reused"]) == (0, plan["wanted"])
    assert (again["trained"], again["reused"]) == (0, plan["wanted"])


def test_scores_are_of_every_candidate(bench: Any) -> None:
    """score prints one score per trained candidate, the teacher's 0, and stores them."""
    document = bench.run("score", "--images", "32", "--metric", "accuracy")
    scores = {(s["layer"], s["operation"]): s["score"] for s in document["scores"]}

    assert document["stored"] == len(scores)
    assert all(scores[f"1.{number}", "teacher"] == 0 for number in range(3))
    assert {"standard_error", "layer", "operation", "score"} == set(document["scores"][0])


def test_frontier_rises(bench: Any) -> None:
    """Along the frontier latency and score both rise, to the teacher's score at its end."""
    points = bench.run("frontier")["points"]

    assert [p["latency_s"] for p in points] == sorted(p["latency_s"] for p in points)
    assert [p["score"] for p in points] == sorted(p["score"] for p in points)
    assert set(points[0]) == {"latency_s", "score", "choices"}
    assert set(points[0]["choices"]) == {"1.0", "1.1", "1.2"}


def test_a_stored_frontier_is_no_selection(bench: Any) -> None:
    """Its points are in the database once, may be named, and are never what "latest" means."""
    points = bench.run("frontier", "--store")
    again = bench.run("frontier", "--store")["stored"]
    with open_store(bench.folder / "lanaprof.db") as store:
        group = next(each for each in store.selection_groups() if each.frontier)
        kept = store.selections_of(group)
        chosen = store.selections()
        named = store.find_selection(kept[0].id)

    assert points["stored"] == {"points": len(points["points"]), "time": group.time}
    assert again == {"points": 0, "time": group.time}
    assert {each.score for each in kept} == {point["score"] for point in points["points"]}
    assert len(kept) == len(points["points"])
    assert {each.status for each in kept} == {"frontier"}
    assert named == kept[0]
    assert not set(chosen) & set(kept)


@at("name", ["f.html", "f.png"])
def test_frontier_is_drawn(bench: Any, name: str) -> None:
    """--plot writes the picture that the ending asks for."""
    bench.run("frontier", "--plot", name)

    assert (bench.folder / name).read_bytes()[:4] in (b"<!do", b"\x89PNG")


def test_frontier_is_drawn_with_what_was_selected(bench: Any) -> None:
    """A selection for the device stands on the chart under the beginning of its id, beside the teacher's line."""
    chosen = bench.run("select", "--budget", "500%", "--no-verify")["id"]
    bench.run("frontier", "--plot", "marked.html")

    page = (bench.folder / "marked.html").read_text()
    assert f"selection {chosen[:12]}, unverified" in page
    assert "teacher" in page


def test_verify_compares_with_predictions(bench: Any) -> None:
    """verify times what it is asked for, each with prediction, interval and measurement."""
    file = bench.architecture(b0="ds", b1="skip")
    document = bench.run("verify", "--architecture", file, "--random", "1", "--seed", "3")
    rows = document["architectures"]

    assert len(rows) == 2
    assert rows[0]["choices"] == {"1.0": "ds", "1.1": "skip", "1.2": "teacher"}
    assert {"predicted_s", "low_s", "high_s", "measured_s", "ci_low_s", "ci_high_s"} <= set(rows[0])
    assert {
        "common_factor", "bias", "median_error", "p95_error", "coverage", "repeatability", "too_noisy",
    } <= set(document)  # fmt: skip


@at("bench", ["measured"], indirect=True)
def test_only_measured_device_is_the_default(bench: Any) -> None:
    """Where lanaprof.toml names no device, commands take the only one measured."""
    toml = bench.folder / "lanaprof.toml"
    toml.write_text(toml.read_text().replace('devices = ["cpu"]\n', ""))

    assert bench.run("predict", "--architecture", bench.architecture())["device"] == "cpu"
    assert bench.run("calibrate", "-n", "5")["device"] == "cpu"


@at("bench", ["measured"], indirect=True)
def test_another_teacher_takes_the_folder_over(bench: Any) -> None:
    """init --force with another teacher and layers: measuring wires the new one, the old rows stay."""
    rows = bench.query("select count(*) from measurements")[0][0]
    made = bench.run(
        "init", "--force", "--teacher", "tiny:shorter", "--input", "1x12x12", "--layers", "2.*", "--ops", "ops.txt",
        "--device", "cpu",
    )  # fmt: skip
    document = bench.run("measure")

    assert made["layers"] == 2
    assert (document["measured"], document["complete"]) == (8, True)
    assert bench.query("select count(*) from measurements")[0][0] > rows


@at("damage", ["", "{", "{}", "[]"])
@at("bench", ["measured"], indirect=True)
def test_damaged_caches_are_made_anew(bench: Any, damage: str) -> None:
    """Recipes and wiring are caches: whatever is in their files, measure restores them without timing anything."""
    space = bench.run("space")
    caches = [
        p for p in (bench.folder / ".lanaprof").glob("*.json") if p.name.startswith(("recipes", "circuit"))
    ]
    contents = {path: path.read_text() for path in caches}
    for path in caches:
        path.write_text(damage)
    document = bench.run("measure")

    assert len(caches) == 2
    assert (document["measured"], document["reused"]) == (0, 8)
    assert {path: path.read_text() for path in caches} == contents
    assert bench.run("space") == space


def test_report_is_one_page(bench: Any, tmp_path: Path) -> None:
    """report writes one HTML file."""
    bench.run("report", "--out", tmp_path / "r.html")

    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
