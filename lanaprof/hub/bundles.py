"""A bundle that came in: unpacked within limits, then judged row by row and added.

Whoever sends a bundle is known, and still its bytes are not trusted: a megabyte may unpack to gigabytes, a line may
never end, a row may be another team's. What a row may say is decided here; whether it is sound, where every import
decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from lanaprof.errors import BadInput
from lanaprof.hub.ledger import Token
from lanaprof.hub.limits import Limits
from lanaprof.hub.problems import RequestProblem
from lanaprof.hub.rehearsing import rehearse
from lanaprof.lut import ImportReport, Record, Store, import_files, jsonl, parquet

__all__ = ["judge_for", "submit", "unpack"]

_CHUNK_BYTES = 2**18
_WINDOW_BYTES = 2**27  # of zstd's memory; what lanaprof writes needs 2**23
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def submit(store: Store, bundle: Path, token: Token, *, limits: Limits, now_s: float) -> ImportReport:
    """Add what a token may add of a bundle, and return what became of each row.

    Args:
        store: the shared database.
        bundle: JSON lines with their manifest, plain or zstd (then a file ``plain`` is made beside it), or Parquet.
        token: whose submission it is.
        limits: of size and time.
        now_s: seconds since 1970.

    Raises:
        RequestProblem: too large, or no bundle at all; then nothing is added.
    """
    sound = _looked_at(bundle, limits)
    try:
        return import_files(store, [sound], judge=judge_for(store, token, limits=limits, now_s=now_s))
    except BadInput as error:
        raise _unreadable(error, sound) from error


def _looked_at(bundle: Path, limits: Limits) -> Path:
    """Return a file in a form that may be imported: a database would be as well, but who knows what is in it."""
    with bundle.open("rb") as file:
        start = file.read(len(parquet.MAGIC))
    if start == parquet.MAGIC:
        rehearse(bundle, limits)
        return bundle
    plain = bundle.with_name("plain")
    unpack(bundle, plain, limits)
    try:
        jsonl.check(plain)
    except BadInput as error:
        raise _unreadable(error, plain) from error
    return plain


def _unreadable(error: BadInput, path: Path) -> RequestProblem:
    hint = "send what `lanaprof lut export` writes: .jsonl, .jsonl.zst or .parquet"
    return RequestProblem(400, error.message.replace(str(path), "the body"), hint=hint)


def unpack(bundle: Path, plain: Path, limits: Limits) -> None:
    """Write a bundle's plain text to a file, in bounded memory.

    Raises:
        RequestProblem: damaged compression, or more text or a longer line than allowed.
    """
    with bundle.open("rb") as raw, plain.open("wb") as out:
        start = raw.read(len(_ZSTD_MAGIC))
        raw.seek(0)
        if start != _ZSTD_MAGIC:
            _copy(raw.read, out, limits)
            return
        import zstandard  # a compiled library that only files need

        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        try:
            with decompressor.stream_reader(raw, read_across_frames=True, closefd=False) as stream:
                _copy(stream.read, out, limits)
        except zstandard.ZstdError as error:
            raise RequestProblem(
                400, f"the compressed body is damaged: {error}", hint="send it again"
            ) from error


def _copy(read: Callable[[int], bytes], out: IO[bytes], limits: Limits) -> None:
    total, line = 0, 0
    while chunk := read(_CHUNK_BYTES):
        total += len(chunk)
        if total > limits.content_bytes:
            text = f"the bundle holds more than {limits.content_bytes} bytes unpacked"
            raise RequestProblem(413, text, hint="send it in parts, as `lanaprof push` does")
        first, *rest = chunk.split(b"\n")
        longest = max([line + len(first), *map(len, rest)])
        if longest > limits.line_bytes:
            raise RequestProblem(
                413, f"a line is longer than {limits.line_bytes} bytes", hint="one record a line"
            )
        line = len(rest[-1]) if rest else line + len(first)
        out.write(chunk)


def judge_for(
    store: Store, token: Token, *, limits: Limits, now_s: float
) -> Callable[[Sequence[Record]], Mapping[str, str]]:
    """Return what says why some records may not be added, by id.

    A team submits what bears its own name; operators, environments and recipes bear none. What is stored already is
    nobody's submission: whoever sends it once more is told that it is known. A recipe that says otherwise than the one
    that is here would change what others measure, so only an admin may add it.
    """
    latest = datetime.fromtimestamp(now_s + limits.ahead_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def judge(records: Sequence[Record]) -> Mapping[str, str]:
        reasons: dict[str, str] = {}
        kinds: dict[str, list[str]] = {}
        for record in records:
            reason = _reason(record, token, latest)
            if reason:
                reasons[record.id] = reason
                kinds.setdefault(record.record, []).append(record.id)
        if not token.is_admin:
            for record, reason in _contradictions(store, records):
                reasons[record.id] = reason
                kinds.setdefault(record.record, []).append(record.id)
        for kind, ids in kinds.items():
            for known in set(ids).difference(store.lacking(kind, ids)):
                del reasons[known]
        return reasons

    return judge


def _reason(record: Record, token: Token, latest: str) -> str:
    team: str | None = getattr(record, "team", None)
    if team is not None and not token.is_admin and team != token.team:
        return f"it is of team {team!r}, and this token submits for team {token.team!r}"
    time: str = getattr(record, "time", "")
    if time > latest:
        return f"its time {time} lies in the future"
    return ""


def _contradictions(store: Store, records: Sequence[Record]) -> list[tuple[Record, str]]:
    """Return the recipes that name another operator than the one known, here or earlier in the same bundle."""
    recipes = [record for record in records if record.record == "recipe"]
    known = store.find_recipes(getattr(record, "recipe") for record in recipes)  # noqa: B009 (a recipe's field)
    found = []
    for record in recipes:
        name, operator = getattr(record, "recipe"), getattr(record, "operator")  # noqa: B009
        if known.setdefault(name, operator) != operator:
            reason = f"recipe {name} stands for operator {known[name]} here; only an admin can say otherwise"
            found.append((record, reason))
    return found
