"""Denormal weights are found in arrays and in ONNX files, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lanaprof.profiler.denormals import denormal_share, denormal_share_of_arrays, denormal_warning

TINY = np.float32(1e-40)
# Made here, before any session of this process may have asked for denormals to be flushed.
QUARTER = np.array([1, 2, TINY, 0], dtype=np.float32)


@pytest.mark.parametrize(
    ("array", "share"),
    [
        (np.array([1, 0, -1], dtype=np.float32), 0.0),
        (np.array([1, TINY, -TINY, 0], dtype=np.float32), 0.5),
        (np.array([1e-40, 1e-310], dtype=np.float64), 0.5),  # 1e-40 is an ordinary double
        (np.array([1e-7, 1], dtype=np.float16), 0.0),  # becomes an ordinary float32
        (np.array([1, 2], dtype=np.int64), 0.0),
        (np.array([np.finfo(np.float32).tiny, np.nan, np.inf], dtype=np.float32), 0.0),
        (np.zeros((0, 3), dtype=np.float32), 0.0),
    ],
)
def test_share_of_an_array(array: npt.NDArray[Any], share: float) -> None:
    """Smaller than the smallest normal number of its type, and not zero."""
    assert share == denormal_share_of_arrays([array])


def test_a_thread_that_flushes_denormals_sees_them() -> None:
    """A session or torch may have asked this thread to flush: numbers then compare equal to zero, their bits do not."""
    import torch

    assert torch.set_flush_denormal(True)
    try:
        share = denormal_share_of_arrays([QUARTER, QUARTER.astype(">f4")])
        compared = float(np.count_nonzero(QUARTER))
    finally:
        torch.set_flush_denormal(False)

    assert (0.25, 2.0) == (share, compared)


def model(weights: npt.NDArray[Any], constant: npt.NDArray[Any]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(constant)),
        helper.make_node("Add", ["x", "w"], ["s"]),
        helper.make_node("Mul", ["s", "c"], ["y"]),
    ]
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", places[:1], places[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph)


def test_initialisers_and_constants_count(tmp_path: Path) -> None:
    """One of four, and one of four: a quarter, from memory and from a file."""
    made = model(QUARTER, QUARTER[::-1])
    onnx.save(made, tmp_path / "net.onnx")

    assert 0.25 == denormal_share(made)
    assert 0.25 == denormal_share(tmp_path / "net.onnx")


def test_weights_beside_the_file_count(tmp_path: Path) -> None:
    """External data are read."""
    made = model(QUARTER, np.ones(4, dtype=np.float32))
    onnx.save(made, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)

    assert 0.125 == denormal_share(tmp_path / "net.onnx")


def test_a_warning_says_how_many_and_what_to_do() -> None:
    """Nothing for none."""
    assert "" == denormal_warning("net.onnx", 0.0)
    assert "net.onnx: 2.50% of its weights" in denormal_warning("net.onnx", 0.025)
    assert "a few of its weights" in denormal_warning("net.onnx", 1e-9)
