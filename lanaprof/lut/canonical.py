"""Measurements read from their canonical text, which an export's lines are: a third of the work of reading any JSON.

A line is taken only where nothing but a record's own canonical text can look like it. Then the digest of the line
without its id is the digest of the record, and nothing need be written back as text to verify the id. What is written
in another way, or is wrong, is left to `record_from_json`, which takes the same records and says what is wrong with
others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from lanaprof.digest import DIGEST_LENGTH
from lanaprof.errors import BadInput
from lanaprof.lut.fields import field_codecs
from lanaprof.lut.records import Measurement

__all__ = ["measurement_from_line"]

# No two decimals of at most 15 digits are the same double, so such a one is the shortest text of its double, which is
# what Python writes; these are the places of the point and the exponents that it writes them with.
_SHORT = (
    r"(?:[1-9](?:\.[0-9]{0,13}[1-9])?e-(?:0[5-9]|[1-9][0-9])"
    r"|0\.0{0,3}[1-9](?:[0-9]{0,13}[1-9])?"
    r"|[1-9][0-9]{0,6}\.(?:0|[0-9]{0,7}[1-9])"
    r"|0\.0)"
)
_FLOAT = r"(?:[0-9]++\.[0-9]++(?:e[-+][0-9]++)?|[0-9]++e[-+][0-9]++)"  # without a sign: -0.0 is stored as 0.0
_INTEGER = r"(?:0|[1-9][0-9]{0,17})"  # of 18 digits: below SQL's largest
_SHORT_LIST = re.compile(f"{_SHORT}(?:,{_SHORT})*+")
_FLOAT_LIST = re.compile(f"{_FLOAT}(?:,{_FLOAT})*+")
_INTEGER_LIST = re.compile(f"{_INTEGER}(?:,{_INTEGER})*+")
_MOST_KEPT = (
    2_000  # characters of a list of integers that is kept, to be met again: rounds are mostly the same
)


class _Layout(NamedTuple):
    """What a line looks like, and how its parts become the fields' values in their declared order."""

    line: re.Pattern[str]
    order: Callable[[tuple[str, ...]], tuple[str, ...]]
    reads: tuple[tuple[int, Callable[[str], Any]], ...]


def measurement_from_line(line: bytes) -> Measurement | None:
    """Return the measurement of which a line is the canonical text with its id; None for every other line."""
    layout = _layout()
    try:
        match = layout.line.fullmatch(line.decode())
        if match is None:
            return None
        start = line.index(b'"id":"')  # no text before it holds a quotation mark
        end = start + len(b'"id":"",') + DIGEST_LENGTH
        content = hashlib.sha256(line[:start] + line[end:].rstrip(b"\n")).hexdigest()[:DIGEST_LENGTH]
        if content != match["id"]:
            return None
        values: list[Any] = list(layout.order(match.groups()))
        for place, read in layout.reads:
            values[place] = read(values[place])
        return Measurement.checked(content, values)
    except (ValueError, BadInput):  # no text, not canonical, or what does not hold together
        return None


@cache
def _layout() -> _Layout:
    declared = {
        name: str(Measurement.__dataclass_fields__[name].type) for name, _ in field_codecs(Measurement)
    }
    parts = {
        "record": f'"{Measurement.record}"',
        "id": f'"(?P<id>[0-9a-f]{{{DIGEST_LENGTH}}})"',
        **{name: _TYPES[kind][0] for name, kind in declared.items()},
    }
    members = [f'"{name}":{parts[name]}' for name in sorted(parts)]
    groups = [name for name in sorted(parts) if name != "record"]
    reads = [(place, _TYPES[kind][1]) for place, kind in enumerate(declared.values())]
    return _Layout(
        line=re.compile(rf"\{{{','.join(members)}\}}\n?"),
        order=itemgetter(*(groups.index(name) for name in declared)),
        reads=tuple((place, read) for place, read in reads if read is not None),
    )


def _real_or_none(text: str) -> float | None:
    return None if text == "null" else _reals(text)[0]


def _reals(text: str) -> tuple[float, ...]:
    """Return the numbers of a list; only in the one way each of them is written."""
    if not text:
        return ()
    if _SHORT_LIST.fullmatch(text):
        return tuple(map(float, text.split(",")))
    if not _FLOAT_LIST.fullmatch(text):
        raise ValueError("not a list of floats")
    values = tuple(map(float, text.split(",")))
    if ",".join(map(repr, values)) != text:
        raise ValueError("not their shortest texts")
    return values


def _counts(text: str) -> tuple[int, ...]:
    return _kept_counts(text) if len(text) <= _MOST_KEPT else _counts_of(text)


def _counts_of(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    if not _INTEGER_LIST.fullmatch(text):
        raise ValueError("not a list of integers")
    return tuple(map(int, text.split(",")))


_kept_counts = lru_cache(maxsize=256)(_counts_of)

# By the type that a field declares: what its value looks like, and how it is read where it is not the text itself.
_TYPES: dict[str, tuple[str, Callable[[str], Any] | None]] = {
    "str": (r'"([^"\\\x00-\x1f]*+)"', None),  # where nothing is escaped
    "int": (f"({_INTEGER})", int),
    "float | None": (f"(null|{_FLOAT})", _real_or_none),
    "tuple[int, ...]": (r"\[([,0-9]*+)\]", _counts),
    "tuple[float, ...]": (r"\[([-+.,0-9e]*+)\]", _reals),
}
