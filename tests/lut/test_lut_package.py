"""The package from outside: its names, and what importing it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lanaprof.lut


def test_public_names_are_sorted_and_there() -> None:
    """__all__ lists every lazily imported name, capitals first, and each resolves."""
    names = lanaprof.lut.__all__

    assert set(names) == set(lanaprof.lut._HOME)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(getattr(lanaprof.lut, name) is not None for name in names)
    assert set(names) <= set(dir(lanaprof.lut))


def test_unknown_name_is_an_attribute_error() -> None:
    """Lazy names do not swallow mistakes."""
    assert not hasattr(lanaprof.lut, "nothing")


def test_using_the_database_imports_nothing_heavy(database: Any, python: Callable[..., Any]) -> None:
    """Neither making, filling, reading, exporting nor comparing needs torch, onnx, pandas or pyarrow."""
    program = """
import sys
import lanaprof.lut as lut
with lut.open_store(sys.argv[1], create=True) as store:
    store.add([lut.Score(teacher="t", candidate="c", data="d", layer="x", operation="o", metric="m", score=1.0,
        images=1, team="a", time="2026-01-01T00:00:00Z")])
    lut.export_file(store, sys.argv[1] + ".jsonl.zst")
    lut.import_files(store, [sys.argv[1] + ".jsonl.zst"])
    lut.compare_tables, lut.open_table, lut.coverage
    lut.check(sys.argv[1])
heavy = {"torch", "onnx", "onnxruntime", "tensorrt", "pandas", "pyarrow", "pulp", "numpy"} & set(sys.modules)
print(sorted(heavy))
"""
    out, err = python(program, str(database)).communicate()

    assert (out.strip(), err) == ("[]", "")


def test_opening_a_database_does_not_import_alembic(database: Any, python: Callable[..., Any]) -> None:
    """Commands that only read start quickly."""
    lanaprof.lut.open_store(database, create=True).close()
    program = """
import sys
import lanaprof.lut as lut
with lut.open_store(sys.argv[1]) as store:
    store.counts()
print("alembic" in sys.modules)
"""
    out, err = python(program, str(database)).communicate()

    assert (out.strip(), err) == ("False", "")
