"""Whole networks that the runtime refuses, although it took each of their operators alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lanaprof.config import parse_device
from lanaprof.flows.bench import Bench
from lanaprof.flows.operators import find_operators
from lanaprof.lut import Measurement, utc_now
from lanaprof.profiler.campaign import CampaignResult, Target
from lanaprof.profiler.protocol import Protocol
from lanaprof.profiler.testing import scripted_latency_s

REFUSED = "layer3.0 ds(out=relu)"
Graph = Mapping[str, Any]


def groups(graph: Graph) -> set[int]:
    """Return the groups of a graph's convolutions."""
    return {node["attributes"].get("group", 1) for node in graph["nodes"] if node["op"] == "Conv"}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Graph], bool]], None]:
    """Return what puts a runtime in the machine's place, which refuses some graphs."""

    def put(refuses: Callable[[Graph], bool]) -> None:
        def run(
            bench: Bench, _protocol: Protocol, targets: Sequence[Target], **_settings: Any
        ) -> CampaignResult:
            result = CampaignResult()
            for target in targets:
                graph = bench.store.get_operator(target.operator).graph
                seconds = None if refuses(graph) else scripted_latency_s(graph)
                if target.copy:
                    result.copies.update({target.operator: seconds} if seconds else {})
                    continue
                record = Measurement(
                    operator=target.operator, environment=bench.environment.id, cache="hot", protocol="network/1",
                    status="ok" if seconds else "failed", latency_s=seconds, ci_low_s=seconds and seconds * 0.999,
                    ci_high_s=seconds and seconds * 1.001, samples=(), rounds=(), team="vision", host="h1",
                    time=utc_now(), message="" if seconds else "no kernel for this grouping",
                )  # fmt: skip
                bench.store.add([record])
                result.measurements[target.operator] = record
            return result

        monkeypatch.setattr(Bench, "run", run)

    return put


def refused_groups(stages: Any) -> set[int]:
    """Return the grouping that only one candidate of the space has."""
    place, _, operation = REFUSED.partition(" ")
    with stages.store() as store:
        key = find_operators(stages.project, parse_device("cpu")).operator(place, operation)
        return groups(store.get_operator(key).graph) - {1}


def test_calibrate_goes_on_without_refused_networks(stages: Any, cli: Any, runtime: Any) -> None:
    """They are left out with the reason; what they have in common is said; the others are fitted."""
    bad = refused_groups(stages)
    runtime(lambda graph: bool(groups(graph) & bad))
    ran = cli("calibrate", "--device", "cpu", "--json")

    assert ran.code == 0, ran.err
    assert ran.json["networks"] + len(ran.json["refused"]) == 16
    assert {row["choices"]["layer3.0"] for row in ran.json["refused"]} == {"ds(out=relu)"}
    assert {row["reason"] for row in ran.json["refused"]} == {"no kernel for this grouping"}
    assert f"refused networks have, and no other: {REFUSED}" in ran.err
    assert cli("status", "--json").json["next"] != "lanaprof calibrate --device cpu"


def test_calibrate_ends_where_too_few_are_left(stages: Any, cli: Any, runtime: Any) -> None:
    """A runtime that takes nothing: how many were refused, why, and that nothing was fitted."""
    runtime(lambda _graph: True)
    ran = cli("calibrate", "--device", "cpu")

    assert ran.code == 2
    assert "a calibration needs at least 5 networks; the runtime refused 16 of 16" in ran.err
    assert "no kernel for this grouping" in ran.err


def test_verify_goes_on_without_refused_networks(stages: Any, cli: Any, runtime: Any) -> None:
    """Those that were built are judged, and the command says that it is incomplete."""
    bad = refused_groups(stages)
    runtime(lambda graph: bool(groups(graph) & bad))
    ran = cli("verify", "--device", "cpu", "--random", "12", "--json")
    verified = [row["choices"]["layer3.0"] for row in ran.json["architectures"]]

    assert ran.code == 3, ran.err
    assert "ds(out=relu)" not in verified
    assert 0 < len(verified) < 12
    assert {row["choices"]["layer3.0"] for row in ran.json["refused"]} == {"ds(out=relu)"}


def test_select_proposes_no_refused_network_again(stages: Any, cli: Any, runtime: Any) -> None:
    """The refused candidate has the best score: its networks are ruled out, and another one is proved."""
    stages.scored()
    bad = refused_groups(stages)
    runtime(lambda graph: bool(groups(graph) & bad))
    place, _, operation = REFUSED.partition(" ")
    rows = [
        (layer, name, -0.001 if (layer, name) == (place, operation) else -0.1)
        for layer, name in stages.names()
    ]
    text = "".join(
        f'{layer},"{name}",{score}\n' for layer, name, score in [*rows, ("layer1.0", "skip", -0.3)]
    )
    (stages.folder / "scores.csv").write_text("layer,operation,score\n" + text, encoding="utf-8")
    ran = cli("select", "--device", "cpu", "--budget", "80%", "--scores", "scores.csv", "--explain", "--json")

    assert ran.code == 0, ran.err
    assert ran.json["status"] == "verified"
    assert ran.json["choices"][place] != operation
    assert ran.json["refused"]
    assert {row["choices"][place] for row in ran.json["refused"]} == {operation}
    neighbours = [ran.json["explanation"][name] for name in ("cheaper", "better")]
    changes = [change for each in neighbours if each for change in each["changes"]]
    assert (place, operation) not in [(change["layer"], change["after"]) for change in changes]
