"""The hub's API over a real server: lists, pages, filters, what is refused and how that is said."""

from __future__ import annotations

from typing import Any


def _filled(hub: Any, make: Any, *records: Any) -> None:
    assert not hub.store.add([*make.base(), *records]).refused


def test_a_bundle_comes_back_as_it_went(hub: Any, make: Any) -> None:
    """What a team submits is stored; again changes nothing; the download holds the same records."""
    body = make.bundle(make.measurement(), *make.base())

    first = hub.push("vision", body)
    second = hub.push("vision", body)
    with hub.client("reader") as client:
        lines = client.get("/api/v1/bundle", params={"format": "jsonl"}).text.splitlines()

    assert (first.status_code, first.json()) == (200, {"added": 5, "known": 0, "refused": 0, "refusals": []})
    assert second.json()["known"] == 5
    assert sorted(lines[1:]) == sorted(body.decode().splitlines()[1:])
