"""Text with units ↔ numbers: the only place where "5ms" is read or written.

Inside lanaprof a time is a float of seconds and a size an int of bytes; MB = 10⁶ bytes, MiB = 2²⁰.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lanaprof.errors import BadInput

__all__ = [
    "RelativeBudget",
    "format_count",
    "format_duration",
    "format_percent",
    "format_size",
    "parse_count",
    "parse_duration",
    "parse_latency_budget",
    "parse_size",
]

_NUMBER = re.compile(
    r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?nan|[+-]?inf(?:inity)?)\s*([^\s\d]*)\s*$",
    re.IGNORECASE,
)
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
}
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class RelativeBudget:
    """A latency budget as a fraction of the teacher's: 0.5 means half the teacher's latency."""

    fraction: float


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if match is None:
        raise BadInput(f"{what} {text!r} is not a number with a unit", hint=f"write it like {example}")
    value, unit = float(match[1]), match[2]
    if not math.isfinite(value):
        raise BadInput(f"{what} {text!r} is not a finite number", hint=f"write it like {example}")
    if value <= 0:
        raise BadInput(f"{what} {text!r} must be greater than zero", hint=f"write it like {example}")
    return value, unit


def parse_duration(text: str, *, what: str = "duration", example: str = "5ms") -> float:
    """Return the seconds in a text such as ``5ms``, ``250us``, ``10m`` or ``1.5s``.

    Args:
        text: a number with its unit.
        what: it is, for messages.
        example: what usual ones look like, for messages.

    Raises:
        BadInput: no number, no known unit, or not greater than zero.

    >>> parse_duration("5ms")
    0.005
    """
    value, unit = _split(text, what, example)
    if unit not in _SECONDS:
        problem = "has no unit" if not unit else f"has the unknown unit {unit!r}"
        number, usual = example.rstrip("nusmh"), example.lstrip("0123456789")
        raise BadInput(
            f"{what} {text!r} {problem}; known: ns, us, ms, s, min, h",
            hint=f"write it like {number if unit else text.strip()}{usual}",
        )
    return value * _SECONDS[unit] if unit != "ms" else value / 1e3


def parse_latency_budget(text: str) -> float | RelativeBudget:
    """Return seconds for ``5ms``, or a RelativeBudget for ``50%`` (of the teacher) and ``2x`` (faster).

    >>> parse_latency_budget("2x")
    RelativeBudget(fraction=0.5)
    """
    stripped = text.strip()
    if stripped.endswith("%"):
        value, _ = _split(stripped[:-1], "budget", "50%")
        return RelativeBudget(value / 100)
    if stripped[-1:] in ("x", "X", "×"):
        value, _ = _split(stripped[:-1], "budget", "2x")
        return RelativeBudget(1 / value)
    return parse_duration(text, what="budget")


def parse_size(text: str, *, what: str = "size") -> int:
    """Return the bytes in a text such as ``20MB`` or ``16MiB``.

    >>> parse_size("1.5MB"), parse_size("1KiB")
    (1500000, 1024)
    """
    value, unit = _split(text, what, "20MB")
    if unit.lower() not in _BYTES:
        problem = "has no unit" if not unit else f"has the unknown unit {unit!r}"
        raise BadInput(
            f"{what} {text!r} {problem}; known: B, kB, MB, GB, KiB, MiB, GiB", hint="write it like 20MB"
        )
    return round(value * _BYTES[unit.lower()])


def parse_count(text: str, *, what: str = "count") -> int:
    """Return the number in a text such as ``5M`` or ``300k``.

    >>> parse_count("5M"), parse_count("1200")
    (5000000, 1200)
    """
    value, unit = _split(text, what, "5M")
    if unit.lower() not in _COUNTS:
        raise BadInput(
            f"{what} {text!r} has the unknown unit {unit!r}; known: k, M, G", hint="write it like 5M"
        )
    return round(value * _COUNTS[unit.lower()])


def format_duration(seconds: float, *, digits: int = 4) -> str:
    """Return a time for people: ``1.235 ms``; from two minutes on ``2 min 05 s``.

    >>> format_duration(0.0012345), format_duration(125), format_duration(0)
    ('1.234 ms', '2 min 05 s', '0 s')
    >>> format_duration(119.7, digits=2), format_duration(0.0999, digits=2)
    ('120 s', '100 ms')
    """
    if not math.isfinite(seconds):
        return str(seconds)
    size = abs(seconds)
    if size >= 7200:
        hours, rest = divmod(round(size), 3600)
        return f"{'-' if seconds < 0 else ''}{hours} h {rest // 60:02d} min"
    if size >= 120:
        minutes, rest = divmod(round(size), 60)
        return f"{'-' if seconds < 0 else ''}{minutes} min {rest:02d} s"
    if size == 0:
        return "0 s"
    unit, scale = next(
        (pair for pair in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)) if size >= pair[1]), ("ns", 1e-9)
    )
    value = seconds / scale
    text = f"{value:.{digits}g}"
    return f"{value:.0f} {unit}" if "e" in text else f"{text} {unit}"


def format_size(size_bytes: float) -> str:
    """Return a size for people, in powers of ten.

    >>> format_size(4_650_000)
    '4.65 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size_bytes) >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_count(count: float) -> str:
    """Return a count for people.

    >>> format_count(4_650_000), format_count(197)
    ('4.65 M', '197')
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g}"


def format_percent(fraction: float, *, digits: int = 2) -> str:
    """Return a signed fraction as percent.

    >>> format_percent(-0.0123)
    '-1.23 %'
    """
    return f"{fraction * 100:+.{digits}f} %"
