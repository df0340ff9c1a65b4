"""The page of the benchmarks is made of their results, and of nothing else."""

from __future__ import annotations

import copy
import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import harness
import pytest
import sections
import sections_networks
import throughput
from harness import read_runs, rounded, typed_command, write_runs
from latency_accuracy import coverage_of, gates_failed, goals_met, is_too_noisy
from page import PAGE, files_from, newest, stale
from sections import wilson

from lanaprof.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Any]]:
    """What smoke runs of all benchmarks wrote, as if they were real ones."""
    found = read_runs(Path(__file__).parent / "fixtures" / "quick.json")
    return [{**run, "quick": False} for run in found]


def test_committed_page_is_what_the_results_say() -> None:
    """docs/benchmarks.md and its charts equal what page.py makes of the committed results."""
    command = [sys.executable, "benchmarks/page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


def test_page_holds_the_figures_of_every_benchmark(runs: list[dict[str, Any]]) -> None:
    """Each benchmark's table has the figures of its run, and the last section its command and versions."""
    page = files_from(runs)[PAGE]
    judged = next(run["result"] for run in runs if run["benchmark"] == "latency_accuracy")

    assert f"| {100 * judged['median']:.2f} % |" in page
    assert f"factor | {judged['common_factor']:.4f} |" not in page
    assert f"| {judged['common_factor']:.4f} |" in page
    assert "| MACs × constant |" in page
    assert "| tiny | relay |" in page
    assert "| 46 × 197 |" in page
    assert all(f"`{run['command']}`" in page for run in runs)
    assert "no results are committed yet" not in page


def test_charts_are_well_formed(runs: list[dict[str, Any]]) -> None:
    """Every chart that the page shows is drawn, is XML, and holds no number that is none."""
    files = files_from(runs)
    shown = [name for name in files if name.endswith(".svg")]

    assert len(shown) == files[PAGE].count("](images/")
    for name in shown:
        assert Path(name).name in files[PAGE]
        assert "nan" not in files[name]
        ElementTree.fromstring(files[name])


def test_smoke_runs_never_reach_the_page(runs: list[dict[str, Any]]) -> None:
    """A run with --quick leaves the page without figures."""
    page = files_from([{**run, "quick": True} for run in runs])

    assert list(page) == [PAGE]
    assert page[PAGE].count("no results are committed yet") == page[PAGE].count("\n## ")


def test_noisy_attempts_are_told_and_not_counted(runs: list[dict[str, Any]]) -> None:
    """A run that was too noisy is not in the table; that there was one is said."""
    noisy = copy.deepcopy(next(run for run in runs if run["benchmark"] == "latency_accuracy"))
    noisy["result"] |= {"counted": False, "median": 0.4321}
    page = files_from([*runs, noisy])[PAGE]

    assert "1 more runs were too noisy" in page
    assert "43.21 %" not in page


def test_newest_run_of_a_thing_counts() -> None:
    """Of two runs with one key the later one is kept, in the order the keys came up."""
    runs = [
        {"time": "2", "part": "a", "n": 2},
        {"time": "1", "part": "a", "n": 1},
        {"time": "3", "part": "b", "n": 3},
    ]

    assert [2, 3] == [run["n"] for run in newest(runs, lambda run: run["part"])]


def test_stale_names_what_differs_and_what_is_left_over(tmp_path: Path) -> None:
    """A page that differs, one that is missing, and a chart that is drawn no more are named."""
    images = tmp_path / "docs/images"
    images.mkdir(parents=True)
    (images / "benchmark-old.svg").write_text("<svg/>")
    (images / "report.svg").write_text("<svg/>")
    (tmp_path / "docs/same.md").write_text("x")
    (tmp_path / "docs/other.md").write_text("y")
    found = stale({"docs/same.md": "x", "docs/other.md": "x", "docs/new.md": "x"}, tmp_path)

    assert ["docs/images/benchmark-old.svg", "docs/new.md", "docs/other.md"] == found


def test_results_grow_a_line_a_run(tmp_path: Path) -> None:
    """Writing keeps what was there: one run a line, and reading gives it back."""
    path = tmp_path / "results" / "x.json"
    write_runs(path, [{"run": "a", "value": 1.5}])
    write_runs(path, [*read_runs(path), {"run": "b", "value": "µ"}])

    assert [{"run": "a", "value": 1.5}, {"run": "b", "value": "µ"}] == read_runs(path)
    assert 4 == len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other/1", "runs": []}', '{"runs": []}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """Results are never added to a file that holds something else."""
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(BadInput, match=r"x\.json is not a file of benchmark results"):
        read_runs(path)


def test_recorded_command_leaves_out_where_files_lie() -> None:
    """Paths of --out and --work are nobody's business; what changes the figures stays."""
    words = ["--out", "/home/me/x.json", "--networks", "60", "--work=/tmp/y", "--spaces", "a b"]

    assert "python benchmarks/x.py --networks 60 --spaces 'a b'" == typed_command("x", words)


def test_floats_are_cut_however_deep() -> None:
    """Six digits of every float are kept, in lists and mappings; integers and texts stay."""
    assert {"a": [0.123457, 12345678, "x", None]} == rounded({"a": [0.123456789, 12345678, "x", None]})


def judged(**changed: float) -> dict[str, Any]:
    """A result that reaches every goal, with changes."""
    fine = {
        "bias": 0.001,
        "median": 0.005,
        "p95": 0.015,
        "r50": 0.004,
        "r95": 0.01,
        "too_noisy_by_verify": False,
    }
    return {**fine, **changed}


def test_gates_widen_with_what_the_machine_repeats_to() -> None:
    """A median above 1 % passes where it is within 1.5 r50, a 95 % point above 3 % within 2 r95; bias has no excuse."""
    assert ["median 1.20% > 1.00%"] == gates_failed(judged(median=0.012), 1)
    assert [] == gates_failed(judged(median=0.012, r50=0.0085), 1)
    assert ["p95 3.50% > 3.00%"] == gates_failed(judged(p95=0.035), 1)
    assert [] == gates_failed(judged(p95=0.035, r95=0.018), 1)
    assert ["bias -1.20% > 1.00%"] == gates_failed(judged(bias=-0.012, r50=0.0099), 1)


def test_goals_need_all_three_and_are_wider_with_threads() -> None:
    """Bias, median and 95 % point must all reach the goal; two threads have goals of their own."""
    assert goals_met(judged(), 1)
    assert not goals_met(judged(bias=-0.006), 1)
    assert goals_met(judged(bias=-0.006), 2)


def test_too_noisy_is_what_the_machine_repeats_to() -> None:
    """r50 above 1 %, r95 above 2.5 %, or verify's own word make a run too noisy."""
    assert not is_too_noisy(judged(r50=0.01, r95=0.025))
    assert is_too_noisy(judged(r50=0.011))
    assert is_too_noisy(judged(r95=0.026))
    assert is_too_noisy(judged() | {"too_noisy_by_verify": True})


def test_coverage_counts_networks_over_all_spaces() -> None:
    """Pooled coverage counts networks, not spaces, and the ends of an interval belong to it."""
    rows = [[1.0, 0.9, 1.1, 1.1, 1.0], [1.0, 0.9, 1.1, 1.2, 1.0]]

    assert (3, 4) == coverage_of([{"rows": rows}, {"rows": [rows[0], rows[0]]}])


def test_interval_of_a_share() -> None:
    """Wilson's interval of 0 of 10 begins at 0 and ends at z² / (10 + z²) = 3.84 / 13.84."""
    low, high = wilson(0, 10)

    assert low == pytest.approx(0, abs=1e-9)
    assert high == pytest.approx(0.2775, abs=1e-3)


@pytest.mark.parametrize(
    "module", [harness, sections, sections_networks, throughput], ids=lambda m: m.__name__
)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    """What the docstrings show is what comes out."""
    found = doctest.testmod(module)

    assert found.attempted > 0
    assert found.failed == 0
