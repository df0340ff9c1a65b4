"""Records: what they accept, what they refuse and why, and what their ids depend on."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from lanaprof.digest import canonical_json, digest
from lanaprof.errors import BadInput
from lanaprof.lut import Environment, Record, record_from_json

GOLDEN = {
    "calibration": "cffb6d55f4ed9fb09ba8147f92bb878b",
    "environment": "afdee0e336a2529d324359fa1c83f4de",
    "measurement": "b0d7e116da90aee6d0a9d3867dde7189",
    "operator": "42a78e1d68825595fc810e0864bcd8b8",
    "recipe": "bfb22e1a0e3bb5977965c90bcc8695e0",
    "retraction": "2f435b5db0a74bee06e8c402a85673c8",
    "score": "0480a9746d6cb7ce2f936e0e174e3279",
    "selection": "54dbae8eae5bdfeada92e31e5caa9a40",
}


def test_every_kind_comes_back_from_its_json_text(make: Any) -> None:
    """A record written as JSON text and read again is the same record."""
    for record in make.one_of_each():
        again = record_from_json(json.loads(canonical_json(record.to_json())))

        assert again == record
        assert again.id == record.id


def test_id_is_the_digest_of_the_record_without_id(make: Any) -> None:
    """Anyone can recompute an id from the exported JSON."""
    for record in make.one_of_each():
        fields = record.to_json()
        stated = fields.pop("id")

        assert stated == (digest(fields["graph"]) if record.record == "operator" else digest(fields))


def test_golden_ids(make: Any) -> None:
    """Ids stay what they are: files exported by earlier versions depend on it."""
    ids = {record.record: record.id for record in make.one_of_each()}

    assert ids == GOLDEN


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latency_s": "fast"}, "latency_s is 'fast', expected a number"),
        ({"latency_s": None}, "status ok needs latency_s"),
        ({"latency_s": -1.0}, "latency_s is -1.0"),
        ({"latency_s": 2.0}, "not 0 <= ci_low_s"),
        ({"latency_s": 10**400}, "latency_s is inf, expected a finite number"),
        ({"status": "fine"}, "status is 'fine'; known: ok, noisy"),
        ({"status": "failed"}, "status failed can have no latency"),
        ({"cache": "warm"}, "cache is 'warm'"),
        ({"cache": "relay"}, "space is named exactly when cache is relay"),
        ({"space": "s"}, "space is named exactly when cache is relay"),
        ({"clock": "sundial"}, "clock is 'sundial'"),
        ({"rejected": 1.5}, "rejected is 1.5, expected an integer"),
        ({"rejected": True}, "rejected is True, expected an integer"),
        ({"rejected": -1}, "rejected is -1"),
        ({"rejected": 2**63}, "expected an integer from 0 to 2^63 - 1"),
        ({"rounds": [0]}, "samples and rounds differ in length"),
        ({"rounds": [0, 0, 70000]}, "rounds exceeds 65535"),
        ({"samples": [1e-3, -1e-3, 1e-3]}, "samples holds a negative time"),
        ({"samples": 3}, "samples is 3, expected a list"),
        ({"team": ""}, "team is empty"),
        ({"team": "a\0b"}, "team holds a NUL"),
        ({"team": "\ud800"}, "team holds half a surrogate pair"),
        ({"time": "yesterday"}, "time is 'yesterday'"),
        ({"time": "2026-02-30T00:00:00Z"}, "time is '2026-02-30T00:00:00Z'"),
        ({"operator": "conv"}, "operator is 'conv', expected 32 hexadecimal digits"),
        ({"load": -0.5}, "load is negative"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_wrong_measurement_is_refused_with_the_reason(make: Any, change: dict[str, Any], reason: str) -> None:
    """Each field is checked, and the message names it."""
    value = {**make.measurement().to_json(), **change}

    with pytest.raises(BadInput) as caught:
        record_from_json(value)

    assert reason in caught.value.message


def test_changed_record_is_noticed(make: Any) -> None:
    """A record whose content no longer gives its id was changed or damaged."""
    value = {**make.measurement().to_json(), "team": "other"}

    with pytest.raises(BadInput, match="changed or damaged"):
        record_from_json(value)


def test_missing_field_is_named(make: Any) -> None:
    """A record that lacks fields says which."""
    value = make.score().to_json()
    del value["images"], value["id"]

    with pytest.raises(BadInput, match="id, images is missing"):
        record_from_json(value)


@pytest.mark.parametrize("value", [None, [], "record", {"record": 3}, {"record": "recipee"}, {}])
def test_what_is_no_record_is_refused(value: Any) -> None:
    """Any JSON value that is no record is refused, not crashed on."""
    with pytest.raises(BadInput, match="record"):
        record_from_json(value)


def test_whole_numbers_are_floats_where_floats_belong(make: Any) -> None:
    """1 and 1.0 in a float field are the same record, whichever a JSON writer prefers."""
    assert make.score(score=1).id == make.score(score=1.0).id


def test_zero_has_no_sign(make: Any) -> None:
    """-0.0 and 0.0 are the same record: SQL keeps no sign of zero."""
    assert canonical_json(make.score(score=-0.0).to_json()) == canonical_json(make.score(score=0.0).to_json())


def test_pairs_are_sorted(make: Any) -> None:
    """The order in which options were set does not change the environment."""
    one = make.environment(options={"a": "1", "b": "2"})
    other = make.environment(options=(("b", "2"), ("a", "1")))

    assert one == other
    assert one.id == other.id


def test_option_named_twice_is_refused(make: Any) -> None:
    """Two values for one option are a mistake."""
    with pytest.raises(BadInput, match="options names 'a' twice"):
        make.environment(options=(("a", "1"), ("a", "2")))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Environment) if field.init])
def test_every_field_counts_for_the_environment_key(make: Any, name: str) -> None:
    """The environment key depends on the whole closed list."""
    before = make.environment()
    value = getattr(before, name)
    other: Any = {bool: not value, int: 7, str: "other", tuple: {"x": "y"}}[type(value)]

    assert make.environment(**{name: other}).id != before.id


def test_records_are_frozen_and_hashable(make: Any) -> None:
    """Records can be put into sets, and nothing about them changes."""
    assert len({record.id for record in make.one_of_each()} | {make.operator().id}) == 8
    assert len(set(make.one_of_each()) | set(make.one_of_each())) == 8
    for record in make.one_of_each():
        name = dataclasses.fields(record)[-1].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, "other")


def test_operator_keeps_its_own_copy_of_the_graph(make: Any) -> None:
    """Changing the graph one made an operator from does not change the operator."""
    graph = make.graph()
    operator = make.operator()
    same = type(operator)(graph=graph)
    graph["opset"] = 19

    assert same == operator


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_graph_without_json_text_is_refused(make: Any, value: float) -> None:
    """NaN and infinity have no JSON text, so a graph with one has no key."""
    graph = make.graph()
    graph["constants"][2]["value"] = value

    with pytest.raises(BadInput, match="graph has no JSON text"):
        type(make.operator())(graph=graph)


def test_base_class_is_no_record_kind() -> None:
    """The common base has no kind of its own."""
    assert Record.record == ""
