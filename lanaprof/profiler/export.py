"""A torch module → ONNX → canonical graph.

The TorchScript-based exporter is the default: about 0.02 s per operator where torch.export takes one to three.
It is deprecated, so the other path stands beside it; both give the same operator key.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.canonical import Graph, canonical_graph
from lanaprof.profiler.prepare import OPSET, OPSET_FP8

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["EXPORTERS", "exported_graph", "exported_model"]

EXPORTERS = ("torchscript", "dynamo")


def exported_model(
    module: torch.nn.Module, input_shape: Sequence[int], *, exporter: str = "torchscript"
) -> onnx.ModelProto:
    """Return the module as ONNX with its weights, inputs ``input``, outputs ``output``.

    Args:
        module: in eval mode.
        input_shape: the batch included, e.g. ``(1, 3, 224, 224)``.
        exporter: ``torchscript`` or ``dynamo``.

    Raises:
        UnsupportedOperator: the exporter cannot express the module.
    """
    import onnx
    import torch

    generator = torch.Generator().manual_seed(0)
    example = torch.randn(tuple(input_shape), generator=generator)
    previous = logging.root.manager.disable
    if (
        exporter == "dynamo"
    ):  # the other one does not log, and each change makes all loggers forget their levels
        logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if exporter == "dynamo":
                program = torch.onnx.export(
                    module, (example,), dynamo=True, opset_version=OPSET, verbose=False,
                    input_names=["input"], output_names=["output"],
                )  # fmt: skip
                assert program is not None
                return program.model_proto
            file: Any = io.BytesIO()  # annotated as a path, documented as path or file
            torch.onnx.export(
                module, (example,), file, dynamo=False, opset_version=_opset_of(module),
                input_names=["input"], output_names=["output"],
            )  # fmt: skip
            return onnx.load_from_string(file.getvalue())
    except Exception as error:  # both exporters raise a zoo of classes
        first = str(error).strip().split("\n", 1)[0]
        raise UnsupportedOperator(f"the {exporter} exporter refused the module: {first}") from error
    finally:
        if exporter == "dynamo":
            logging.disable(previous)


def _opset_of(module: torch.nn.Module) -> int:
    """Return the least opset that can say the module; others would convert all that has no floats of 8 bits."""
    from lanaprof.ops.quantising.module import find_quantised  # needs torch

    is_float = any(part.grid.is_float for part in find_quantised(module).values())
    return OPSET_FP8 if is_float else OPSET


def exported_graph(
    module: torch.nn.Module, input_shape: Sequence[int], *, exporter: str = "torchscript"
) -> Graph:
    """Return the module's canonical graph.

    Raises:
        UnsupportedOperator: it cannot be exported or has no canonical form.
    """
    return canonical_graph(exported_model(module, input_shape, exporter=exporter))
