"""What lies behind push and pull: which ids there are, which are lacking, records by id, and whole bundles."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import zstandard
from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Query, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from lanaprof.digest import canonical_json
from lanaprof.hub.asking import After, Chosen, Digest, Here, Kind
from lanaprof.hub.bundles import submit
from lanaprof.hub.gate import API, address_of, token_of
from lanaprof.hub.ledger import Token
from lanaprof.hub.problems import RequestProblem
from lanaprof.hub.state import Hub
from lanaprof.lut import ImportReport, Record, export_file

__all__ = ["JSON_LINES", "router"]

router = APIRouter(prefix=API, tags=["exchanging"])
JSON_LINES = "application/x-ndjson"
PAGE_MOST = 5_000  # ids a page
RECORDS_MOST = 500  # records a request
_FORMATS = {"jsonl": JSON_LINES, "jsonl.zst": "application/zstd", "parquet": "application/vnd.apache.parquet"}


class Ids(BaseModel):
    """Ids of one kind of record."""

    kind: Kind
    ids: Annotated[list[Digest], Field(max_length=PAGE_MOST)]


class Wanted(BaseModel):
    """Records of one kind that are asked for."""

    kind: Kind
    ids: Annotated[list[Digest], Field(max_length=RECORDS_MOST)]


class PageOfIds(BaseModel):
    """A page of ids, sorted; ``next`` is what the next page comes after, null on the last one."""

    ids: list[str]
    next: str | None


class Lacking(BaseModel):
    """Ids that are not stored, in the order they were named in."""

    lacking: list[str]


class RefusedRow(BaseModel):
    """A row that was not added; its line counts from 1, with the manifest."""

    row: int
    id: str
    reason: str


class Submitted(BaseModel):
    """What became of a bundle; only the first refused rows are listed, all are counted."""

    added: int
    known: int
    refused: int
    refusals: list[RefusedRow]


class Line(BaseModel):
    """A line of the audit log; ``time_s`` in seconds since 1970."""

    id: int
    time_s: float
    action: str
    token: str
    name: str
    team: str
    address: str
    added: int
    known: int
    refused: int
    detail: str


class Log(BaseModel):
    """Lines of the audit log, the newest first."""

    items: list[Line]
    next: int | None


@router.get("/ids")
def ids(
    hub: Here,
    chosen: Chosen,
    kind: Annotated[Kind, Query()],
    after: After = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_MOST)] = PAGE_MOST,
) -> PageOfIds:
    """Return a page of the ids of one kind of record: what a pull compares with its own."""
    found = hub.store.ids(kind, chosen, after=after, limit=limit)
    return PageOfIds(ids=found, next=found[-1] if len(found) == limit else None)


@router.post("/lacking")
def lacking(hub: Here, asked: Ids) -> Lacking:
    """Return which ids are not stored here: what a push has to send. Changes nothing."""
    return Lacking(lacking=hub.store.lacking(asked.kind, asked.ids))


@router.post("/records", response_class=StreamingResponse)
def records(request: Request, hub: Here, asked: Wanted) -> StreamingResponse:
    """Return records by id, one a line, sorted by id; absent ones are left out. Changes nothing."""
    lines = _lines(hub.store.records_of(asked.kind, asked.ids))
    if "zstd" in request.headers.get("accept-encoding", ""):
        packed = zstandard.ZstdCompressor(level=3).compress(b"".join(lines))
        return StreamingResponse(iter([packed]), media_type=JSON_LINES, headers={"Content-Encoding": "zstd"})
    return StreamingResponse(lines, media_type=JSON_LINES)


def _lines(found: list[Record]) -> Iterator[bytes]:
    for record in found:
        yield f"{canonical_json(record.to_json())}\n".encode()


@router.get("/bundle", response_class=FileResponse)
def download(
    hub: Here,
    chosen: Chosen,
    background: BackgroundTasks,
    form: Annotated[Literal["jsonl", "jsonl.zst", "parquet"], Query(alias="format")] = "jsonl.zst",
) -> FileResponse:
    """Return the database, or what is chosen of it, as one consistent file.

    It is written before the first byte is sent, so that it is whole or an error.
    """
    folder = tempfile.TemporaryDirectory(prefix="lanaprof-hub-")
    background.add_task(folder.cleanup)
    try:
        with hub.heavy():
            report = export_file(hub.store, Path(folder.name) / f"lanaprof.{form}", records=chosen)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(
        report.path, media_type=_FORMATS[form], filename=report.path.name, background=background
    )


@router.post(
    "/bundle",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                media: {"schema": {"type": "string", "format": "binary"}}
                for media in (*_FORMATS.values(), "application/octet-stream")
            },
        }
    },
)
async def upload(request: Request, hub: Here) -> Submitted:
    """Add what the token may add of a bundle: JSON lines with a manifest, plain or zstd, or Parquet.

    Again changes nothing.
    """
    token = token_of(request)
    if not token.may_write:
        raise RequestProblem(403, "this token may read only", hint="ask the hub's owner for one of your team")
    with hub.upload(token.id), tempfile.TemporaryDirectory(prefix="lanaprof-hub-") as folder:
        bundle = Path(folder) / "bundle"
        with bundle.open("wb") as file:
            try:
                async for chunk in request.stream():
                    file.write(chunk)
            except ClientDisconnect as error:  # nobody is left to read this: it is for the counters
                raise RequestProblem(400, "the bundle ended before its end", hint="send it again") from error
        return await run_sync(_submit, hub, bundle, token, address_of(request.scope))


def _submit(hub: Hub, bundle: Path, token: Token, address: str) -> Submitted:
    try:
        with hub.bundle():
            report = submit(hub.store, bundle, token, limits=hub.limits, now_s=hub.ledger.now_s())
    except RequestProblem as problem:
        hub.ledger.log("push", token, address=address, detail=f"refused whole: {problem.detail}"[:500])
        raise
    _remember(hub, report, token, address)
    listed = report.refused[: hub.limits.refusals_listed]
    return Submitted(
        added=report.added,
        known=report.known,
        refused=len(report.refused),
        refusals=[RefusedRow(row=each.row, id=each.id, reason=each.reason) for each in listed],
    )


def _remember(hub: Hub, report: ImportReport, token: Token, address: str) -> None:
    counts: dict[str, Any] = {"added": report.added, "known": report.known, "refused": len(report.refused)}
    hub.metrics.count_records(**counts)
    hub.ledger.log("push", token, address=address, **counts)


@router.get("/log")
def audit(
    request: Request,
    hub: Here,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Log:
    """Return who pushed what when, and which tokens were made and revoked; for admins."""
    if not token_of(request).is_admin:
        raise RequestProblem(403, "the log is for admins", hint="lanaprof hub log, on the hub's own machine")
    found = hub.ledger.events(before=before, limit=limit)
    lines = [Line(**{name: getattr(each, name) for name in Line.model_fields}) for each in found]
    return Log(items=lines, next=found[-1].id if len(found) == limit else None)
