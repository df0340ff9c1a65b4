"""What a request may ask with: checked texts, and the part of the database they choose."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import StringConstraints

from lanaprof.flows.sources import record_filter
from lanaprof.hub.state import Hub, hub_of
from lanaprof.lut import RecordFilter, Source, Store

__all__ = ["Chosen", "Digest", "Here", "Identity", "Kind", "Limit", "Plain", "Since", "chosen_of"]

_DIGEST = "^[0-9a-f]{32}$"
# No control characters: no name has any, and a database on a server refuses the first of them.
Plain = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Since = Annotated[str, StringConstraints(max_length=40, pattern=r"^[0-9T:.+Z -]*$")]
Digest = Annotated[str, StringConstraints(pattern=_DIGEST)]
Identity = Annotated[str, Path(pattern=_DIGEST)]
Kind = Annotated[
    str,
    StringConstraints(
        pattern="^(operator|environment|measurement|retraction|score|selection|calibration|recipe)$"
    ),
]
After = Annotated[str, Query(pattern="^[0-9a-f]{0,32}$", description="the last id of the page before")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="records a page")]
Here = Annotated[Hub, Depends(hub_of)]


def chosen_of(
    hub: Here,
    device: Plain = "",
    environment: Plain = "",
    team: Plain = "",
    since: Since = "",
    protocol: Plain = "",
) -> RecordFilter:
    """Return which records a request chooses, in the words of a SOURCE."""
    source = Source(
        database="", device=device, environment=environment, team=team, since=since, protocol=protocol
    )
    return filter_in(hub.store, source, hub)


def filter_in(store: Store, source: Source, hub: Hub) -> RecordFilter:
    """Return which records of a store a SOURCE chooses."""
    return record_filter(store, source, hub.folder)


Chosen = Annotated[RecordFilter, Depends(chosen_of)]
