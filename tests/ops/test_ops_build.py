"""Modules of operations: shapes, seeds, cost formulas, the deployed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lanaprof.errors import UnknownOperation
from lanaprof.ops import (
    build_operation,
    candidate_seed,
    families,
    find_strides,
    fuse,
    get_family,
    match_output,
    parse_operation,
)

TRACED = pytest.mark.filterwarnings(
    "ignore:The feature will be removed:DeprecationWarning"
)  # torch's own call
EVERY_KIND = (
    "skip",
    "conv(kernel=1,act=none)",
    "conv(kernel=5,groups=4,act=gelu)",
    "ds(kernel=5,act=hswish)",
    "mbconv(expand=2,se=0.25,act=silu)",
    "mbconv(expand=0.5,kernel=7,out=relu)",
    "fused_mbconv(expand=2,se=0.5)",
    "basic(width=0.5,act=relu6)",
    "bottleneck(groups=2,out=none)",
    "repvgg",
    "repvgg(act=silu)",
)
SHAPES = (
    ((16, 8, 8), (16, 8, 8)),
    ((16, 8, 8), (24, 8, 8)),
    ((16, 15, 13), (16, 8, 7)),  # odd sizes: ceil
    ((16, 8, 12), (32, 4, 3)),  # different strides
)


def trained(module: nn.Module, *, seed: int = 1) -> nn.Module:
    """Return the module in eval mode with batch norms as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert child.running_mean is not None
            assert child.running_var is not None
            with torch.no_grad():
                child.running_mean.copy_(torch.randn(child.num_features, generator=generator))
                child.running_var.copy_(torch.rand(child.num_features, generator=generator) * 2 + 0.2)
                child.weight.copy_(torch.randn(child.num_features, generator=generator))
                child.bias.copy_(torch.randn(child.num_features, generator=generator))
    return module.eval()


def sample(shape: tuple[int, ...], *, batch: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("text", EVERY_KIND)
@pytest.mark.parametrize(("input_shape", "output_shape"), SHAPES)
def test_modules_give_the_output_shape(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """Every operation that applies turns the input shape into the output shape."""
    operation = parse_operation(text)
    if text == "skip" and input_shape != output_shape:
        with pytest.raises(UnknownOperation, match="the identity cannot turn"):
            build_operation(operation, input_shape, output_shape)
        return

    module = build_operation(operation, input_shape, output_shape)

    assert tuple(module(sample(input_shape)).shape[1:]) == output_shape


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if text != "skip"])
def test_equal_seeds_give_equal_weights(text: str) -> None:
    """The initial weights follow from the seed alone, and other seeds give others."""
    built = [build_operation(parse_operation(text), (16, 8, 8), (16, 8, 8), seed=seed) for seed in (3, 3, 4)]
    first, same, other = (torch.cat([p.flatten() for p in module.parameters()]) for module in built)

    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_building_leaves_global_randomness_alone() -> None:
    """Random numbers drawn after building are those that would have come without."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_operation(parse_operation("conv"), (8, 4, 4), (8, 4, 4), seed=1)

    assert torch.equal(torch.rand(3), expected)


def test_candidates_have_seeds_of_their_own() -> None:
    """Layer, operation and the project's seed each change a candidate's seed."""
    seeds = {
        candidate_seed(s, layer, text) for s in (0, 1) for layer in ("a", "b") for text in ("conv", "ds")
    }

    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("text", EVERY_KIND)
@pytest.mark.parametrize(("input_shape", "output_shape"), SHAPES)
def test_the_deployed_form_computes_the_same(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """Merging branches keeps the outputs, on batch norms with statistics and weights as after training."""
    if text == "skip" and input_shape != output_shape:
        return
    module = trained(build_operation(parse_operation(text), input_shape, output_shape))
    x = sample(input_shape)
    with torch.no_grad():
        expected, actual = module(x), fuse(module)(x)

    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_repvgg_deploys_as_one_convolution() -> None:
    """The three branches become one convolution, wherever in a network they are; the original stays."""
    block = trained(build_operation(parse_operation("repvgg"), (8, 6, 6), (8, 6, 6)))
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(block), nn.Flatten()).eval()
    x = sample((3, 6, 6))
    with torch.no_grad():
        expected = network(x)
        deployed = fuse(network)
        actual = deployed(x)

    assert sum(isinstance(child, nn.Conv2d) for child in deployed.modules()) == 2
    assert not any(isinstance(child, nn.BatchNorm2d) for child in deployed.modules())
    assert sum(isinstance(child, nn.Conv2d) for child in network.modules()) == 3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_timms_reparameterisable_blocks_are_merged() -> None:
    """Teachers of timm with branches, such as MobileOne, are deployed merged, too."""
    from timm.models.byobnet import MobileOneBlock

    block = trained(MobileOneBlock(8, 8, num_conv_branches=2))
    x = sample((8, 6, 6))
    with torch.no_grad():
        expected = block(x)
        deployed = fuse(block)
        actual = deployed(x)

    assert sum(isinstance(child, nn.Conv2d) for child in deployed.modules()) == 1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_deploying_changes_nothing_in_the_original() -> None:
    """The original keeps its mode and its branches."""
    module = build_operation(parse_operation("repvgg"), (8, 6, 6), (8, 6, 6)).train()
    fuse(module)

    assert module.training
    assert sum(isinstance(child, nn.BatchNorm2d) for child in module.modules()) == 3


def test_deploying_in_place_uses_the_module_up() -> None:
    """Without a copy the module's own convolutions are deployed."""
    inner = nn.Sequential(nn.Conv2d(8, 8, 1)).train()
    network = nn.Sequential(inner, build_operation(parse_operation("repvgg"), (8, 6, 6), (8, 6, 6)))

    deployed = fuse(network, in_place=True)

    assert deployed is network
    assert not inner.training
    assert sum(isinstance(child, nn.Conv2d) for child in network.modules()) == 2


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if text != "skip"])
@pytest.mark.parametrize(("input_shape", "output_shape"), SHAPES)
def test_cost_formulas_count_the_deployed_arithmetic(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """A family's multiply-accumulates are those that its deployed convolutions perform."""
    operation = parse_operation(text)
    counted = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Conv2d)
        counted += module.weight.numel() * math.prod(output.shape[2:])

    deployed = fuse(build_operation(operation, input_shape, output_shape))
    for child in deployed.modules():
        if isinstance(child, nn.Conv2d):
            child.register_forward_hook(count)
    deployed(sample(input_shape, batch=1))
    macs = get_family(operation.family).macs

    assert macs is not None
    assert macs(input_shape, output_shape, dict(operation.parameters)) == counted


@TRACED
@pytest.mark.parametrize("text", [text for text in EVERY_KIND if text != "skip"])
def test_operations_export_to_onnx(text: str, tmp_path: Path) -> None:
    """ONNX Runtime computes what the module computes, and no shape is left to run time."""
    module = fuse(trained(build_operation(parse_operation(text), (16, 15, 15), (16, 8, 8))))
    x = sample((16, 15, 15), batch=1)
    path = tmp_path / "operation.onnx"
    torch.onnx.export(module, (x,), path, dynamo=False, opset_version=18)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    kinds = {node.op_type for node in onnx.load(path).graph.node}

    np.testing.assert_allclose(actual, module(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    assert kinds.isdisjoint({"Shape", "Slice", "Gather", "Pad", "BatchNormalization", "Reshape"})


@TRACED
def test_both_exporters_write_the_same_nodes(tmp_path: Path) -> None:
    """Neither squeeze-and-excitation nor activations depend on the exporter."""
    module = fuse(
        trained(build_operation(parse_operation("mbconv(se=0.25,act=hswish,out=silu)"), (8, 6, 6), (8, 6, 6)))
    )
    x = sample((8, 6, 6), batch=1)
    path = tmp_path / "operation.onnx"
    torch.onnx.export(module, (x,), path, dynamo=False, opset_version=18)
    program = torch.onnx.export(module, (x,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    old, new = (
        [node.op_type for node in graph.graph.node if node.op_type not in ("Constant", "Identity")]
        for graph in (onnx.load(path), program.model_proto)
    )

    assert new == old


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if not text.startswith(("skip", "repvgg"))])
@pytest.mark.parametrize(("input_shape", "output_shape"), SHAPES[:2])
def test_a_fresh_module_starts_at_the_outputs_scale(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> None:
    """Before the last activation, mean and deviation of what is added are those of the target."""
    module = build_operation(parse_operation(text), input_shape, output_shape)
    x = sample(input_shape, batch=16)
    y = 5 * sample(output_shape, batch=16).flip(0) + 3
    matched = match_output(module, x, y, share=0.5)
    added = module.train().get_submodule("body")(x)
    target = y - x if input_shape == output_shape else y

    assert matched
    torch.testing.assert_close(added.mean((0, 2, 3)), target.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(added.std((0, 2, 3)), 0.5 * target.std((0, 2, 3)), rtol=1e-2, atol=1e-3)


def test_what_has_no_last_norm_stays_as_it_is() -> None:
    """Branches and plug-ins are not started; the caller learns it."""
    x = sample((8, 4, 4))
    for module in (build_operation(parse_operation("repvgg"), (8, 4, 4), (8, 4, 4)), nn.ReLU()):
        assert not match_output(module, x, x)


def test_teacher_is_the_given_module() -> None:
    """``teacher`` builds nothing: the given layer itself comes back."""
    layer = nn.Conv2d(3, 3, 1)

    assert build_operation(parse_operation("teacher"), (3, 4, 4), (3, 4, 4), teacher=layer) is layer


@pytest.mark.parametrize(
    ("text", "input_shape", "output_shape", "message"),
    [
        ("teacher", (3, 4, 4), (3, 4, 4), "needs the teacher's own layer"),
        ("conv", (8, 4, 4), (8, 8, 8), r"no stride turns \(4, 4\) into \(8, 8\)"),
        ("conv", (8, 15, 15), (8, 7, 7), "no stride turns"),
        ("conv", (16, 64), (16, 64), "it needs images"),
        ("conv(groups=3)", (8, 4, 4), (9, 4, 4), "3 groups do not divide 8 and 9 channels"),
        ("bottleneck(groups=3)", (32, 4, 4), (32, 4, 4), "3 groups do not divide 8 inner channels"),
    ],
)
def test_what_does_not_fit_is_refused(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...], message: str
) -> None:
    """An operation that cannot stand between two shapes says why."""
    with pytest.raises(UnknownOperation, match=message):
        build_operation(parse_operation(text), input_shape, output_shape)


def test_strides_are_the_least_that_fit() -> None:
    """Found strides reproduce the output size by ceil, over all sizes."""
    for size in range(1, 40):
        for stride in range(1, size + 1):
            wanted = -(-size // stride)
            found = find_strides((1, size, size), (1, wanted, wanted))

            assert found is not None
            assert found[0] <= stride
            assert -(-size // found[0]) == wanted


def test_every_family_with_a_module_states_its_cost_and_source() -> None:
    """Nothing stands in the register without a reference and, but for what the teacher decides, a formula."""
    for family in families():
        if family.name != "teacher":
            assert family.source
            assert family.needs_teacher or family.macs is not None
