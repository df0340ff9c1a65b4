"""Budgets on devices and costs that the project was not made for."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ("--device", "v100", "--budget", "50%"),
        ("--budget", "v100=5ms"),
        ("--device", "v100", "--budget", "5ms"),
    ],
)
def test_another_device_says_what_the_project_is_for(stages: Any, cli: Any, words: tuple[str, ...]) -> None:
    """What was asked, what is there, and what to type for the one and for the other."""
    stages.scored()
    error = cli("select", *words, "--json").json["error"]

    assert error["message"].startswith(
        "a budget on device 'v100' was asked, and this project was made for cpu:"
    )
    assert error["hint"] == (
        '--device cpu; to fit v100, too: devices = ["cpu", "v100"] in lanaprof.toml, then '
        "lanaprof measure --device v100, lanaprof distill, lanaprof score"
    )


def test_where_costs_are_listed_the_list_is_to_be_changed(stages: Any, cli: Any) -> None:
    """costs in lanaprof.toml, not devices, says what may be budgeted there."""
    stages.scored()
    stages.configure(costs=("latency_s@cpu", "params"))
    error = cli("select", "--device", "v100", "--budget", "50%", "--json").json["error"]

    assert 'costs = ["latency_s@cpu", "params", "latency_s@v100"] in lanaprof.toml' in error["hint"]


def test_a_size_that_is_no_cost_is_named(stages: Any, cli: Any) -> None:
    """Without another device to measure on."""
    stages.scored()
    error = cli("select", "--budget", "50%", "--max-params", "5M", "--json").json["error"]

    assert "'params' is not among the costs of this project (latency_s@cpu)" in error["message"]
    assert error["hint"] == (
        'set costs = ["latency_s@cpu", "params"] in lanaprof.toml, then lanaprof distill, lanaprof score'
    )
