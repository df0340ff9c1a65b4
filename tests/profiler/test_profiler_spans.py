"""Operators that stand for several layers: their visits, the buffers they use, networks composed of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.circuit import Circuit, Step, joined_steps, steps_of
from lanaprof.profiler.protocol import RELAY
from lanaprof.profiler.sampling import Run, plan_relay_round

STEM, HEAD, READER = "stem" * 8, "head" * 8, "read" * 8
CIRCUIT = Circuit(
    (
        Step("", STEM, ("x",), ("a",)),
        Step("one", "", ("a",), ("b",)),
        Step("two", "", ("b",), ("c",)),
        Step("three", "", ("c",), ("d",)),
        Step("four", "", ("d",), ("e",)),
        Step("", HEAD, ("e",), ("y",)),
    ),
    tuple((name, "float32", (1, 4)) for name in "xabcdey"),
)
PLACES = {
    "conv": ("one", "four"),
    "both": ("one..two", "two"),
    "front": ("one..two",),
    "middle": ("two..three",),
    "back": ("three..four",),
    "last": ("three..four",),
}
FILLERS = dict.fromkeys(("one", "two", "three", "four"), ("own",))


def test_every_span_is_visited_in_place_of_its_layers() -> None:
    """Each operator once at least, from the first layer's input to the last one's output; nothing runs inside."""
    visits = plan_relay_round(CIRCUIT, PLACES, FILLERS, RELAY, random.Random(1))

    runs = [run for visit in visits for run in visit.runs]
    assert set(PLACES) <= {run.operator for run in runs}
    assert {Run("front", 1, 2), Run("middle", 2, 3), Run("back", 3, 4), Run("last", 3, 4)} == {
        run for run in runs if run.end >= 0
    }
    for visit in visits:
        covered = [step for run in visit.runs for step in range(run.step, max(run.step, run.end) + 1)]
        assert covered == [0, 1, 2, 3, 4, 5]


def test_spans_that_do_not_overlap_share_a_network() -> None:
    """Two runs at each end fill two networks; the one across the middle takes a third."""
    plain = {name: layers for name, layers in PLACES.items() if name in ("conv", "both")}

    without = plan_relay_round(CIRCUIT, plain, FILLERS, RELAY, random.Random(1))
    visits = plan_relay_round(CIRCUIT, PLACES, FILLERS, RELAY, random.Random(1))

    assert without == visits[: len(without)]
    assert len(visits) - len(without) in (2, 3)


def test_a_network_of_pieces_has_one_step_for_a_run() -> None:
    """From the first layer's buffer to the last one's."""
    steps = joined_steps(CIRCUIT, ["one", "two..four"])

    assert ["", "one", "two..four", ""] == [step.layer for step in steps]
    assert Step("two..four", "", ("b",), ("e",)) == steps[2]
    assert CIRCUIT.steps == joined_steps(CIRCUIT, ["one", "two", "three", "four"])


def test_what_others_read_in_between_cannot_be_one_piece() -> None:
    """A segment reads what the second layer gives."""
    read = replace(CIRCUIT, steps=(*CIRCUIT.steps, Step("", READER, ("c",), ("z",))))

    assert (1, 2) == steps_of(read, "one..two")
    with pytest.raises(UnsupportedOperator, match="do not follow each other"):
        steps_of(read, "one..three")
