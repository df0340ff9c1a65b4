"""TensorFlow's "same" padding made static."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn

from lanaprof.teachers import PaddedConv2d, Teacher, make_padding_static

TRACED = pytest.mark.filterwarnings(
    "ignore:The feature will be removed:DeprecationWarning"
)  # torch's own call


def network() -> nn.Sequential:
    """Every kind of "same" layer, with even and uneven margins on odd and even sizes."""
    return nn.Sequential(
        Conv2dSame(3, 8, 3, stride=2, bias=True),
        Conv2dSame(8, 8, 5, stride=2, groups=8),
        nn.BatchNorm2d(8),
        MaxPool2dSame(3, 2),
        AvgPool2dSame(2, 1),
        Conv2dSame(8, 4, 3, dilation=2, stride=1),
    ).eval()


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (37, 45)])
def test_static_padding_computes_the_same_bits(size: tuple[int, int]) -> None:
    """Outputs before and after are equal, bit for bit."""
    torch.manual_seed(0)
    module, x = network(), torch.randn(2, 3, *size)
    expected = module(x)
    names = list(module.state_dict())
    replaced = make_padding_static(module, (3, *size))

    assert replaced == 5
    assert torch.equal(module(x), expected)
    assert list(module.state_dict()) == names
    assert not any("Same" in type(child).__name__ for child in module.modules())


def test_even_margins_need_no_padding_of_their_own() -> None:
    """A convolution whose margins are even is an ordinary one afterwards."""
    module = nn.Sequential(Conv2dSame(3, 8, 3, stride=2))
    make_padding_static(module, (3, 33, 33))

    assert type(module[0]) is nn.Conv2d
    assert module[0].padding == (1, 1)


def test_gradients_flow_through_static_padding() -> None:
    """A teacher with static padding can be fine-tuned."""
    module = nn.Sequential(Conv2dSame(3, 8, 3, stride=2))
    make_padding_static(module, (3, 32, 32))
    module(torch.randn(1, 3, 32, 32)).sum().backward()

    assert isinstance(module[0], PaddedConv2d)
    assert module[0].weight.grad is not None


@TRACED
def test_static_padding_exports_without_computing_sizes(tmp_path: Path) -> None:
    """Each convolution is one node with uneven pads, each pool a Pad of constants and a pool."""
    torch.manual_seed(0)
    module, x = network(), torch.randn(1, 3, 32, 45)
    make_padding_static(module, (3, 32, 45))
    torch.onnx.export(module, (x,), tmp_path / "net.onnx", dynamo=False, opset_version=18)
    kinds = [
        node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node if node.op_type != "Constant"
    ]
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})

    assert kinds == ["Conv", "Conv", "Pad", "MaxPool", "Pad", "AveragePool", "Conv"]
    np.testing.assert_allclose(actual, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_both_exporters_write_the_same_convolution(tmp_path: Path) -> None:
    """The newer exporter merges Pad and Conv into the node the older one writes."""
    module, x = (
        nn.Sequential(Conv2dSame(3, 8, 3, stride=2)).eval(),
        torch.randn(1, 3, 32, 32),
    )
    make_padding_static(module, (3, 32, 32))
    program = torch.onnx.export(module, (x,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    (node,) = program.model_proto.graph.node

    assert node.op_type == "Conv"
    assert [list(one.ints) for one in node.attribute if one.name == "pads"] == [[0, 0, 1, 1]]


def test_teachers_come_with_static_padding(mobilenet: Teacher) -> None:
    """Loading a network of timm's tf_ family leaves no padding to run time."""
    assert any(isinstance(child, PaddedConv2d) for child in mobilenet.module.modules())
    assert not any("Same" in type(child).__name__ for child in mobilenet.module.modules())


def test_a_network_without_same_padding_stays_as_it_is() -> None:
    """Nothing is replaced where nothing is dynamic."""
    assert make_padding_static(nn.Sequential(nn.Conv2d(3, 8, 3)), (3, 8, 8)) == 0
