"""select: from the table alone, proved on the device, several at once; and the selections it stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

at = pytest.mark.parametrize
UNPROVED = ("select", "--no-verify", "--confidence", "0.5")


def test_selection_from_the_table(bench: Any) -> None:
    """--no-verify stores an unverified optimum inside the budget, with the keys others rely on."""
    document = bench.run(*UNPROVED, "--budget", "80%")

    assert {
        "id", "status", "score", "bound", "proved", "choices", "predicted_s", "measured_s", "budget_s", "rounds",
        "margin_s",
    } <= set(document)  # fmt: skip
    assert (document["status"], document["measured_s"], document["rounds"]) == ("unverified", None, 0)
    assert document["proved"] is True
    assert document["score"] == document["bound"]
    assert document["predicted_s"] <= document["budget_s"]
    assert bench.query("select count(*) from selections where id = ?", document["id"]) == [(1,)]


def test_budgets_relative_to_the_teacher(bench: Any) -> None:
    """``2x`` is ``50%`` of the teacher's latency."""
    half = bench.run(*UNPROVED, "--budget", "50%")
    twice = bench.run(*UNPROVED, "--budget", "cpu=2x")

    assert twice["budget_s"] == pytest.approx(half["teacher_s"] / 2)
    assert twice["choices"] == half["choices"]


def test_confidence_costs_a_margin(bench: Any) -> None:
    """Unproved, the default confidence of 0.95 keeps a distance from the budget."""
    document = bench.run("select", "--no-verify", "--budget", "300%")

    assert document["confidence"] == 0.95
    assert document["margin_s"] > 0
    assert document["predicted_s"] + document["margin_s"] <= document["budget_s"] * (1 + 1e-9)


def test_selection_is_proved_on_this_machine(bench: Any) -> None:
    """select times what it chooses: verified means that the measured interval ends inside the budget."""
    scores = bench.folder / "scores.csv"
    scores.write_text("layer,operation,score\n" + "".join(f"1.{n},conv,0.1\n" for n in range(3)))
    document = bench.run("select", "--budget", "300%", "--scores", scores)  # inside on a machine however busy

    assert document["status"] == "verified"
    assert set(document["choices"].values()) == {"conv"}
    assert document["rounds"] >= 1
    assert document["ci_low_s"] <= document["measured_s"] <= document["ci_high_s"] <= document["budget_s"]


@at("bench", ["measured"], indirect=True)
def test_table_that_promises_too_much_is_found_out(bench: Any) -> None:
    """Nothing timed is inside: status over_budget, exit code 3, the best attempt, and no word of success."""
    own = {row[0] for row in bench.query("select operator from recipes")}
    space = bench.run("space")
    teachers = {layer["candidates"][0]["operator"] for layer in space["layers"]}
    for key in own - teachers:
        bench.query(
            "update measurements set latency_s=1e-9, ci_low_s=1e-9, ci_high_s=1e-9 where operator=?", key
        )
    scores = bench.folder / "scores.csv"
    scores.write_text("layer,operation,score\n" + "".join(f"1.{n},mbconv(expand=1),-0.1\n" for n in range(3)))
    teacher_s = bench.run("measure")["teacher_latency_s"]
    cheapest = bench.architecture(b0="mbconv(expand=1)", b1="mbconv(expand=1)", b2="mbconv(expand=1)")
    promised_s = bench.run("predict", "--architecture", cheapest)["latency_s"]
    budget_s = (
        max(promised_s, 0.0) + 0.02 * teacher_s
    )  # three blocks do not run in a fiftieth of the teacher's time
    document = bench.run("select", "--budget", f"{budget_s * 1e9:.3f}ns", "--scores", scores, code=3)

    assert document["status"] == "over_budget"
    assert document["measured_s"] > budget_s
    assert document["rounds"] >= 1


def test_diverse_selections(bench: Any) -> None:
    """--top lists architectures that share at most so many layers, the best first."""
    document = bench.run(*UNPROVED, "--budget", "90%", "--top", "3", "--overlap", "0.7")
    solutions = document["solutions"]
    names = [list(solution["choices"].items()) for solution in solutions]
    shared = [len(set(a) & set(b)) for i, a in enumerate(names) for b in names[:i]]

    assert len(solutions) == 3
    assert document["choices"] == solutions[0]["choices"]
    assert [s["score"] for s in solutions] == sorted((s["score"] for s in solutions), reverse=True)
    assert max(shared) <= 2  # of three layers


def test_out_is_an_architecture_that_predict_reads(bench: Any) -> None:
    """--out writes the choices; predict gives them the same latency."""
    chosen = bench.run(*UNPROVED, "--budget", "80%", "--out", "arch.json")
    predicted = bench.run("predict", "--architecture", "arch.json")

    assert json.loads((bench.folder / "arch.json").read_text())["choices"] == chosen["choices"]
    assert predicted["latency_s"] == pytest.approx(chosen["predicted_s"])


def test_dumped_problem_has_the_same_answer(bench: Any) -> None:
    """solve on --dump-problem finds what select found."""
    chosen = bench.run(*UNPROVED, "--budget", "80%", "--dump-problem", "p.json")
    budget = chosen["budget_s"] - chosen["margin_s"]
    solved = bench.run("solve", "p.json", "--budget", f"latency_s@cpu={budget!r}")

    assert solved["choices"] == chosen["choices"]
    assert solved["score"] == chosen["score"]


def test_scores_of_a_file(bench: Any) -> None:
    """--scores takes the place of stored scores; candidates it does not name cannot be chosen."""
    (bench.folder / "s.json").write_text(json.dumps([{"layer": "1.1", "operation": "skip", "score": -1.5}]))
    teacher_s, without_s = (
        bench.run("predict", "--architecture", bench.architecture(**choices))["latency_s"]
        for choices in ({}, {"b1": "skip"})
    )
    budget_s = (teacher_s + without_s) / 2
    document = bench.run(*UNPROVED, "--budget", f"{budget_s!r}s", "--scores", "s.json")

    assert document["choices"] == {"1.0": "teacher", "1.1": "skip", "1.2": "teacher"}
    assert document["score"] == -1.5


def test_sizes_are_budgeted_when_the_project_lists_them(bench: Any) -> None:
    """--max-params bounds the parameters once ``costs`` in lanaprof.toml has them."""
    with (bench.folder / "lanaprof.toml").open("a") as file:
        file.write('costs = ["latency_s@cpu", "params", "weight_bytes", "macs", "peak_bytes"]\n')
    free = bench.run(*UNPROVED, "--budget", "500%")
    small = bench.run(
        *UNPROVED, "--budget", "500%", "--max-params", "15k", "--max-weights", "1MB", "--max-macs", "1G"
    )

    assert set(free["choices"].values()) == {"teacher"}
    assert small["budgets"]["params"] == 15_000
    assert small["score"] < free["score"]


def test_least_reachable_is_named(bench: Any) -> None:
    """An unreachable budget: exit code 2, and in JSON the least of every budgeted cost beside the error."""
    document = bench.run("select", "--budget", "1ns", "--no-verify", code=2)
    least_s = document["least"]["latency_s@cpu"]

    assert document["status"] == "infeasible"
    assert document["error"]["type"] == "InfeasibleBudget"
    assert 1e-9 < least_s < 1
    assert (
        bench.run("select", "--budget", f"{least_s * 0.999!r}s", "--no-verify", code=2)["least"]
        == document["least"]
    )
    assert bench.run("select", "--budget", f"{least_s * 1.0001!r}s", "--no-verify")["status"] == "unverified"


def test_selection_by_the_beginning_of_its_id(bench: Any) -> None:
    """Commands take a selection's id, its beginning, or the latest."""
    least_s = bench.run(*UNPROVED, "--budget", "1ns", code=2)["least"]["latency_s@cpu"]
    first = bench.run(*UNPROVED, "--budget", f"{least_s * 1.0001!r}s")
    bench.run(*UNPROVED, "--budget", "500%")
    named = bench.run("export", "--selection", first["id"][:10], "--out", "a.onnx")
    latest = bench.run("export", "--selection", "latest", "--out", "b.onnx")

    assert named["kind"] == latest["kind"] == "onnx"
    assert (bench.folder / "a.onnx").read_bytes() != (bench.folder / "b.onnx").read_bytes()
