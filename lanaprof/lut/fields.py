"""What a record is made of: how each type of field is checked and written, and the class all records share.

The declared type of a field is its format: ``_CODECS`` below has one line per type. Nothing else in the
database knows how a field looks in JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, NoReturn, Self, cast

from lanaprof.digest import canonical_json, digest
from lanaprof.errors import BadInput
from lanaprof.lut.keys import is_digest, shown

__all__ = ["LARGEST_INTEGER", "LARGEST_ROUND", "Codec", "Record", "field_codecs", "is_time"]

LARGEST_INTEGER = 2**63 - 1  # SQL's largest
LARGEST_ROUND = 2**16 - 1  # rounds are stored in 16 bits
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class _Wrong(Exception):
    """A field's value is wrong; the text completes a sentence that starts with the field's name."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"is {shown(value)}, expected text")
    if "\0" in value:
        raise _Wrong("holds a NUL character, which no database keeps")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Wrong("holds half a surrogate pair") from None
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"is {shown(value)}, expected true or false")
    return value


def _count(value: Any) -> int:
    if type(value) is int and 0 <= value <= LARGEST_INTEGER:
        return value  # nearly always: the abstract classes below are slow to ask
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise _Wrong(f"is {shown(value)}, expected an integer")
    number = int(value)
    if not 0 <= number <= LARGEST_INTEGER:
        raise _Wrong(f"is {shown(number)}, expected an integer from 0 to 2^63 - 1")
    return number


def _real(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value + 0.0  # see below
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise _Wrong(f"is {shown(value)}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong(f"is {number}, expected a finite number")
    return number + 0.0  # -0.0 becomes 0.0: SQLite keeps no sign of zero, and the id must not depend on it


def _real_or_none(value: Any) -> float | None:
    return None if value is None else _real(value)


def _pairs(check: Callable[[Any], Any]) -> Callable[[Any], tuple[tuple[str, Any], ...]]:
    """Return a check for name → value pairs: an object in JSON, pairs sorted by name in memory."""

    def checked(value: Any) -> tuple[tuple[str, Any], ...]:
        items = list(value.items() if isinstance(value, Mapping) else _listed(value))
        if any(not isinstance(item, (list, tuple)) or len(item) != 2 for item in items):
            raise _Wrong("does not consist of names with their values")
        pairs = sorted((_text(name), check(item)) for name, item in items)
        twice = {name for (name, _), (other, _) in pairwise(pairs) if name == other}
        if twice:
            raise _Wrong(f"names {sorted(twice)[0]!r} twice")
        return tuple(pairs)

    return checked


def _tuple_of(check: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def checked(value: Any) -> tuple[Any, ...]:
        return tuple(check(item) for item in _listed(value))

    return checked


def _reals(value: Any) -> tuple[float, ...]:
    """Return what checking each number gives; samples come by the dozen, so all are looked at at once."""
    numbers_given = tuple(_listed(value))
    # A NaN or an infinity shows in the sum, and a zero may carry a sign; then each is looked at.
    if (
        set(map(type, numbers_given)) == {float}
        and math.isfinite(sum(numbers_given))
        and 0.0 not in numbers_given
    ):
        return numbers_given
    return tuple(_real(item) for item in numbers_given)


def _counts(value: Any) -> tuple[int, ...]:
    """Return what checking each integer gives, all at once where they are plain ones."""
    given = tuple(_listed(value))
    if set(map(type, given)) == {int} and min(given) >= 0 and max(given) <= LARGEST_INTEGER:
        return given
    return tuple(_count(item) for item in given)


def _listed(value: Any) -> Iterable[Any]:
    if not isinstance(value, (list, tuple)):
        raise _Wrong(f"is {shown(value)}, expected a list")
    return value


def _json_object(value: Any) -> dict[str, Any]:
    """Return an independent copy in plain JSON types: what is stored and what comes back are equal."""
    if not isinstance(value, Mapping):
        raise _Wrong(f"is {shown(value)}, expected an object")
    try:
        text = canonical_json(value)
        text.encode()
        copy: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise _Wrong("is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise _Wrong(f"has no JSON text ({error})") from None
    return copy


class Codec(NamedTuple):
    """How a field of one type is checked (an error with a reason) and written to JSON."""

    check: Callable[[Any], Any]
    write: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


_CODECS: Mapping[str, Codec] = {
    "str": Codec(_text, _same),
    "bool": Codec(_truth, _same),
    "int": Codec(_count, _same),
    "float": Codec(_real, _same),
    "float | None": Codec(_real_or_none, _same),
    "tuple[str, ...]": Codec(_tuple_of(_text), list),
    "tuple[int, ...]": Codec(_counts, list),
    "tuple[float, ...]": Codec(_reals, list),
    "tuple[tuple[float, ...], ...]": Codec(_tuple_of(_tuple_of(_real)), lambda rows: [list(r) for r in rows]),
    "tuple[tuple[str, str], ...]": Codec(_pairs(_text), dict),
    "tuple[tuple[str, float], ...]": Codec(_pairs(_real), dict),
    "Mapping[str, Any]": Codec(_json_object, _same),
}


def field_codecs(cls: type[Record]) -> tuple[tuple[str, Codec], ...]:
    """Return the record's own fields in their declared order, each with its codec."""
    return _field_codecs(cast(Hashable, cls))


@cache
def _field_codecs(cls: Any) -> tuple[tuple[str, Codec], ...]:
    return tuple((field.name, _CODECS[str(field.type)]) for field in dataclasses.fields(cls) if field.init)


class _Slots(NamedTuple):
    """How a kind of record is read and filled, looked up once: records come by the million."""

    restore: tuple[Callable[[Any, Any], None], ...]  # put a value into _restored, _id and each field
    fields: tuple[tuple[str, Callable[[Any], Any], Callable[[Any, Any], None]], ...]  # name, check, put
    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    writes: tuple[
        tuple[str, Callable[[Any], Any]], ...
    ]  # of the fields whose JSON text is not that of their value


@cache
def _slots_of(cls: Any) -> _Slots:
    codecs = _field_codecs(cls)
    names = tuple(name for name, _ in codecs)
    puts = {name: getattr(cls, name).__set__ for name in ("_restored", "_id", *names)}
    read = attrgetter(*names)
    return _Slots(
        restore=tuple(puts.values()),
        fields=tuple((name, codec.check, puts[name]) for name, codec in codecs),
        names=names,
        values=read if len(names) > 1 else lambda record: (read(record),),
        writes=tuple((name, codec.write) for name, codec in codecs if codec.write not in (_same, list)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the database.

    Lists and mappings given to a record become tuples, sorted where they are name → value pairs.

    Raises:
        BadInput: a field has the wrong type, or the fields do not hold together.
    """

    record: ClassVar[str] = ""
    _id: str = dataclasses.field(default="", init=False, repr=False, compare=False)
    _restored: bool = dataclasses.field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        slots = _slots_of(cast(Hashable, type(self)))
        for (name, check, put), value in zip(slots.fields, slots.values(self), strict=True):
            try:
                put(self, check(value))
            except _Wrong as error:
                raise BadInput(f"{self.record} record: {name} {error}") from None
        self._check()

    def _check(self) -> None:
        """Check what holds between fields."""

    def _refuse(self, reason: str) -> NoReturn:
        raise BadInput(f"{self.record} record: {reason}")

    def _demand(self, holds: bool, reason: str) -> None:
        if not holds:
            self._refuse(reason)

    def _demand_digests(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not is_digest(value):
                self._refuse(f"{name} is {value!r}, expected 32 hexadecimal digits")

    def _demand_provenance(self) -> None:
        team, time = getattr(self, "team"), getattr(self, "time")  # noqa: B009  (fields of some subclasses)
        self._demand(bool(team), "team is empty")
        if not is_time(time):
            self._refuse(f"time is {time!r}, expected UTC like 2026-01-31T12:00:00Z")

    @property
    def id(self) -> str:
        """The record's name everywhere: 32 hexadecimal digits."""
        if not self._id:
            object.__setattr__(self, "_id", self.content_id())
        return self._id

    def content_id(self) -> str:
        """Return the id computed afresh from the fields."""
        slots = _slots_of(cast(Hashable, type(self)))
        content = dict(zip(slots.names, slots.values(self), strict=True))
        for name, write in slots.writes:
            content[name] = write(content[name])
        content["record"] = self.record
        return digest(content)  # a tuple's text is that of a list

    def is_whole(self) -> bool:
        """Return whether the fields are sound and give the id. What a database gave was trusted, and need not be."""
        if not self._restored:
            return True  # checked when it was made, frozen since, and its id is the content's
        try:
            checked = type(self)(**{name: getattr(self, name) for name, _ in field_codecs(type(self))})
            return checked.content_id() == self._id
        except (TypeError, ValueError, AttributeError, BadInput):
            return False

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with ``record`` and ``id``."""
        return {"record": self.record, "id": self.id, **self._fields_to_json()}

    def _fields_to_json(self) -> dict[str, Any]:
        return {name: codec.write(getattr(self, name)) for name, codec in field_codecs(type(self))}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the record in JSON values, after checking every field and the id.

        Raises:
            BadInput: a field is missing, unknown or wrong, or the id is not the digest of the rest.
        """
        names = [name for name, _ in field_codecs(cls)]
        if value.get("record") != cls.record:
            raise BadInput(f"record is {value.get('record')!r}, expected {cls.record!r}")
        lacking = [name for name in ("id", *names) if name not in value]
        if lacking:
            raise BadInput(f"{cls.record} record: {', '.join(lacking)} is missing")
        unknown = sorted(set(value) - {"record", "id", *names})
        if unknown:
            raise BadInput(f"{cls.record} record: unknown field {', '.join(map(repr, unknown))}")
        record = cls(**{name: value[name] for name in names})
        if record.id != value["id"]:
            raise BadInput(
                f"{cls.record} record: id is {shown(value['id'])}, but the content's digest is {record.id}: "
                "the record was changed or damaged"
            )
        return record

    @classmethod
    def restore(cls, record_id: str, values: Iterable[Any]) -> Self:
        """Return a record from values a store has checked before, in the order of the fields."""
        return cls._filled((True, record_id, *values))

    @classmethod
    def checked(cls, record_id: str, values: Iterable[Any]) -> Self:
        """Return a record from its id and values, each as its field's check would give it, in the order of the fields.

        Raises:
            BadInput: the fields do not hold together.
        """
        record = cls._filled((False, record_id, *values))
        record._check()
        return record

    @classmethod
    def _filled(cls, values: tuple[Any, ...]) -> Self:
        record = object.__new__(cls)
        for put, value in zip(_slots_of(cast(Hashable, cls)).restore, values, strict=True):
            put(record, value)
        return record


def is_time(text: str) -> bool:
    """Return whether a text is a time as records write it: UTC, ISO 8601, with Z."""
    if _TIME.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
