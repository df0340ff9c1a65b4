"""A hub as one more database to send to and fetch from: what `lanaprof.lut.transfer` needs of a store.

Only ids go over until it is known what is lacking, then records in small requests. Each can be sent again without harm,
since an id is the digest of a record's content; so a lost connection is simply tried again, and a push or pull that was
stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput, LanaprofError, StoreError
from lanaprof.lut import (
    AddReport,
    Record,
    RecordFilter,
    Refusal,
    RefusedRow,
    Source,
    record_from_json,
    utc_now,
)
from lanaprof.lut.filerow import Manifest
from lanaprof.lut.models import HEAD
from lanaprof.version import VERSION

if TYPE_CHECKING:
    import httpx

    from lanaprof.hub.remotes import Remote

__all__ = ["HubAway", "RemoteStore", "open_remote"]

_API = "/api/v1"
_IDS = 5_000  # a request; the hub takes no more
_RECORDS = 500
_PART_BYTES = 16 * 2**20  # of plain text in one bundle; the hub takes 64 MiB
_ANSWER_BYTES = 512 * 2**20  # of one answer, unpacked: no hub fills our memory
_WINDOW_BYTES = 2**27  # of zstd's memory
_CONNECT_S, _ANSWER_S = 10.0, 300.0
_PACKED = {"Content-Type": "application/zstd"}
_AGAIN_S = 60.0  # how long a request is tried again
_PATIENT = 2  # attempts before it is told that a hub is waited for
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts; the last one repeats


class HubAway(StoreError):
    """No hub answers at the address."""


def open_remote(
    remote: Remote,
    part: Source | None = None,
    *,
    again_s: float = _AGAIN_S,
    tell: Callable[[str], None] = lambda _text: None,
) -> RemoteStore:
    """Return a hub to send to or fetch from; use it in a ``with`` statement. Asks it who we are.

    Args:
        remote: its address and our token.
        part: what to fetch of it; its ``database`` does not matter. Everything by default.
        again_s: how long a request is tried again when the connection is lost or the hub is busy.
        tell: told when that takes longer than a moment.

    Raises:
        HubAway: it cannot be reached; the hint says what to do.
        StoreError: it does not take the token, or is no hub.
    """
    store = RemoteStore(remote, part or Source(database=""), again_s=again_s, tell=tell)
    try:
        store.ask_who()
    except BaseException:
        store.close()
        raise
    return store


class RemoteStore:
    """A hub. `transfer` sends to it and fetches from it as if it were a database.

    Attributes:
        damaged: records that came and were not what their id says; they were left out.
        team: whose records our token submits; empty: it reads only, or is an admin's.
        scope: read, write or admin.
    """

    def __init__(self, remote: Remote, part: Source, *, again_s: float, tell: Callable[[str], None]) -> None:
        import httpx  # an extra

        self.remote = remote
        self.damaged: list[RefusedRow] = []
        self.scope = ""
        self.team = ""
        names = ("device", "environment", "team", "since", "protocol")
        self._part = [(name, getattr(part, name)) for name in names if getattr(part, name)]
        self._again_s, self._tell = again_s, tell
        self._heard = False  # an answer, of whatever kind
        self._http = httpx.Client(
            base_url=remote.url,
            headers={"Authorization": f"Bearer {remote.token}", "Accept-Encoding": "zstd"},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            follow_redirects=False,  # the token goes where the user said, and nowhere else
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def name(self) -> str:
        """The hub's name and address."""
        return f"{self.remote.name} ({self.remote.url})"

    def ask_who(self) -> None:
        """Learn what our token may do."""
        document = self._json("GET", "/whoami")
        self.scope, self.team = str(document.get("scope", "")), str(document.get("team", ""))

    def teams(self) -> list[str]:
        """Return who measured anything there, sorted."""
        try:
            items = self._json("GET", "/environments")["items"]
            return sorted(
                {str(team) for each in items for held in each["holdings"] for team in held["teams"]}
            )
        except (KeyError, TypeError):
            raise self._strange("environments") from None

    # What a giver answers

    def counts(self, records: RecordFilter | None = None) -> dict[str, int]:
        """Return how many records of each kind there are in the part we fetch."""
        _demand_no_filter(records)
        found = self._json("GET", "/counts", params=self._part).get("counts")
        if not isinstance(found, dict) or not all(isinstance(each, int) for each in found.values()):
            raise self._strange("counts")
        return found

    def ids(
        self, kind: str, records: RecordFilter | None = None, *, after: str = "", limit: int
    ) -> list[str]:
        """Return the first ids of one kind of record behind an id, sorted, of the part we fetch."""
        _demand_no_filter(records)
        params = [*self._part, ("kind", kind), ("after", after), ("limit", str(min(limit, _IDS)))]
        found = _texts(self._json("GET", "/ids", params=params).get("ids"))
        if found is None or any(each <= after for each in found) or found != sorted(set(found)):
            raise self._strange("ids")  # a hub that repeats itself would keep us for ever
        return found

    def records_of(self, kind: str, ids: Iterable[str]) -> list[Record]:
        """Return records of one kind by id; those that are damaged are put aside."""
        wanted, found = list(ids), []
        for start in range(0, len(wanted), _RECORDS):
            part = wanted[start : start + _RECORDS]
            body = self._ask("POST", "/records", json={"kind": kind, "ids": part})
            for line in filter(None, body.split(b"\n")):
                record = self._record(line, kind, set(part))
                if record is not None:
                    found.append(record)
        return found

    def _record(self, line: bytes, kind: str, asked: set[str]) -> Record | None:
        key = ""
        try:
            value = json.loads(line)
            key = str(value.get("id", "")) if isinstance(value, dict) else ""
            record = record_from_json(value)
            if record.record == kind and record.id in asked:
                return record
            reason = "it was not asked for"
        except (ValueError, RecursionError, BadInput) as error:
            reason = error.message if isinstance(error, BadInput) else f"not JSON ({error})"
        self.damaged.append(RefusedRow(file=self.name, row=0, id=key, reason=reason))
        return None

    # What a taker answers

    def lacking(self, kind: str, ids: Iterable[str]) -> list[str]:
        """Return which ids of one kind of record are not stored there."""
        wanted, found = list(ids), []
        for start in range(0, len(wanted), _IDS):
            part = wanted[start : start + _IDS]
            answer = self._json("POST", "/lacking", json={"kind": kind, "ids": part})
            lacking = _texts(answer.get("lacking"))
            if lacking is None or not set(lacking) <= set(part):
                raise self._strange("lacking")
            found += lacking
        return found

    def add(self, records: Iterable[Record]) -> AddReport:
        """Submit records, and return what became of them."""
        total = AddReport()
        for part in _parts(records):
            document = self._json("POST", "/bundle", content=part, headers=_PACKED)
            try:
                refusals = tuple(
                    Refusal(str(each["id"]), str(each["reason"])) for each in document["refusals"]
                )
                total += AddReport(
                    added=int(document["added"]), known=int(document["known"]), refused=refusals
                )
            except (KeyError, TypeError, ValueError):
                raise self._strange("bundle") from None
        return total

    # Inside

    def _json(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        try:
            document = json.loads(self._ask(method, path, **given))
        except (ValueError, RecursionError):
            raise self._strange(path) from None
        if not isinstance(document, dict):
            raise self._strange(path)
        return document

    def _ask(self, method: str, path: str, **given: Any) -> bytes:
        """Return the body of an answer, after as many attempts as a minute allows."""
        import httpx  # an extra

        until_s, attempt = time.monotonic() + self._again_s, 0
        while True:
            wait_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
            try:
                with self._http.stream(method, _API + path, **given) as answer:
                    self._heard = True
                    body = self._read(answer)
                    if answer.status_code == 200:
                        return body
                    problem = self._problem(answer.status_code, body)
                    if answer.status_code not in (429, 502, 503, 504):
                        raise problem
                    stated = answer.headers.get("retry-after", "")
                    wait_s = max(wait_s, float(stated) if stated.isascii() and stated.isdigit() else 0.0)
            except httpx.HTTPError as error:
                problem = self._unreachable(error)
                if not self._heard:  # nothing was lost: a wrong address is told at once
                    raise problem from error
            except httpx.InvalidURL as error:
                raise BadInput(f"{self.remote.url!r} is no URL: {error}") from None
            attempt += 1
            if attempt == _PATIENT:
                self._tell(f"{problem.message}; trying again for {self._again_s:.0f} s")
            if time.monotonic() + wait_s > until_s:
                raise problem
            time.sleep(wait_s)

    def _read(self, answer: httpx.Response) -> bytes:
        """Return an answer's body, unpacked here and not by the library, which knows no limit."""
        import zstandard  # a compiled library that only files and hubs need

        parts, total = [], 0
        for chunk in answer.iter_raw():
            total += len(chunk)
            if total > _ANSWER_BYTES:
                raise self._strange("an answer without end")
            parts.append(chunk)
        body = b"".join(parts)
        packing = answer.headers.get("content-encoding", "identity")
        if packing == "zstd":
            try:
                unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
                body = unpacker.stream_reader(body, read_across_frames=True).read(_ANSWER_BYTES + 1)
            except zstandard.ZstdError:
                raise self._strange("damaged compression") from None
        elif packing != "identity":
            raise self._strange(f"packed as {packing}")
        if len(body) > _ANSWER_BYTES:
            raise self._strange("an answer without end")
        return body

    def _unreachable(self, error: Exception) -> HubAway:
        cause, hint = str(error) or type(error).__name__, "check the URL, and that the hub runs"
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            hint = "its certificate is none this machine knows: SSL_CERT_FILE names your own authority's"
        return HubAway(f"the hub {self.name} cannot be reached: {cause}", hint=hint)

    def _problem(self, status: int, body: bytes) -> StoreError:
        try:
            error = json.loads(body)["error"]
            message, hint = str(error["message"])[:500], str(error["hint"])[:500]
        except (ValueError, RecursionError, KeyError, TypeError):
            return self._strange(f"status {status}")
        if status == 401:
            hint = f"lanaprof remote add {self.remote.name} {self.remote.url} --token-file FILE"
        return StoreError(f"the hub {self.name}: {message}", hint=hint)

    def _strange(self, what: str) -> StoreError:
        return StoreError(
            f"{self.name} does not answer as a hub does ({what})", hint="check the URL: lanaprof remote ls"
        )


def _demand_no_filter(records: RecordFilter | None) -> None:
    if records:  # the hub finds out itself which environments a device means
        raise LanaprofError("what to fetch of a hub is said when it is opened")


def _texts(value: Any) -> list[str] | None:
    sound = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return value if sound else None


def _parts(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield records as compressed bundles, each not too large."""
    import zstandard  # a compiled library that only files and hubs need

    manifest = Manifest(schema=HEAD, tool_version=VERSION, time=utc_now())
    head = f"{canonical_json(manifest.to_json())}\n".encode()
    lines, size = [head], 0
    pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor(level=3).compress
    for record in records:
        line = f"{canonical_json(record.to_json())}\n".encode()
        if len(lines) > 1 and size + len(line) > _PART_BYTES:
            yield pack(b"".join(lines))
            lines, size = [head], 0
        lines.append(line)
        size += len(line)
    if len(lines) > 1:
        yield pack(b"".join(lines))
