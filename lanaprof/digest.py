"""One canonical JSON and one digest for every key and id in lanaprof."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["DIGEST_LENGTH", "canonical_json", "digest"]

DIGEST_LENGTH = 32  # hexadecimal digits = 128 bits: no two of 10^15 records meet by chance

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no white space, no NaN, floats by shortest repr.

    Tuples are written as lists, so that a value and what was read back from its text agree.

    Raises:
        ValueError: the value holds a NaN or an infinity.
        TypeError: the value holds something JSON has no word for.

    >>> canonical_json({"b": (1, 2.5), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """Return the digest of a value's canonical JSON: 32 hexadecimal digits of SHA-256.

    >>> digest({"a": 1}) == digest({"a": 1})
    True
    >>> len(digest([]))
    32
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_LENGTH]
