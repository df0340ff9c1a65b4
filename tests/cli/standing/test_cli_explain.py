"""select --explain: what other candidates would change, and what the budget is worth."""

from __future__ import annotations

import json
from typing import Any

import pytest

TABLE = ("select", "--no-verify", "--confidence", "0.5", "--explain")


def predicted_s(stages: Any, cli: Any, choices: dict[str, str]) -> float:
    """Return what ``predict`` says of an architecture."""
    document = {"format": "lanaprof-architecture/1", "teacher": "", "choices": choices}
    (stages.folder / "arch.json").write_text(json.dumps(document), encoding="utf-8")
    return float(cli("predict", "--architecture", "arch.json", "--device", "cpu", "--json").json["latency_s"])


def with_changes(choices: dict[str, str], changes: list[dict[str, Any]]) -> dict[str, str]:
    """Return an architecture after exchanges."""
    changed = {change["layer"]: change["after"] for change in changes}
    return {key: name for key, name in (choices | changed).items() if name is not None}


def test_an_exchange_changes_what_it_says(stages: Any, cli: Any) -> None:
    """The network with the exchange is predicted to take as much more, or less, as the table says."""
    stages.scored()
    document = cli(*TABLE, "--budget", "90%", "--json").json
    explained = document["explanation"]
    before_s = predicted_s(stages, cli, document["choices"])

    assert explained["cost"] == "latency_s@cpu"
    assert explained["upgrades"]
    for exchange in explained["upgrades"] + explained["savings"]:
        assert document["choices"][exchange["layer"]] == exchange["before"]
        after_s = predicted_s(stages, cli, with_changes(document["choices"], [exchange]))
        assert exchange["cost"] == pytest.approx(after_s - before_s, abs=1e-12)
    assert all(row["score"] > 0 and row["cost"] > 0 for row in explained["upgrades"])
    assert all(row["score"] < 0 and row["cost"] < 0 for row in explained["savings"])


def test_neighbours_are_cheaper_and_better(stages: Any, cli: Any) -> None:
    """The best network that costs less, and the cheapest that scores more, beyond the budget less its margin."""
    stages.scored()
    document = cli(*TABLE, "--budget", "90%", "--json").json
    cheaper, better = document["explanation"]["cheaper"], document["explanation"]["better"]

    assert cheaper["cost"] < document["predicted_s"]
    assert cheaper["score"] <= document["score"] < better["score"]
    assert better["cost"] > document["budget_s"] - document["margin_s"]
    assert better["cost"] == pytest.approx(
        predicted_s(stages, cli, with_changes(document["choices"], better["changes"])), abs=1e-12
    )


def test_the_terminal_shows_layers_and_operations(stages: Any, cli: Any) -> None:
    """Exchanges by layer, from one operation to another, with what they cost and gain."""
    stages.scored()
    document = cli(*TABLE, "--budget", "90%", "--json").json
    shown = " ".join(cli(*TABLE, "--budget", "90%").out.split())
    first = document["explanation"]["upgrades"][0]

    assert "one exchange that gains" in shown
    assert f"{first['layer']} {first['before']} {first['after']}" in shown
    assert "the cheapest that scores more: score" in shown


def test_without_the_option_nothing_is_explained(stages: Any, cli: Any) -> None:
    """It takes a few solves more."""
    stages.scored()

    assert "explanation" not in cli(*TABLE[:-1], "--budget", "90%", "--json").json
