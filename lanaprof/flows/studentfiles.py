"""Networks as files: ONNX and torch.export programs, held against torch before they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.errors import UserError
from lanaprof.flows.files import write_whole

if TYPE_CHECKING:
    from torch import nn

__all__ = ["write_onnx", "write_program"]

_AGREEMENT = 1e-4  # largest difference between ONNX Runtime and torch, relative to the largest output
# The same where layers are narrower than float32: a value that is rounded to the other side moves all behind it.
_ROUNDED_AGREEMENT = 0.1


def write_onnx(
    module: nn.Module, reference: nn.Module, shape: Sequence[int], out: Path, *, narrow: bool
) -> float | None:
    """Write a network as ONNX and return the largest difference from torch, relative to the largest output.

    Args:
        module: in its deployed form.
        reference: what its outputs must be.
        shape: of an input, the batch included.
        out: the file.
        narrow: some of it is computed at a lower precision than float32.

    Returns:
        None where ONNX Runtime cannot run it on this machine: it has no convolutions in bf16.

    Raises:
        UserError: the network does not agree with torch; nothing is written.
    """
    import onnx
    import onnxruntime

    from lanaprof.profiler.export import exported_model
    from lanaprof.profiler.roundings import deployed_model

    model = exported_model(module, shape)
    if narrow:
        model = deployed_model(model)
    data = model.SerializeToString()
    difference = None
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if onnx.TensorProto.BFLOAT16 not in kinds:
        options = onnxruntime.SessionOptions()
        if (
            onnx.TensorProto.FLOAT8E4M3FN in kinds
        ):  # its optimiser puts kernels for int8 in place of these roundings
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        difference = _difference(
            reference, shape, lambda x: session.run(None, {"input": x.numpy()})[0], narrow=narrow
        )
    write_whole(out, data)
    return difference


def write_program(
    module: nn.Module, reference: nn.Module, shape: Sequence[int], out: Path, *, narrow: bool
) -> float:
    """Write a network as a torch.export program; arguments, result and errors are those of :func:`write_onnx`."""
    import io

    import torch

    program = torch.export.export(module, (torch.zeros(tuple(shape)),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    loaded: Any = program.module()
    difference = _difference(reference, shape, lambda x: loaded(x).detach().numpy(), narrow=narrow)
    write_whole(out, buffer.getvalue())
    return difference


def _difference(
    reference: nn.Module, shape: Sequence[int], run: Callable[[Any], Any], *, narrow: bool
) -> float:
    import numpy as np
    import torch

    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(x).numpy()
    difference = float(np.max(np.abs(run(x) - expected)) / max(1e-12, float(np.max(np.abs(expected)))))
    if not difference <= (_ROUNDED_AGREEMENT if narrow else _AGREEMENT):
        raise UserError(
            f"the exported network differs from torch's by {difference:.1e} of the largest output; nothing was written",
            hint="please report this with the architecture",
        )
    return difference
