"""Which measurement counts, through predict, frontier and select: the option, the file, and the calibration's state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import lanaprof.cli.base
from lanaprof.cli import main
from lanaprof.lut import open_store

at = pytest.mark.parametrize


def add_slower_host(bench: Any) -> None:
    """Another host measured everything again, later, and finds twice the latency."""
    with open_store(bench.folder / "lanaprof.db") as store:
        rows = [row for row in store.measurements(with_samples=True) if row.latency_s is not None]
        again = [
            replace(
                row,
                host="another",
                team="elsewhere",
                time="2099-01-01T00:00:00Z",
                latency_s=2 * (row.latency_s or 0.0),
                ci_low_s=2 * (row.ci_low_s or 0.0),
                ci_high_s=2 * (row.ci_high_s or 0.0),
            )
            for row in rows
        ]
        assert store.add(again).added == len(rows)


def told(*words: str) -> str:
    """Run a command, and return what it says on stderr."""
    lanaprof.cli.base._noticed.clear()  # a process tells each notice once
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    return ran.stderr


@at("bench", ["measured"], indirect=True)
def test_prediction_follows_the_policy(bench: Any) -> None:
    """Own host by default; the newest are twice as slow; pooled lies between, at the geometric mean."""
    file = bench.architecture()
    before_s = bench.run("predict", "--architecture", file)["latency_s"]
    add_slower_host(bench)

    found_s = {
        policy: bench.run("predict", "--architecture", file, "--policy", policy)["latency_s"]
        for policy in ("own-host", "own-team", "newest", "pooled")
    }

    assert found_s["own-host"] == found_s["own-team"] == before_s
    assert found_s["newest"] == pytest.approx(2 * before_s)
    assert found_s["pooled"] == pytest.approx(2**0.5 * before_s, rel=0.02)


@at("bench", ["measured"], indirect=True)
def test_lanaprof_toml_names_the_policy(bench: Any) -> None:
    """What the file says holds without an option; the option comes first."""
    file = bench.architecture()
    before_s = bench.run("predict", "--architecture", file)["latency_s"]
    add_slower_host(bench)
    with (bench.folder / "lanaprof.toml").open("a") as config:
        config.write('policy = "newest"\n')

    assert bench.run("predict", "--architecture", file)["latency_s"] == pytest.approx(2 * before_s)
    assert bench.run("predict", "--architecture", file, "--policy", "own-host")["latency_s"] == before_s


def test_calibration_belongs_to_the_rows_that_counted(bench: Any) -> None:
    """Under another policy the stored one is stale, and the warning's command names the policy."""
    add_slower_host(bench)

    own = told("frontier", "--policy", "own-host")
    newest = told("frontier", "--policy", "newest")
    chosen = told("select", "--budget", "500%", "--no-verify", "--policy", "newest")

    assert "another state of the table" not in own
    for words in (newest, chosen):
        assert "another state of the table" in words
        assert "lanaprof calibrate --device cpu --policy newest" in words
