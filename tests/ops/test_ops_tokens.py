"""Operations on tokens: modules, costs, the deployed graph, which ones a layer is offered."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lanaprof.errors import UnknownOperation
from lanaprof.ops import build_operation, families, get_family, make_operation, match_output, parse_operation
from lanaprof.ops.blocks.tokens import ChannelScale
from lanaprof.ops.token_pools import token_pool, token_quick
from lanaprof.profiler.export import exported_model

EVERY_KIND = (
    "token_mlp(expand=2)",
    "token_mlp(expand=0.5,act=hswish)",
    "token_gated_mlp(expand=1,act=silu)",
    "token_linear",
    "token_linear(rank=0.25)",
    "token_attention(heads=2,dim=16)",
    "token_attention(heads=4,dim=8,kv=2)",
    "token_attention(heads=4,dim=8,kv=1)",
    "token_linear_attention(heads=2,dim=16)",
    "token_external(size=24)",
    "token_mixer",
    "token_mixer(expand=0)",
    "token_spatial_gate(expand=0.5)",
    "token_block(heads=2,dim=8,kv=1,expand=1,act=relu)",
    "token_conv(kernel=5)",
    "token_conv_mlp(expand=1,act=silu)",
    "token_pool",
    "token_window(window=2,heads=2,dim=8)",
    "token_window(window=2,heads=4,dim=8,kv=2)",
    "token_reduced_attention(reduce=2,heads=2,dim=8)",
)
SHAPES = ((16, 32), (17, 32))  # a grid of 4 × 4 without and with a class token
ON_GRID = ("token_conv", "token_pool", "token_window", "token_reduced_attention")
# (tokens, channels) of vision transformers: 16 or 32 pixels a patch, with or without class token, two of them
REAL = ((197, 192), (197, 384), (196, 768), (198, 192), (50, 768), (49, 1024), (577, 192), (257, 256))


def sample(shape: tuple[int, ...], *, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def built(text: str, shape: tuple[int, ...]) -> nn.Module:
    return build_operation(parse_operation(text), shape, shape, seed=1)


def test_every_family_on_tokens_is_tried_here() -> None:
    """No family is forgotten."""
    registered = {family.name for family in families() if family.name.startswith("token_")}

    assert registered == {parse_operation(text).family for text in EVERY_KIND}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", EVERY_KIND)
def test_one_step_of_training_changes_every_weight(text: str, shape: tuple[int, ...]) -> None:
    """Tokens keep their shape, and each parameter gets a finite gradient that is not zero throughout."""
    module = built(text, shape)
    x, y = sample(shape), sample(shape, seed=1)
    (module(x) - y).square().mean().backward()

    assert module(x).shape == x.shape
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", EVERY_KIND)
def test_cost_formulas_count_what_is_computed(text: str, shape: tuple[int, ...]) -> None:
    """A family's multiply-accumulates are half of the operations that torch counts, and those of scales."""
    module, operation = built(text, shape), parse_operation(text)
    scales = sum(isinstance(child, ChannelScale) for child in module.modules())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(sample(shape, batch=1))
    macs = get_family(operation.family).macs

    assert macs is not None
    counted = counter.get_total_flops() // 2 + scales * shape[0] * shape[1]
    assert macs(shape, shape, dict(operation.parameters)) == counted


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", EVERY_KIND)
def test_operations_export_to_onnx(text: str, shape: tuple[int, ...]) -> None:
    """ONNX Runtime computes what the module computes, and no shape is left to run time."""
    module, x = built(text, shape).eval(), sample(shape, batch=1)
    model = exported_model(module, (1, *shape))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": x.numpy()})

    np.testing.assert_allclose(actual, module(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert {"Shape", "Gather", "If", "Cast", "Expand"}.isdisjoint(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if not text.startswith("token_block")])
def test_a_fresh_module_starts_at_the_outputs_scale(text: str) -> None:
    """Mean and deviation of what is added are, per channel, those of what the teacher adds."""
    shape = SHAPES[0]
    module, x = built(text, shape), sample(shape, batch=16)
    target = 5 * sample(shape, batch=16, seed=2) + 3
    matched = match_output(module, x, x + target, share=0.5)
    added = module(x) - x

    assert matched
    torch.testing.assert_close(added.mean((0, 1)), target.mean((0, 1)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(added.std((0, 1)), 0.5 * target.std((0, 1)), rtol=1e-2, atol=1e-3)


def test_a_fresh_block_starts_at_the_outputs_mean() -> None:
    """Both halves of a block together add on average what the teacher adds."""
    module, x = built("token_block(heads=2,dim=8)", SHAPES[0]), sample(SHAPES[0], batch=16)
    target = sample(SHAPES[0], batch=16, seed=2) + 3

    assert match_output(module, x, x + target)
    torch.testing.assert_close((module(x) - x).mean((0, 1)), target.mean((0, 1)), rtol=1e-3, atol=1e-3)


def test_shared_keys_are_the_same_for_all_heads_of_a_group() -> None:
    """With the keys and values repeated for every head, full attention computes the same as grouped."""
    grouped, full = (
        built("token_attention(heads=4,dim=8,kv=2)", (16, 32)),
        built("token_attention(dim=8)", (16, 32)),
    )
    state = grouped.state_dict()
    for name in ("weight", "bias"):
        q, k, v = state[f"body.qkv.{name}"].split([32, 16, 16])
        k, v = (part.reshape(2, 8, -1).repeat_interleave(2, 0).reshape(32, -1) for part in (k, v))
        state[f"body.qkv.{name}"] = torch.cat([part.reshape(32, -1) for part in (q, k, v)]).squeeze(-1)
    full.load_state_dict(state)
    x = sample((16, 32))

    torch.testing.assert_close(grouped(x), full(x), rtol=1e-5, atol=1e-5)


def test_one_window_over_the_whole_grid_is_plain_attention() -> None:
    """A window as large as the grid sees all tokens."""
    window, plain = built("token_window(window=4,dim=8)", (16, 32)), built("token_attention(dim=8)", (16, 32))
    state = {name.replace("body.attention.", "body."): tensor for name, tensor in window.state_dict().items()}
    plain.load_state_dict(state)
    x = sample((16, 32))

    torch.testing.assert_close(window(x), plain(x), rtol=1e-5, atol=1e-5)


def test_windows_do_not_see_each_other() -> None:
    """A change in one window leaves the tokens of the others as they are."""
    module, x = built("token_window(window=2,heads=2,dim=8)", (16, 32)), sample((16, 32), batch=1)
    other = x.clone()
    other[:, 0] = sample(
        (32,), batch=1, seed=4
    )  # the upper left pixel: its window holds the tokens 0, 1, 4, 5
    changed = (module(x) - module(other)).abs().amax((0, 2)) > 1e-6

    assert changed.nonzero().flatten().tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("text", [text for text in EVERY_KIND if text.startswith(ON_GRID)])
def test_the_class_token_learns_what_the_grid_says(text: str) -> None:
    """It depends on itself, and with all but an MLP's convolution on the grid."""
    module, x = built(text, (17, 32)), sample((17, 32), batch=1)
    other = x.clone()
    other[:, 1:] = other[:, 1:].flip(0) + sample((16, 32), batch=1, seed=3)
    seen = (module(x) - module(other))[:, 0].abs().max() > 1e-6

    assert seen == (not text.startswith("token_conv_mlp"))


@pytest.mark.parametrize(
    ("text", "input_shape", "output_shape", "message"),
    [
        ("token_mlp", (8, 4, 4), (8, 4, 4), "it needs tokens"),
        ("token_mlp", (16, 32), (4, 32), "cannot turn"),
        ("token_attention(heads=4,kv=3)", (16, 32), (16, 32), "3 heads of keys do not divide 4"),
        ("token_pool", (18, 32), (18, 32), "18 tokens are no square"),
        ("token_window(window=3)", (17, 32), (17, 32), "window 3 does not divide the grid's side, 4"),
        ("token_window(window=2,heads=4,kv=3)", (17, 32), (17, 32), "3 heads of keys do not divide 4"),
        ("token_reduced_attention(reduce=3)", (17, 32), (17, 32), "reduce 3 does not divide"),
    ],
)
def test_what_does_not_fit_is_refused(
    text: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...], message: str
) -> None:
    """An operation that cannot stand between two shapes says why."""
    with pytest.raises(UnknownOperation, match=message):
        build_operation(parse_operation(text), input_shape, output_shape)


@pytest.mark.parametrize("shape", REAL)
def test_the_pool_has_two_hundred_for_every_transformer(shape: tuple[int, int]) -> None:
    """All fit, their texts are canonical, and no two of a family consist of the same pieces."""
    operations = [make_operation(*choice) for choice in token_pool(shape, shape)]
    computed = set()
    for operation in operations:
        family, parameters = get_family(operation.family), dict(operation.parameters)
        assert family.applies(shape, shape, parameters) is None
        assert family.pieces is not None
        assert parse_operation(operation.text) == operation
        computed.add((operation.family, family.pieces(shape, shape, parameters)))

    assert len(operations) >= 200
    assert len(computed) == len(operations)


@pytest.mark.parametrize("shape", REAL)
def test_the_quick_mix_is_about_ten(shape: tuple[int, int]) -> None:
    """All fit, each once, among them both attention and MLPs."""
    operations = [make_operation(*choice) for choice in token_quick(shape, shape)]
    kinds = {operation.family for operation in operations}

    assert 9 <= len(set(operations)) == len(operations) <= 12
    assert {"token_attention", "token_mlp", "token_linear"} <= kinds
    assert all(
        get_family(one.family).applies(shape, shape, dict(one.parameters)) is None for one in operations
    )


def test_layers_that_change_the_tokens_get_none() -> None:
    """Merging and cutting tokens is nobody's here."""
    assert token_pool((16, 32), (4, 64)) == token_quick((16, 32), (4, 64)) == []
    assert token_pool((8, 4, 4), (8, 4, 4)) == token_quick((8, 4, 4), (8, 4, 4)) == []
