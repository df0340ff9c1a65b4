"""Lines read by their canonical text: the same records as by reading any JSON, and no line that would be refused."""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput
from lanaprof.lut import canonical
from lanaprof.lut.canonical import measurement_from_line
from lanaprof.lut.records import Measurement, record_from_json


def line_of(record: Measurement) -> bytes:
    return f"{canonical_json(record.to_json())}\n".encode()


def forged(text: str) -> bytes:
    """Return a line with the id that is the digest of the rest of its text, whatever that is."""
    bare = re.sub(r'"id":"[^"]*",', "", text.strip("\n"), count=1)
    found = hashlib.sha256(bare.encode()).hexdigest()[:32]
    return (re.sub(r'"id":"[^"]*"', f'"id":"{found}"', text.strip("\n"), count=1) + "\n").encode()


def test_an_exported_measurement_is_read(make: Any) -> None:
    """The line gives the record that it was written from, checked and whole."""
    record = make.measurement()

    found = measurement_from_line(line_of(record))

    assert found == record
    assert found is not None
    assert (found.id, found.is_whole(), found.to_json()) == (record.id, True, record.to_json())


@pytest.mark.parametrize(
    "change",
    [
        {
            "samples": (),
            "rounds": (),
            "latency_s": None,
            "ci_low_s": None,
            "ci_high_s": None,
            "status": "failed",
        },
        {"samples": (1 / 3, 2 / 3, 5e-324), "rounds": (0, 1, 65535)},
        {"samples": (1e22, 123456789.0, 0.0), "rounds": (0, 0, 0)},
        {"team": "büro ☃ \x7f", "message": "a/b {c} [d]"},
        {"load": 0.0, "rejected": 2**40},
    ],
)
def test_unusual_values_are_read(make: Any, change: dict[str, Any]) -> None:
    """No samples, all digits of a double, denormals, large numbers, other alphabets: all of it is canonical text."""
    record = make.measurement(**change)

    assert measurement_from_line(line_of(record)) == record


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "two\nlines", "\x01"])
def test_escaped_text_is_left_to_the_reader_of_any_json(make: Any, text: str) -> None:
    """What has to be escaped has several spellings: such lines are read in full."""
    assert measurement_from_line(line_of(make.measurement(message=text))) is None


_LATENCY = '"latency_s":0.001,'
CHANGES = {
    "a space": (_LATENCY, '"latency_s": 0.001,'),
    "another spelling": (_LATENCY, '"latency_s":1e-3,'),
    "a zero more": (_LATENCY, '"latency_s":0.0010,'),
    "digits that round away": (_LATENCY, '"latency_s":0.00100000000000000001,'),
    "an integer": (_LATENCY, '"latency_s":1,'),
    "a capital": (_LATENCY, '"latency_s":1E-3,'),
    "infinite": ('"ci_high_s":0.0011', '"ci_high_s":1e999'),
    "no JSON": ('"ci_high_s":0.0011', '"ci_high_s":inf'),
    "not a number": (_LATENCY, '"latency_s":nan,'),
    "a key twice": (_LATENCY, _LATENCY + _LATENCY),
    "another order": (_LATENCY + '"load":0.5,', '"load":0.5,' + _LATENCY),
    "a key more": (_LATENCY, _LATENCY + '"lies":1,'),
    "a key less": (_LATENCY, ""),
    "an escape": ('"message":""', '"message":"\\u0041"'),
    "a truth": ('"rejected":0', '"rejected":false'),
    "a leading zero": ('"rejected":0', '"rejected":00'),
    "a sign": ('"rejected":0', '"rejected":-0'),
    "beyond SQL": ('"rejected":0', '"rejected":9223372036854775808'),
    "arabic digits": ('"rejected":0', '"rejected":٣'),
    "a sample without sign": ('"samples":[0.001,', '"samples":[-0.0,'),
    "a sample respelled": ('"samples":[0.001,', '"samples":[1e-3,'),
    "a sample missing": ('"samples":[0.001,', '"samples":[,'),
    "a sample less": ('"samples":[0.001,', '"samples":['),
    "two points": ('"samples":[0.001,', '"samples":[0.0.1,'),
    "a round too large": ('"rounds":[0,', '"rounds":[65536,'),
    "a round with a zero": ('"rounds":[0,', '"rounds":[00,'),
    "unknown status": ('"status":"ok"', '"status":"fine"'),
    "no date": ('"time":"', '"time":"yesterday '),
    "a name too long": ('"team":"', '"team":"' + "x" * 100),
    "a carriage return": ("}", "}\r"),
    "behind the end": ("}", "} "),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_forged_line_is_not_taken(make: Any, kind: str) -> None:
    """Though its id is the digest of its text, a line that is not a record's canonical text is not taken."""
    record = make.measurement(
        latency_s=0.001,
        ci_low_s=0.0009,
        ci_high_s=0.0011,
        samples=(0.001, 0.0011, 0.0012),
        load=0.5,
        rejected=0,
    )
    text = line_of(record).decode()
    old, new = CHANGES[kind]
    assert old in text

    assert measurement_from_line(forged(text)) == record
    assert measurement_from_line(forged(text.replace(old, new, 1))) is None


def test_what_is_no_text_is_not_taken(make: Any) -> None:
    """Bytes that are not UTF-8 are left to the reader that says so."""
    assert measurement_from_line(line_of(make.measurement(team="x")).replace(b'"x"', b'"\xff"')) is None


def test_a_wrong_id_is_not_taken(make: Any) -> None:
    """The id is the digest of the content, here too."""
    record = make.measurement()
    assert measurement_from_line(line_of(record).replace(record.id.encode(), b"0" * 32)) is None


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_taken_is_what_reading_any_json_gives(make: Any, seed: int) -> None:
    """Of lines with characters changed, left out or doubled, and with the id to match, none is taken wrongly."""
    rng = random.Random(seed)
    text = line_of(make.measurement(samples=(0.001, 1 / 3, 9.1e-05))).decode()
    taken = 0
    for _ in range(1_500):
        at = rng.randrange(len(text))
        line = forged(text[:at] + rng.choice(["", text[at] * 2, *'0159.e-+,"[]{} \\nulE_']) + text[at + 1 :])
        found = measurement_from_line(line)
        if found is None:
            continue
        taken += 1
        assert found == record_from_json(json.loads(line))
        assert line == line_of(found)
    assert taken > 100


@settings(max_examples=150, deadline=None)
@given(st.from_regex(canonical._SHORT, fullmatch=True))
def test_short_decimals_are_written_as_python_writes_them(text: str) -> None:
    """What the pattern lets pass without a look at the number is the number's one text."""
    assert repr(float(text)) == text


def test_decimals_of_fifteen_digits_are_written_as_python_writes_them() -> None:
    """The same for the longest of them, at every size the pattern lets pass."""
    rng = random.Random(5)
    for _ in range(20_000):
        digits = str(rng.randrange(10**14, 10**15 - 1) // 10 * 10 + rng.randrange(1, 10))
        whole = rng.randrange(1, 8)
        for text in (
            f"{digits[0]}.{digits[1:]}e-{rng.randrange(5, 100):02}",
            f"0.{'0' * rng.randrange(4)}{digits}",
            f"{digits[:whole]}.{digits[7:]}",
        ):
            assert canonical._SHORT_LIST.fullmatch(text)
            assert repr(float(text)) == text


def test_a_long_list_of_rounds_is_not_kept(make: Any) -> None:
    """Only short lists wait to be met again: a file must not fill the memory."""
    rounds = tuple(range(3_000))
    record = make.measurement(samples=(0.001,) * 3_000, rounds=rounds)
    before = canonical._kept_counts.cache_info().currsize

    assert measurement_from_line(line_of(record)) == record
    assert canonical._kept_counts.cache_info().currsize == before


def test_what_does_not_hold_together_says_why_elsewhere(make: Any) -> None:
    """A record with a low end above its high one is not taken; the full reading has the reason."""
    text = line_of(make.measurement(latency_s=0.001, ci_low_s=0.0009, ci_high_s=0.0011)).decode()
    line = forged(text.replace('"ci_low_s":0.0009', '"ci_low_s":0.0019'))

    assert measurement_from_line(line) is None
    with pytest.raises(BadInput, match=r"not 0 <= ci_low_s 0\.0019"):
        record_from_json(json.loads(line))
