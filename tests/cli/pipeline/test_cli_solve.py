"""solve: the problem format, the keys it prints, and everything that is wrong with a problem or a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

at = pytest.mark.parametrize
Change = Callable[[dict[str, Any]], Any]


def problem() -> dict[str, Any]:
    """Return a problem of two layers: the best is within 3 ms, the teacher within 4."""
    layers = [
        {
            "name": name,
            "candidates": [
                {"name": "teacher", "score": 0.0, "costs": {"latency_s@cpu": 0.0015, "params": 100}},
                {"name": "small", "score": score, "costs": {"latency_s@cpu": 0.0005, "params": 20}},
            ],
        }
        for name, score in (("a", -0.1), ("b", -0.3))
    ]
    return {"format": "lanaprof-problem/1", "layers": layers, "fixed": {"latency_s@cpu": 0.001}}


def written(folder: Path, document: Any) -> Path:
    path = folder / "problem.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_answer_has_its_keys(cli: Any, tmp_path: Path) -> None:
    """The best choice within the budget, proved, with its costs, the fixed part included."""
    ran = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=0.003", "--json")

    assert ran.code == 0
    assert ran.json["status"] == "optimal"
    assert ran.json["choices"] == {"a": "small", "b": "teacher"}
    assert ran.json["score"] == ran.json["bound"] == -0.1
    assert ran.json["proved"] is True
    assert ran.json["costs"]["latency_s@cpu"] == pytest.approx(0.003)
    assert ran.json["solve_s"] > 0


def test_several_budgets_hold_together(cli: Any, tmp_path: Path) -> None:
    """--budget is repeated, one per cost."""
    path = written(tmp_path, problem())
    ran = cli("solve", path, "--budget", "latency_s@cpu=1", "--budget", "params=40", "--json")

    assert ran.json["choices"] == {"a": "small", "b": "small"}


def test_explain_tells_what_an_exchange_would_buy(cli: Any, tmp_path: Path) -> None:
    """--explain adds the best exchanges by score per cost, and the neighbours on the front."""
    ran = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=0.003", "--explain", "--json")

    explanation = ran.json["explanation"]
    (upgrade,), (saving,) = explanation["upgrades"], explanation["savings"]
    assert (upgrade["layer"], upgrade["before"], upgrade["after"]) == ("a", "small", "teacher")
    assert upgrade["rate"] == pytest.approx(0.1 / 0.001)
    assert (saving["layer"], saving["after"], saving["score"]) == ("b", "small", -0.3)
    assert explanation["cheaper"]["changes"] == [{"layer": "b", "before": "teacher", "after": "small"}]
    assert explanation["better"]["cost"] == pytest.approx(0.004)


def test_explanation_for_people_names_rates_and_neighbours(cli: Any, tmp_path: Path) -> None:
    """In the table latencies have their unit and rates are per millisecond; at the end nothing scores more."""
    ran = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=0.003", "--explain")
    best = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=1", "--explain")

    assert "+1 ms" in ran.out
    assert "the best that costs less: score -0.4, latency_s@cpu 2 ms; changes b: teacher → small" in ran.out
    assert "nothing scores more" in best.out


def test_top_lists_solutions(cli: Any, tmp_path: Path) -> None:
    """--top adds ``solutions``, the first being the answer."""
    path = written(tmp_path, problem())
    ran = cli("solve", path, "--budget", "latency_s@cpu=1", "--top", "2", "--overlap", "0.5", "--json")

    assert [s["choices"] for s in ran.json["solutions"]] == [
        {"a": "teacher", "b": "teacher"},
        {"a": "small", "b": "teacher"},
    ]
    assert ran.json["choices"] == ran.json["solutions"][0]["choices"]


@at("method", ["exact", "mip"])
def test_methods_agree(cli: Any, tmp_path: Path, method: str) -> None:
    """Every registered selector gives the same optimum."""
    path = written(tmp_path, problem())
    ran = cli("solve", path, "--budget", "latency_s@cpu=0.003", "--method", method, "--json")

    assert ran.json["score"] == pytest.approx(-0.1)


def test_architecture_is_written(cli: Any, tmp_path: Path) -> None:
    """--out writes an architecture file."""
    out = tmp_path / "arch.json"
    cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=0.003", "--out", out)

    assert json.loads(out.read_text())["choices"] == {"a": "small", "b": "teacher"}


def test_table_for_people(cli: Any, tmp_path: Path) -> None:
    """Without --json the choices are a table."""
    ran = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=0.003")

    assert "small" in ran.out
    assert "optimal" in ran.out


def test_infeasible_budget_names_the_least(cli: Any, tmp_path: Path) -> None:
    """Each budgeted cost's least alone, the fixed part included; exit code 2."""
    path = written(tmp_path, problem())
    ran = cli("solve", path, "--budget", "latency_s@cpu=0.0001", "--budget", "params=1", "--json")

    assert ran.code == 2
    assert ran.json["status"] == "infeasible"
    assert ran.json["error"]["type"] == "InfeasibleBudget"
    assert ran.json["least"] == {"latency_s@cpu": pytest.approx(0.002), "params": 40}


@at(
    "budget",
    [
        "latency_s@cpu=5ms",
        "latency_s@cpu=nan",
        "latency_s@cpu=inf",
        "latency_s@cpu=",
        "=5",
        "5",
        "unknown=5",
        "",
    ],
)
def test_bad_budgets_are_refused(cli: Any, tmp_path: Path, budget: str) -> None:
    """A budget is COST=NUMBER of a cost that candidates carry."""
    ran = cli("solve", written(tmp_path, problem()), "--budget", budget, "--json")

    assert ran.code == 2
    assert ran.json["error"]["hint"]


@at("value", ["0", "-1"])
def test_budgets_below_the_least_are_infeasible(cli: Any, tmp_path: Path, value: str) -> None:
    """Zero and negative budgets are numbers, but nothing is that cheap."""
    ran = cli("solve", written(tmp_path, problem()), f"--budget=latency_s@cpu={value}", "--json")

    assert (ran.code, ran.json["status"]) == (2, "infeasible")


def test_no_budget_and_two_of_one_cost_are_refused(cli: Any, tmp_path: Path) -> None:
    """At least one budget, and each cost once."""
    path = written(tmp_path, problem())

    assert cli("solve", path).code == 2
    assert "two budgets" in cli("solve", path, "--budget", "params=90", "--budget", "params=80").err


def first(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["layers"][0]["candidates"][0]
    return found


FAULTS: dict[str, Change] = {
    "version": lambda d: d.update(format="lanaprof-problem/9"),
    "no format": lambda d: d.pop("format"),
    "no layers": lambda d: d.pop("layers"),
    "empty layers": lambda d: d.update(layers=[]),
    "layers a number": lambda d: d.update(layers=3),
    "layer without candidates": lambda d: d["layers"][0].update(candidates=[]),
    "layer without a name": lambda d: d["layers"][0].pop("name"),
    "layer twice": lambda d: d["layers"][1].update(name="a"),
    "candidate twice": lambda d: d["layers"][0]["candidates"][1].update(name="teacher"),
    "cost null": lambda d: first(d)["costs"].update({"latency_s@cpu": None}),
    "cost NaN": lambda d: first(d)["costs"].update({"latency_s@cpu": float("nan")}),
    "cost infinite": lambda d: first(d)["costs"].update({"latency_s@cpu": float("inf")}),
    "cost negative": lambda d: first(d)["costs"].update({"latency_s@cpu": -1e-3}),
    "cost a text": lambda d: first(d)["costs"].update({"latency_s@cpu": "1ms"}),
    "cost missing": lambda d: first(d)["costs"].pop("latency_s@cpu"),
    "score null": lambda d: first(d).update(score=None),
    "score NaN": lambda d: first(d).update(score=float("nan")),
    "score missing": lambda d: first(d).pop("score"),
    "fixed NaN": lambda d: d.update(fixed={"latency_s@cpu": float("nan")}),
    "required layer unknown": lambda d: d.update(require={"zzz": ["teacher"]}),
    "forbidden candidate unknown": lambda d: d.update(forbid={"a": ["zzz"]}),
}


@at("fault", sorted(FAULTS))
def test_faulty_problems_are_refused(cli: Any, tmp_path: Path, fault: str) -> None:
    """Every fault of a problem is named; nothing is guessed."""
    document = problem()
    FAULTS[fault](document)
    ran = cli("solve", written(tmp_path, document), "--budget", "latency_s@cpu=0.003", "--json")

    assert ran.code == 2
    assert ran.json["error"]["type"] == "BadProblem"
    assert "Traceback" not in ran.err


@at(
    "text", ["", "{", "[]", "3", "null", '{"format": "lanaprof-architecture/1", "choices": {}}', "PK\x03\x04"]
)
def test_files_that_are_no_problem_are_refused(cli: Any, tmp_path: Path, text: str) -> None:
    """A file that holds something else is refused by name."""
    ran = cli("solve", written(tmp_path, text), "--budget", "latency_s@cpu=0.003", "--json")

    assert ran.code == 2
    assert "problem" in ran.json["error"]["message"]


@at("name", ["missing.json", "."])
def test_unreadable_problem_is_refused(cli: Any, name: str) -> None:
    """A path that is no file is refused."""
    assert cli("solve", name, "--budget", "latency_s@cpu=1").code == 2


@at("out", ["/dev/full", "nowhere/arch.json", "."])
def test_unwritable_out_is_refused(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """--out that cannot be written: exit code 2, and a device stays what it is."""
    monkeypatch.chdir(tmp_path)
    ran = cli("solve", written(tmp_path, problem()), "--budget", "latency_s@cpu=1", "--out", out, "--json")

    assert ran.code == 2
    assert "cannot be written" in ran.json["error"]["message"]
    assert not Path("/dev/full").is_file()
