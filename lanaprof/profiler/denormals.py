"""Denormal weights: numbers so small that a processor handles them in microcode, up to a hundred times slower.

Trained weights have them more often than one thinks (decayed filters, dead channels), random ones never; so a network
can be far slower with its own weights than its operators were when measured. Our sessions flush them to zero, and so
must whoever runs the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

__all__ = ["denormal_share", "denormal_share_of_arrays", "denormal_warning"]

# Type → the bits of its numbers, its number of fraction bits and of exponent bits. Halves are not here: a CPU widens
# them to float32 before it computes with them, and there they are normal.
_WIDE = {"f4": (np.uint32, 23, 8), "f8": (np.uint64, 52, 11)}


def denormal_share_of_arrays(arrays: Iterable[npt.NDArray[Any]]) -> float:
    """Return which share of all floating-point numbers in the arrays is denormal; 0 when there are none.

    >>> denormal_share_of_arrays([np.array([1.0, 0.0, 1e-40, -1e-39], dtype=np.float32)])
    0.5
    """
    count = denormal = 0
    for array in arrays:
        if not np.issubdtype(array.dtype, np.floating):
            continue
        count += array.size
        if array.dtype.str[1:] in _WIDE:
            denormal += _denormals(array)
    return denormal / count if count else 0.0


def _denormals(array: npt.NDArray[Any]) -> int:
    """Return how many numbers have no exponent and are not zero.

    By their bits: where this thread flushes denormals, which a session made in it may have asked for, comparing finds
    them equal to zero.
    """
    kind, fraction, exponent = _WIDE[array.dtype.str[1:]]
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    bits = native.reshape(-1).view(kind) & kind((1 << (fraction + exponent)) - 1)  # without the sign
    return int(np.count_nonzero((bits > 0) & (bits < kind(1 << fraction))))


def denormal_share(model: onnx.ModelProto | str | Path) -> float:
    """Return which share of a model's floating-point weights is denormal; initialisers and Constants count.

    Args:
        model: a loaded model, or the file of one (with its external data beside it).
    """
    import onnx  # heavy, and only needed where a model is looked into

    loaded = model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))
    return denormal_share_of_arrays(_weights(loaded.graph))


def _weights(graph: onnx.GraphProto) -> Iterator[npt.NDArray[Any]]:
    from onnx import numpy_helper

    for tensor in graph.initializer:
        yield numpy_helper.to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield numpy_helper.to_array(attribute.t)
            if attribute.HasField("g"):  # a branch or a loop's body
                yield from _weights(attribute.g)


def denormal_warning(name: str, share: float) -> str:
    """Return what to tell the user of a network with this share of denormal weights; empty for none."""
    if share == 0.0:
        return ""
    shown = f"{share:.2%}" if share >= 0.0001 else "a few"
    return (
        f"{name}: {shown} of its weights are denormal (nearly zero), which can make a run many times slower. lanaprof "
        "times with random weights and flushes denormals; do so where it runs, too (ONNX Runtime: "
        "session.set_denormal_as_zero=1, torch: torch.set_flush_denormal(True)), or set them to zero"
    )
