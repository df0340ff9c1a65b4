"""Operators in 16 bits: made of the graph in float32, the same as exported by torch at that precision."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from lanaprof.lut.keys import operator_key
from lanaprof.ops import at_precision, build_operation, fuse, parse_operation
from lanaprof.profiler.export import exported_graph
from lanaprof.profiler.narrowing import narrowed_graph
from lanaprof.profiler.rebuild import model_from_graph

IMAGES = (8, 12, 12)
BATCH = (1, *IMAGES)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    "text", ["conv", "mbconv(expand=2,se=0.25)", "basic(width=0.5)", "conv(act=relu6)", "mbconv(act=hswish)"]
)
def test_narrowed_is_exported_at_the_precision(text: str, precision: str) -> None:
    """One recipe, two ways: a device in 16 bits, and an operation that names it."""
    module = build_operation(parse_operation(text), IMAGES, IMAGES).eval()
    narrow = at_precision(module, precision, IMAGES)

    wanted = operator_key(exported_graph(narrow, BATCH))
    assert wanted == operator_key(narrowed_graph(exported_graph(fuse(module), BATCH), precision))


def test_inputs_and_outputs_stay_float32() -> None:
    """A narrowed operator stands where the wide one stood, and all inside is narrow."""
    module = nn.Sequential(
        nn.Conv2d(8, 4, 3), nn.ReLU6(), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(1600, 5)
    )
    graph = narrowed_graph(exported_graph(module.eval(), BATCH), "fp16")
    session = onnxruntime.InferenceSession(
        model_from_graph(graph).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = session.run(None, {"x0": np.zeros(BATCH, np.float32)})[0]
    inside = {output["type"] for node in graph["nodes"][1:-1] for output in node["outputs"]}

    assert (given.dtype, given.shape) == (np.float32, (1, 5))
    assert inside == {"float16"}


def test_a_cast_to_float32_inside_is_one_to_nothing() -> None:
    """What a module computes in float32 on purpose is computed in 16 bits where all is."""

    class Careful(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.double().float(), 1)

    graph = narrowed_graph(exported_graph(Careful(), BATCH), "fp16")

    assert graph["nodes"][-1]["op"] == "Cast"
    assert graph["nodes"][-2]["outputs"][0]["type"] == "float16"
