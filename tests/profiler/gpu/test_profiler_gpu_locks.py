"""One measuring process per GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanaprof.profiler.gpu.locks import hold_gpu

WHOLE, SLICE = "GPU-7e1ba0b5-5a45", "MIG-5f4dcc3b-5aa7"


class Held(Exception):
    """Raised instead of waiting."""


def refuse(holder: str) -> None:
    raise Held(holder)


def test_a_gpu_is_held_by_one(tmp_path: Path) -> None:
    """Who comes second is told who holds it; afterwards it is free."""
    with hold_gpu(WHOLE, refuse, tmp_path), pytest.raises(Held) as held, hold_gpu(WHOLE, refuse, tmp_path):
        pass

    assert str(held.value) == f"process {os.getpid()} on {WHOLE}"
    with hold_gpu(WHOLE, refuse, tmp_path):
        pass


def test_other_gpus_and_slices_are_free(tmp_path: Path) -> None:
    """A slice is held alone."""
    with hold_gpu(WHOLE, refuse, tmp_path), hold_gpu(SLICE, refuse, tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"gpu-{WHOLE}.lock", f"gpu-{SLICE}.lock"]
