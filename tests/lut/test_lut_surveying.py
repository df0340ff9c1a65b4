"""What pages ask of a database: ratios and groups of selections."""

from __future__ import annotations

from typing import Any

import pytest

from lanaprof.errors import UnknownSelection
from lanaprof.lut import FRONTIER, Store


def test_a_shared_ratio_is_the_median_of_what_both_timed(store: Store, make: Any) -> None:
    """The newest latency of each operator counts; operators of one side alone do not."""
    old, new = make.environment(), make.environment(backend_version="2.0")
    keys = [make.operator(channels) for channels in (8, 16, 24, 32)]
    later = "2026-04-01T00:00:00Z"
    rows = [make.measurement(operator=key.id, latency_s=1e-3) for key in keys]
    rows += [
        make.measurement(operator=key.id, environment=new.id, latency_s=latency_s, time=later)
        for key, latency_s in zip(keys, (1e-3, 2e-3, 5e-3), strict=False)
    ]
    rows.append(make.measurement(operator=keys[1].id, environment=new.id, latency_s=9e-3))  # older
    store.add([old, new, *keys, *rows])

    found = store.shared_ratio(old.id, new.id, [("hot", "")])
    assert found is not None
    assert (found.ratio, found.operators) == (2.0, 3)
    assert store.shared_ratio(old.id, new.id, [("cold", "")]) is None


def test_groups_hold_what_has_a_place_on_a_chart(store: Store, make: Any) -> None:
    """Each stored frontier is a group, selections of one device, space and teacher are another."""
    chosen = [make.selection(score=-0.1), make.selection(score=-0.2, team="robots")]
    points = [make.selection(status=FRONTIER, score=-score / 10) for score in range(1, 4)]
    store.add(
        [*chosen, *points, make.selection(score=None), make.selection(measured_s=None, predicted_s=None)]
    )

    groups = store.selection_groups()
    assert [(each.frontier, each.count, each.team) for each in groups] == [
        (True, 3, "vision"),
        (False, 2, ""),
    ]
    assert set(store.selections_of(groups[0])) == set(points)
    assert set(store.selections_of(groups[1])) == set(chosen)


def test_points_of_a_frontier_are_found_by_name_alone(store: Store, make: Any) -> None:
    """They are never the latest selection, nor listed as one; what somebody chose comes before them."""
    point = make.selection(status=FRONTIER, time="2027-01-01T00:00:00Z")
    store.add([point])
    with pytest.raises(UnknownSelection, match="which has none"):
        store.find_selection()
    assert store.find_selection(point.id[:12]) == point

    chosen = make.selection()
    store.add([chosen])
    assert store.find_selection() == chosen
    assert store.selections() == (chosen,)
