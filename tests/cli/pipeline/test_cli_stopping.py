"""distill leaves out what cannot be selected, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from lanaprof.flows.learning import find_predictors, wanted_candidates
from lanaprof.flows.project import load_project
from lanaprof.flows.shrinking import space_costs
from lanaprof.lut import open_store

at = pytest.mark.parametrize


def test_plan_adds_up_over_layers(bench: Any) -> None:
    """Each layer's candidates are hopeless, failed, given up, trained, or to be trained; the sums are the totals."""
    plan = bench.run("distill", "--steps", "40", "--batch-size", "16", "--plan")
    layers = plan["layers"]

    assert [layer["name"] for layer in layers] == ["1.0", "1.1", "1.2"]
    for name in ("train", "reused", "stopped", "hopeless", "failed", "unmeasured"):
        assert sum(layer[name] for layer in layers) == plan[name]
    for layer in layers:
        known = ("hopeless", "failed", "stopped", "reused", "train")
        assert sum(layer[name] for name in known) == layer["candidates"]
        assert (layer["seconds"] > 0) is (layer["memory_bytes"] > 0) is (layer["train"] > 0)
    assert plan["turns"] == 1


def test_people_see_the_plan_by_layer(bench: Any, cli: Any) -> None:
    """The table has a line per layer, the sentence says that early stops will spare more."""
    ran = cli("distill", "--steps", "40", "--batch-size", "16", "--plan")

    assert all(f" {name} " in ran.out for name in ("1.0", "1.1", "1.2"))
    assert "to train, 0 trained already: about" in ran.out
    assert "less what early stops spare" in ran.out


def test_no_stop_trains_all(bench: Any) -> None:
    """Without early stops every wanted candidate has its weights; with them trained and given up add up."""
    words = ("distill", "--steps", "24", "--batch-size", "16")
    some = bench.run(*words)
    everything = bench.run(*words, "--no-stop")

    assert some["trained"] + some["stopped"] == some["wanted"]
    assert some["stopped"] == some["stopped_now"]
    assert everything["trained"] == some["stopped"]
    assert (everything["reused"], everything["stopped"]) == (some["trained"], 0)


def test_precision_is_part_of_the_key(bench: Any) -> None:
    """Weights trained in mixed precision are others than those trained in float32."""
    words = ("distill", "--steps", "2", "--batch-size", "16", "--layers", "1.0")
    first = bench.run(*words, "--precision", "bf16")
    second = bench.run(*words, "--precision", "bf16")
    third = bench.run(*words, "--precision", "fp32")

    assert (first["reused"], second["trained"], third["reused"]) == (0, 0, 0)


def test_costs_are_what_may_be_budgeted(bench: Any) -> None:
    """Latencies with their intervals first, then the sizes the project names; ``skip`` costs nothing."""
    config = bench.folder / "lanaprof.toml"
    text = config.read_text()
    config.write_text(text + '\ncosts = ["latency_s@cpu", "params"]\n')
    project = load_project(bench.folder)
    with open_store(project.database(None)) as store:
        (predictor,) = find_predictors(project, store, team="local")
        costs = space_costs(project, [predictor])
        wanted = wanted_candidates(project, [predictor])

    for layer in project.space.layers:
        assert set(costs[layer.name]) == set(layer.candidates)
        for operation, ((low_s, high_s), (low, high)) in costs[layer.name].items():
            latency_s = predictor.candidate_cost_s(layer.name, operation)
            assert low_s <= latency_s <= high_s
            assert (low_s < high_s) is (operation != "skip")
            assert low == high
            assert (low == 0) is (operation == "skip")
    assert wanted.costs == costs
    assert space_costs(project, []) == {}
