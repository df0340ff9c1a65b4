"""The room's door."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lanaprof.distill
from lanaprof.distill import _HOME


def test_every_public_name_can_be_loaded() -> None:
    """__all__ and the lazy table name the same, and each name is there."""
    assert set(lanaprof.distill.__all__) == set(_HOME)
    assert all(getattr(lanaprof.distill, name) is not None for name in lanaprof.distill.__all__)


def test_import_is_light() -> None:
    """Importing the package loads neither torch nor torchvision nor PIL."""
    code = "import sys, lanaprof.distill; sys.exit(bool({'torch', 'torchvision', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name() -> None:
    """A wrong name is an AttributeError like everywhere else."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lanaprof.distill.nothing
