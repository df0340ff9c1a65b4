"""The families beyond the classic ones: shapes, merged forms, arithmetic, export, the start at the output's scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from timm.models.volo import OutlookAttention as TimmOutlook
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lanaprof.errors import UnknownOperation
from lanaprof.ops import build_operation, fuse, get_family, match_output, parse_operation, why_not
from lanaprof.profiler.export import exported_graph, exported_model

KINDS = (
    "ds(kernel=9)",
    "mbconv(expand=0.03125,kernel=9,act=gelu)",
    "fused_mbconv(expand=0.5,kernel=7)",
    "lowrank(kernel=5,rank=0.5)",
    "lowrank(form=spatial,out=relu)",
    "dilated(width=0.5,dilation=3,groups=2,act=silu)",
    "dilated(kernel=5)",
    "split_attention(width=1)",
    "split_attention(radix=1,kernel=5)",
    "split_attention(width=1,radix=4,groups=2)",
    "uib",
    "uib(start=5,middle=0,act=hswish)",
    "uib(start=0,middle=7)",
    "uib(expand=2,start=0,middle=0,out=relu)",
    "eca(expand=2,act=silu)",
    "ghost(se=0.25)",
    "ghost(expand=1,ratio=4,kernel=5,act=hswish)",
    "partial(share=0.25,out=relu)",
    "partial(share=0.5,kernel=5,expand=1,act=gelu)",
    "shuffle(width=1,groups=4,kernel=5)",
    "shuffle(groups=1)",
    "convnext",
    "convnext(norm=batch,kernel=3,expand=1,act=relu)",
    "dbb",
    "dbb(kernel=5,act=none)",
    "linear",
    "linear(kernel=5,expand=0.5,act=silu)",
    "mobileone",
    "mobileone(kernel=5,branches=2,out=relu)",
    "window_attention(window=4)",
    "window_attention(heads=2,width=0.5,expand=2,out=relu)",
    "global_attention(heads=2)",
    "global_attention(heads=8,width=0.25,expand=1)",
    "outlook",
    "outlook(stride=1,heads=2,width=0.5,expand=1)",
    "pool",
    "pool(kernel=5,expand=0)",
)
SHAPES = (
    ((32, 14, 14), (32, 14, 14)),
    ((32, 14, 14), (48, 14, 14)),
    ((16, 15, 14), (16, 8, 7)),  # odd sizes: ceil
    ((16, 8, 12), (32, 4, 3)),  # different strides
)


def trained(module: nn.Module) -> nn.Module:
    """Return the module in eval mode with norms and biases as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                assert child.running_mean is not None
                assert child.running_var is not None
                child.running_mean.copy_(torch.randn(child.num_features, generator=generator))
                child.running_var.copy_(torch.rand(child.num_features, generator=generator) * 2 + 0.2)
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1 or name.endswith("table"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.eval()


def sample(shape: tuple[int, ...], *, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def fits(text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> bool:
    return why_not(parse_operation(text), input_shape, output_shape) is None


CASES = [(text, *shapes) for text in KINDS for shapes in SHAPES if fits(text, *shapes)]


@pytest.mark.parametrize(("text", "input_shape", "output_shape"), CASES)
def test_the_deployed_form_computes_the_same_at_the_stated_arithmetic(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """Shapes are right, merging keeps the outputs, and the formula is what PyTorch counts, products included."""
    operation = parse_operation(text)
    module = trained(build_operation(operation, input_shape, output_shape))
    x = sample(input_shape, batch=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        deployed = fuse(module)
        actual = deployed(x)
    flops = counter.get_total_flops()
    with torch.no_grad():
        expected = module(x)
    macs = get_family(operation.family).macs

    assert tuple(actual.shape[1:]) == output_shape
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert macs is not None
    assert flops - _merging(module) == 2 * macs(input_shape, output_shape, dict(operation.parameters))


def _merging(module: nn.Module) -> int:
    """Return the operations that merging takes, which belong to no forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        fuse(module)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("text", [text for text in KINDS if fits(text, *SHAPES[2])])
def test_onnx_runtime_computes_the_same(text: str) -> None:
    """The default exporter writes what ONNX Runtime runs within 1e-4, with no shape left to run time."""
    input_shape, output_shape = SHAPES[2]
    module = fuse(trained(build_operation(parse_operation(text), input_shape, output_shape)))
    x = sample(input_shape, batch=1)
    model = exported_model(module, (1, *input_shape))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        expected = module(x).numpy()
    kinds = {node.op_type for node in model.graph.node}

    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert kinds.isdisjoint({"Shape", "Pad", "BatchNormalization", "If", "Loop"})


@pytest.mark.parametrize(
    "text", ["window_attention(expand=1)", "split_attention", "eca", "partial(share=0.5)"]
)
def test_operators_follow_from_the_text_alone(text: str) -> None:
    """Other weights give the same operator; the canonical form knows all nodes."""
    graphs = [
        exported_graph(
            fuse(build_operation(parse_operation(text), (16, 8, 8), (16, 8, 8), seed=seed)), (1, 16, 8, 8)
        )
        for seed in (0, 1)
    ]

    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("text", ["dbb(kernel=5)", "linear(kernel=5)", "repvgg"])
def test_wide_blocks_deploy_as_one_convolution(text: str) -> None:
    """Whatever they are trained as."""
    deployed = fuse(build_operation(parse_operation(text), (16, 8, 8), (16, 8, 8)))

    assert [type(child) for child in deployed.modules()][1:] == [nn.Conv2d, nn.ReLU]


def test_families_of_equal_pieces_are_the_same_computation() -> None:
    """A universal inverted bottleneck without its first convolution is an inverted residual."""
    shapes = ((32, 14, 14), (32, 14, 14))
    uib, mbconv, other = (
        get_family(operation.family).pieces(*shapes, dict(operation.parameters))  # type: ignore[misc]
        for operation in map(
            parse_operation, ("uib(expand=2,start=0)", "mbconv(expand=2)", "mbconv(expand=2.2)")
        )
    )

    assert uib == mbconv
    assert other != mbconv  # 72 hidden channels, not 64


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize(("input_shape", "output_shape"), SHAPES[:2])
def test_a_fresh_module_starts_at_the_outputs_scale(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """After the start the mean of every channel is the teacher's, and the scale is no more than twice."""
    if not fits(text, input_shape, output_shape):
        return
    operation = parse_operation(text)
    ends = {"out": "none"} if "out" in dict(operation.parameters) else {"act": "none"}
    open_ended = type(operation)(operation.family, tuple({**dict(operation.parameters), **ends}.items()))
    module = build_operation(open_ended, input_shape, output_shape)
    x = sample(input_shape, batch=16)
    y = 5 * sample(output_shape, batch=16, seed=3) + 3
    if input_shape == output_shape:
        y = y + x
    matched = match_output(module, x, y, share=0.5)
    with torch.no_grad():
        got = module.train()(x)

    assert matched
    if (
        operation.family == "pool"
        and input_shape == output_shape
        and not dict(operation.parameters)["expand"]
    ):
        return  # nothing in it has a scale
    torch.testing.assert_close(got.mean((0, 2, 3)), y.mean((0, 2, 3)), rtol=0.05, atol=0.2)
    assert (got.std((0, 2, 3)) < 2 * y.std((0, 2, 3))).all()


@pytest.mark.parametrize(
    ("text", "input_shape", "output_shape", "message"),
    [
        ("uib(start=0,middle=0)", (16, 8, 8), (16, 4, 4), "without a depthwise convolution nothing strides"),
        ("ghost(ratio=4)", (16, 8, 8), (18, 8, 8), "a ratio of 4 does not divide 18 channels"),
        ("partial(share=0.5)", (8, 8, 8), (8, 8, 8), "a share of 0.5 is all of 8 channels"),
        ("shuffle(groups=4)", (18, 8, 8), (16, 8, 8), "4 groups do not divide 18 channels"),
        (
            "dilated(dilation=8)",
            (16, 8, 8),
            (16, 8, 8),
            "all but the kernel's centre lie outside of 8×8 pixels",
        ),
        ("split_attention(width=1,groups=3)", (16, 8, 8), (16, 8, 8), "6 groups do not divide 16 inner"),
        ("window_attention", (16, 19, 19), (16, 19, 19), "no window of 3 to 7 pixels tiles 19"),
        ("global_attention", (16, 17, 17), (16, 17, 17), "17×17 are more than 256 pixels"),
        ("convnext", (16, 64), (16, 64), "it needs images"),
    ],
)
def test_what_does_not_fit_is_refused(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...], message: str
) -> None:
    """An operation that cannot stand between two shapes says why."""
    with pytest.raises(UnknownOperation, match=message):
        build_operation(parse_operation(text), input_shape, output_shape)


@pytest.mark.parametrize(("size", "stride"), [(14, 1), (14, 2), (9, 2)])
def test_outlook_attention_is_the_published_one(size: int, stride: int) -> None:
    """With timm's weights it computes what timm's module computes, at even and odd sizes."""
    module = build_operation(parse_operation(f"outlook(heads=2,stride={stride})"), *[(16, size, size)] * 2)
    theirs = TimmOutlook(16, 2, stride=stride, qkv_bias=False).eval()
    generator = torch.Generator().manual_seed(3)
    stack: Any = module.eval()
    own = stack.branches[0]
    with torch.no_grad():
        for mine, other in ((own.value, theirs.v), (own.weigh, theirs.attn), (own.last, theirs.proj)):
            other.weight.copy_(torch.randn(other.weight.shape, generator=generator) / 4)
            mine.weight.copy_(other.weight[..., None, None])
            if other.bias is not None:
                mine.bias.copy_(other.bias)
        x = torch.randn(2, 16, size, size, generator=generator)
        wanted = theirs(nn.functional.layer_norm(x.permute(0, 2, 3, 1), [16], eps=own.norm.norm.eps)).permute(
            0, 3, 1, 2
        )
        assert torch.allclose(own(x), wanted, atol=1e-5)
