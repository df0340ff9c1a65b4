"""Every benchmark runs as a user starts it; ``--quick`` measures a toy network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import read_runs

ROOT = Path(__file__).parents[2]


Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(script: Callable[..., tuple[int, str]], tmp_path: Path) -> Run:
    """Return what runs a benchmark with --quick and gives its results."""

    def once(name: str, *words: str) -> list[dict[str, Any]]:
        out, work = tmp_path / "results.json", tmp_path / "work"
        given = ("--quick", "--out", str(out), "--work", str(work), *words)
        code, printed = script(ROOT / "benchmarks" / f"{name}.py", *given, folder=tmp_path)

        assert code == 0, printed
        assert not work.exists()
        return [found["result"] for found in read_runs(out)]

    return once


@pytest.mark.slow
def test_solver_runs(run: Run) -> None:
    """benchmarks/solver.py --quick writes times beside the rivals that are there, and no answer is wrong."""
    rivals, adversarial = run("solver")

    assert rivals["instances"][0]["proved"] is True
    assert rivals["instances"][0]["PuLP + HiGHS"]["off"] == pytest.approx(0.0, abs=1e-6)
    assert adversarial["instances"] == 72
    assert adversarial["wrong"] == []


@pytest.mark.slow
def test_latency_accuracy_runs_with_rivals(run: Run) -> None:
    """benchmarks/latency_accuracy.py --quick --rivals measures, verifies, and predicts by six other means."""
    (result,) = run("latency_accuracy", "--rivals")
    rivals = result["rivals"]

    assert result["networks"] == len(result["rows"])
    assert len(rivals["predictors"]) == 6
    assert set(result["stretch"]) == {"0.5", "0.8", "0.9", "0.95", "0.99"}


@pytest.mark.slow
def test_repeatability_runs_beside_a_hog(run: Run) -> None:
    """benchmarks/repeatability.py --quick --hogs 1 measures both protocols twice."""
    results = run("repeatability", "--hogs", "1")

    assert ["relay", "hot"] == [result["protocol"] for result in results]
    assert all(result["operators"] for result in results)


@pytest.mark.slow
def test_throughput_runs(run: Run) -> None:
    """benchmarks/throughput.py --quick stores all operators it exported."""
    (result,) = run("throughput")

    assert result["operators"] == result["stored"]


@pytest.mark.slow
def test_proving_runs(run: Run) -> None:
    """benchmarks/proving.py --quick selects for a budget and times the network again."""
    (result,) = run("proving")

    assert len(result["budgets"]) == 1


@pytest.mark.slow
def test_distilling_runs(run: Run) -> None:
    """benchmarks/distilling.py --quick trains its candidates with distill and alone, interleaved."""
    (result,) = run("distilling")

    assert (result["candidates"], result["layers"], result["threads"]) == (9, 3, 1)
    assert 0 < result["ratio_low"] <= result["ratio"] <= result["ratio_high"]


@pytest.mark.slow
def test_shrinking_runs(run: Run) -> None:
    """benchmarks/shrinking.py --quick trains both projects; what both trained has the same weights."""
    (result,) = run("shrinking")

    assert result["same_weights"]
    assert result["candidate_steps"] <= result["candidate_steps_whole"]
    assert len(result["budgets"]) == 2


@pytest.mark.slow
def test_precision_runs(run: Run) -> None:
    """benchmarks/precision.py --quick mixes two precisions for a budget and judges the exported files."""
    (result,) = run("precision")

    assert [one["name"] for one in result["networks"]] == ["fp32", "int8", "mixed-0"]
    assert [one["int8_layers"] for one in result["networks"][:2]] == [0, 3]
    assert all(one["agreement"] > 0.5 for one in result["networks"])


@pytest.mark.slow
def test_contest_runs(run: Run) -> None:
    """benchmarks/lana.py --quick trains a student of every kind and judges all on the same images."""
    (result,) = run("lana")
    students = result["students"]

    assert {"lanaprof", "uniform", "scratch"} <= {row["method"] for row in students}
    assert {result["teacher"]["images"]} == {row["images"] for row in students}
    assert all(row["behind_wrong"] == [0.0, 0.0] for row in students if row["method"] == "lanaprof")


@pytest.mark.slow
def test_million_runs(run: Run) -> None:
    """benchmarks/million.py --quick fills, exports, imports, merges and asks, on both kinds of database."""
    from lanaprof.errors import StoreError
    from lanaprof.lut.testing import find_programs

    try:
        find_programs()
    except StoreError as error:
        pytest.skip(f"no PostgreSQL server: {error.message}")
    results = run("million")

    steps = [
        (each["what"], each.get("kind"), each.get("format")) for each in results if each["what"] != "query"
    ]
    assert steps == [
        ("make", None, None), ("export", None, "jsonl.zst"), ("import", "sqlite", "jsonl.zst"),
        ("import", "postgresql", "jsonl.zst"), ("export", None, "parquet"), ("import", "sqlite", "parquet"),
        ("import", "postgresql", "parquet"), ("merge", None, None), ("merge again", None, None),
    ]  # fmt: skip
    asked = {(each["kind"], each["policy"]) for each in results if each["what"] == "query"}
    assert len(asked) == 8
    assert all(each["operators"] == 10 for each in results if each["what"] == "query")


@pytest.mark.slow
def test_shared_store_runs(run: Run) -> None:
    """benchmarks/shared_store.py --quick kills a writer, crashes the server, and takes sizes."""
    from lanaprof.errors import StoreError
    from lanaprof.lut.testing import find_programs

    try:
        find_programs()
    except StoreError as error:
        pytest.skip(f"no PostgreSQL server: {error.message}")
    file, writers, *sizes = run("shared_store")

    for each in (file, writers):
        assert (each["stored"], each["lost"], each["twice"], each["problems"]) == (200, 0, 0, 0)
    assert [size["rows"] for size in sizes] == [40, 200]


@pytest.mark.slow
def test_hub_fuzz_runs(run: Run) -> None:
    """benchmarks/hub_fuzz.py --quick finds nothing wrong, and what was pulled is what was pushed."""
    fuzz, transfer = run("hub_fuzz")

    assert fuzz["requests"] > 200
    assert [fuzz[name] for name in ("faults", "other_form", "let_in", "leaks", "changed")] == [
        [],
        [],
        [],
        [],
        {},
    ]
    assert transfer["same"] is True


@pytest.mark.slow
def test_farm_loses_nothing(run: Run) -> None:
    """benchmarks/farm.py --quick: workers are killed, the server crashes; each job is done once, on one at a time."""
    pytest.importorskip("procrastinate", reason="the extra farm is not installed")
    (result,) = run("farm")

    assert (40, 0, 0) == (result["done"], result["failed"], result["left"])
    assert (0, 0, 0) == (result["enqueued_twice"], result["lost"], result["overlaps"])
    assert result["kills"] >= 1
    assert 1 == result["crashes"]


@pytest.mark.slow
def test_hub_scale_runs(run: Run) -> None:
    """benchmarks/hub_scale.py --quick asks for every page of the hub, alone and among readers; none fails."""
    results = run("hub_scale")

    alone = {each["name"] for each in results if each["what"] == "alone"}
    assert {"/", "/devices", "/coverage", "/compare (two teams)", "/api/v1/ids (deep)"} <= alone
    read = {each["name"]: each["failed"] for each in results if each["what"] == "readers"}
    assert read["all that was read"] == 0
    assert read["push"] == 0
