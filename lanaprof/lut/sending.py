"""Push and pull: send what the other database lacks, and nothing else.

Ids are digests of content, so asking which ids are there is enough to know what is missing. Everything goes in pages
and small transactions: memory is bounded, a lost connection is taken up again, and a transfer that was stopped goes
on where it was when it is started again. Unlike a merge it is not one consistent state of the source: what is added
while it runs may or may not come along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from lanaprof.errors import StoreError
from lanaprof.lut.adding import AddReport, chunked
from lanaprof.lut.exchange import ImportReport, RefusedRow
from lanaprof.lut.queries import RecordFilter
from lanaprof.lut.records import RECORD_TYPES, Record

__all__ = ["Giver", "Taker", "transfer"]

PAGE = 5_000  # ids in memory at a time
BATCH = 500  # records in memory at a time, and in one transaction
Follow = Callable[[int, int, str], None]


class Giver(Protocol):
    """What records are fetched from: a store, or a server that answers as one."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def counts(self, records: RecordFilter | None = None) -> dict[str, int]:
        """See `Store.counts`."""

    def ids(
        self, kind: str, records: RecordFilter | None = None, *, after: str = "", limit: int
    ) -> list[str]:
        """See `Store.ids`."""

    def records_of(self, kind: str, ids: Iterable[str]) -> list[Record]:
        """See `Store.records_of`."""


class Taker(Protocol):
    """What records are sent to: a store, or a server that answers as one."""

    def lacking(self, kind: str, ids: Iterable[str]) -> list[str]:
        """See `Store.lacking`."""

    def add(self, records: Iterable[Record]) -> AddReport:
        """See `Store.add`."""


def transfer(
    source: Giver, destination: Taker, *, records: RecordFilter | None = None, follow: Follow | None = None
) -> ImportReport:
    """Add to one database what another has and it lacks, by id; again does nothing more.

    Args:
        source: where records come from.
        destination: where they go to.
        records: which; all by default.
        follow: told how far it is: records looked at, records in all, and the kind of record.

    Returns:
        What became of the source's records; the destination keeps what it has besides.

    Raises:
        StoreError: one of them failed for longer than a minute. What arrived by then stays.
    """
    total = ImportReport()
    try:
        counts = source.counts(records)
        done, whole = 0, sum(counts.values())
        for kind in RECORD_TYPES:  # operators and environments stand first there, then what refers to them
            after = ""
            while page := source.ids(kind, records, after=after, limit=PAGE):
                after = page[-1]
                lacking = destination.lacking(kind, page)
                total += ImportReport(known=len(page) - len(lacking))
                done += len(page) - len(lacking)
                for ids in chunked(lacking, BATCH):
                    total += _send(source, destination, kind, ids)
                    done += len(ids)
                    if follow is not None:
                        follow(done, max(whole, done), kind)
                if follow is not None:
                    follow(done, max(whole, done), kind)
    except StoreError as error:
        told = f"what has arrived stays, and the same command goes on from there; {error.hint}"
        raise StoreError(error.message, hint=told.rstrip("; "), users_fault=error.exit_code == 2) from error
    return total


def _send(source: Giver, destination: Taker, kind: str, ids: list[str]) -> ImportReport:
    report = destination.add(source.records_of(kind, ids))
    refused = tuple(
        RefusedRow(file=source.name, row=0, id=each.id, reason=each.reason) for each in report.refused
    )
    return ImportReport(added=report.added, known=report.known, refused=refused)
