"""Samples in one column: what is packed comes back, and takes little room."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanaprof.errors import BadInput
from lanaprof.lut.rows import pack_samples, unpack_samples

_SAMPLES = st.lists(
    st.tuples(st.sampled_from([1e-3, 2e-3]) | st.floats(0, 1), st.integers(0, 65535)), max_size=80
)


@given(_SAMPLES)
def test_what_is_packed_comes_back(pairs: list[tuple[float, int]]) -> None:
    """Samples and rounds of any size and any mixture of equal and different ones."""
    samples, rounds = tuple(one for one, _ in pairs), tuple(one for _, one in pairs)

    assert unpack_samples(pack_samples(samples, rounds)) == (samples, rounds)


@pytest.mark.parametrize("count", [1, 96, 97, 20_000])
def test_lists_of_any_length_come_back(count: int) -> None:
    """Different samples are stored while they are few, and compressed beyond."""
    samples, rounds = (
        tuple(number / 7 for number in range(count)),
        tuple(number % 16 for number in range(count)),
    )

    assert unpack_samples(pack_samples(samples, rounds)) == (samples, rounds)


def test_different_samples_take_their_own_room_and_rounds_hardly_any() -> None:
    """64 different samples of 16 rounds take eight bytes each, and fifty for all that is around them."""
    samples, rounds = tuple(number / 7 for number in range(64)), tuple(number // 4 for number in range(64))

    assert 64 * 8 < len(pack_samples(samples, rounds)) < 64 * 8 + 50


@pytest.mark.parametrize(("count", "most"), [(64, 64), (285, 80)])
def test_equal_samples_are_compressed(count: int, most: int) -> None:
    """Where a clock gave the same times again and again, most of it is left out."""
    assert len(pack_samples((1e-6, 1.1e-6, 1.2e-6) * (count // 3), (0,) * (count // 3 * 3))) < most


def test_a_campaign_s_samples_are_compressed() -> None:
    """Of 285 samples to the nanosecond a tenth can be left out, though all of them differ."""
    rng = random.Random(1)
    samples = tuple(round(rng.uniform(3.0e-4, 3.2e-4), 9) for _ in range(285))

    assert len(pack_samples(samples, (0,) * 285)) < 0.95 * 285 * 8


def test_any_zlib_reads_the_blob() -> None:
    """The column is a zlib stream of little-endian doubles, then of 16-bit rounds, for people with SQL alone."""
    blob = pack_samples((1.0, 2.0), (3, 4))

    assert zlib.decompress(blob).hex() == "000000000000f03f000000000000004003000400"


def test_a_damaged_blob_is_noticed() -> None:
    """The checksum covers stored samples, too."""
    blob = bytearray(pack_samples((1.0, 2.0), (3, 4)))
    blob[12] ^= 1

    with pytest.raises(BadInput, match="damaged"):
        unpack_samples(bytes(blob))
