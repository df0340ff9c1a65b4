"""slim: candidates made from the teacher's own layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
import torchvision
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm2d
from timm.models._efficientnet_blocks import (
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    SqueezeExcite,
    UniversalInvertedResidual,
)
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionInvertedResidual

from lanaprof.errors import UnknownOperation
from lanaprof.ops import build_operation, fuse, operations_for, parse_operation, why_not_from
from lanaprof.ops.build import seeded
from lanaprof.profiler.export import exported_model
from lanaprof.teachers import AttentionHalf, MlpHalf, split_blocks

Shape = tuple[int, ...]
SMALL_GATE: Any = partial(SqueezeExcite, rd_ratio=1 / 16)


class HandWritten(nn.Module):
    """Two convolutions beside a shortcut, with functions for activations."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PaddedBlock(nn.Module):
    """As in efficientnet_lite_pytorch: the padding is a module of the convolution, the activation is shared."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self._expand_conv = nn.Conv2d(channels, hidden, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(hidden)
        self._depthwise_conv = _PaddedConv2d(hidden, hidden, kernel, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden)
        self._project_conv = nn.Conv2d(hidden, channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels)
        self._swish = nn.ReLU6()

    def forward(self, inputs: Tensor, drop_connect_rate: float | None = None) -> Tensor:
        """Return x plus the branch."""
        del drop_connect_rate
        x = self._swish(self._bn0(self._expand_conv(inputs)))
        x = self._swish(self._bn1(self._depthwise_conv(x)))
        branch: Tensor = self._bn2(self._project_conv(x))
        return inputs + branch


class _PaddedConv2d(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int, bias: bool) -> None:
        super().__init__(inputs, outputs, kernel, groups=groups, bias=bias)
        self.static_padding = nn.ZeroPad2d(kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad, then convolve."""
        padded: Tensor = self.static_padding(x)
        return nn.functional.conv2d(padded, self.weight, self.bias, groups=self.groups)


def _uib() -> nn.Module:
    return UniversalInvertedResidual(16, 16, dw_kernel_size_start=3, dw_kernel_size_mid=5, exp_ratio=4.0)


def _resnext() -> nn.Module:
    return Bottleneck(256, 64, cardinality=32, base_width=4)


def _regnet() -> nn.Module:
    return timm.create_model("regnety_002", pretrained=False).get_submodule("s2.b1")


def _torchvision(name: str, layer: str) -> nn.Module:
    found: nn.Module = getattr(torchvision.models, name)().get_submodule(layer)
    return found


def _torchvision_attention() -> nn.Module:
    network = torchvision.models.VisionTransformer(16, 8, 1, 4, 48, 96)
    split_blocks(network, (3, 16, 16))
    found: nn.Module = network.get_submodule("encoder.layers.encoder_layer_0.attention")
    return found


# name → (makes the block, its input's shape)
BLOCKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "inverted residual": (lambda: InvertedResidual(16, 16, 5, exp_ratio=4.0), (16, 8, 8)),
    "inverted residual, strided": (lambda: InvertedResidual(16, 24, stride=2, exp_ratio=4.0), (16, 8, 8)),
    "inverted residual, gated": (
        lambda: InvertedResidual(16, 16, exp_ratio=4.0, se_layer=SMALL_GATE),
        (16, 8, 8),
    ),
    "edge residual": (lambda: EdgeResidual(16, 16, exp_ratio=4.0), (16, 8, 8)),
    "universal inverted bottleneck": (_uib, (16, 8, 8)),
    "convnext": (lambda: ConvNeXtBlock(16, ls_init_value=0.5), (16, 8, 8)),
    "convnext, convolutions": (
        lambda: ConvNeXtBlock(16, conv_mlp=True, norm_layer=LayerNorm2d, ls_init_value=0.5),
        (16, 8, 8),
    ),
    "convnext 2": (lambda: ConvNeXtBlock(16, use_grn=True, ls_init_value=None), (16, 8, 8)),
    "basic": (lambda: BasicBlock(32, 32), (32, 8, 8)),
    "bottleneck": (lambda: Bottleneck(64, 16), (64, 8, 8)),
    "bottleneck of groups": (_resnext, (256, 8, 8)),
    "regnet, gated": (_regnet, (24, 8, 8)),
    "split attention": (lambda: ResNestBottleneck(64, 16, radix=2, avd=True), (64, 8, 8)),
    "attention": (
        lambda: AttentionHalf(nn.LayerNorm(48), Attention(48, 4), nn.Identity(), nn.Identity()),
        (9, 48),
    ),
    "torchvision's attention": (_torchvision_attention, (5, 48)),
    "mlp": (lambda: MlpHalf(nn.LayerNorm(48), Mlp(48, 192), nn.Identity(), nn.Identity()), (9, 48)),
    "torchvision's MBConv": (lambda: _torchvision("efficientnet_b0", "features.2.1"), (24, 8, 8)),
    "torchvision's inverted residual": (
        lambda: TorchvisionInvertedResidual(16, 16, 1, 4),
        (16, 8, 8),
    ),
    "hand-written": (lambda: HandWritten(16, 32, 2), (16, 8, 8)),
    "padded": (lambda: PaddedBlock(16, 64, 5), (16, 8, 8)),
}


def block(name: str) -> nn.Module:
    """Return a block with its own random weights and statistics, none of them at its first value."""
    make, shape = BLOCKS[name]
    with seeded(1):
        made = make().train()
        with torch.no_grad():
            for child in made.modules():
                if isinstance(child, nn.BatchNorm2d):
                    child.weight.uniform_(0.5, 1.5)
                    child.bias.uniform_(-0.2, 0.2)
            for _ in range(3):
                made(torch.randn(4, *shape))
    return made.eval()


def run(module: nn.Module, x: Tensor) -> Tensor:
    """Return what the module gives, in eval mode."""
    module.eval()
    with torch.no_grad():
        result: Tensor = module(x)
    return result


def slimmed(name: str, text: str) -> tuple[Any, Any, Tensor]:
    """Return a block, what slim makes of it, and an input."""
    teacher, shape = block(name), BLOCKS[name][1]
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    output_shape = tuple(run(teacher, x).shape[1:])
    return teacher, build_operation(parse_operation(text), shape, output_shape, teacher=teacher), x


def size(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_half_a_block_has_the_shapes_and_fewer_weights(name: str) -> None:
    """It is of the layer's own class, in training mode, trainable, smaller, and gives the layer's shape."""
    teacher, made, x = slimmed(name, "slim")

    assert type(made) is type(teacher)
    assert made.training
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert size(made) < 0.8 * size(teacher)
    assert run(made, x).shape == run(teacher, x).shape


@pytest.mark.parametrize("name", BLOCKS)
def test_the_teacher_stays_and_shares_nothing(name: str) -> None:
    """Building changes no weight of the layer, and training what is built changes none either."""
    teacher, made, _ = slimmed(name, "slim")
    before = copy.deepcopy(block(name).state_dict())
    with torch.no_grad():
        for value in (*made.parameters(), *made.buffers()):
            value.fill_(7)

    after = teacher.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", BLOCKS)
def test_it_runs_the_same_in_onnx_runtime(name: str) -> None:
    """Narrowed and exported, it computes what torch computes."""
    _, made, x = slimmed(name, "slim(width=0.25)")
    with torch.no_grad():
        made(x)
    expected = run(made, x)

    model = exported_model(fuse(made), tuple(x.shape)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "makes", "takes", "inner"),
    [
        ("inverted residual", "conv_pw.weight", "conv_pwl.weight", 64),
        ("inverted residual, gated", "conv_pw.weight", "conv_pwl.weight", 64),
        ("edge residual", "conv_exp.weight", "conv_pwl.weight", 64),
        ("basic", "conv1.weight", "conv2.weight", 32),
        ("convnext", "mlp.fc1.weight", "mlp.fc2.weight", 64),
        ("hand-written", "conv1.weight", "conv2.weight", 32),
        ("padded", "_expand_conv.weight", "_project_conv.weight", 64),
    ],
)
def test_what_matters_nothing_is_dropped_first(name: str, makes: str, takes: str, inner: int) -> None:
    """A block half of whose inner channels, spread at random, do nothing gives the same without them."""
    teacher, shape = block(name), BLOCKS[name][1]
    idle = torch.randperm(inner, generator=torch.Generator().manual_seed(3))[: inner // 2]
    with torch.no_grad():
        teacher.get_parameter(makes).index_fill_(0, idle, 0.0)
        teacher.get_parameter(takes).index_fill_(1, idle, 0.0)
        if "gated" in name:  # a gate that does not depend on x, whichever of its own channels are dropped
            teacher.get_parameter("se.conv_reduce.bias").fill_(-1000.0)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    expected = run(teacher, x)

    made = build_operation(parse_operation("slim"), shape, tuple(expected.shape[1:]), teacher=teacher)

    used = torch.tensor(sorted(set(range(inner)) - set(idle.tolist())))
    assert torch.equal(made.get_parameter(makes), teacher.get_parameter(makes)[used])
    assert torch.allclose(run(made, x), expected, rtol=1e-5, atol=1e-5)


def test_more_of_the_block_is_nearer_to_it() -> None:
    """The error before any training falls with the width."""
    errors = []
    for width in ("0.125", "0.5", "0.875"):
        teacher, made, x = slimmed("inverted residual", f"slim(width={width})")
        errors.append(float((run(made, x) - run(teacher, x)).square().mean()))

    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[2] > 0


@pytest.mark.parametrize("name", ["inverted residual, gated", "bottleneck of groups", "attention"])
def test_shapes_follow_from_structure_alone(name: str) -> None:
    """Other weights give other channels but the same shapes: what was trained fits whatever it is built from."""
    _, made, _ = slimmed(name, "slim")
    make, shape = BLOCKS[name]
    with seeded(9):
        other = make().eval()
    output_shape = tuple(run(other, torch.zeros(2, *shape)).shape[1:])
    again = build_operation(parse_operation("slim"), shape, output_shape, teacher=other)

    again.load_state_dict(made.state_dict())


def test_the_same_layer_gives_the_same_bits() -> None:
    """Nothing about it is left to chance, not to the seed either."""
    teacher, shape = block("regnet, gated"), BLOCKS["regnet, gated"][1]
    output_shape = tuple(run(teacher, torch.zeros(1, *shape)).shape[1:])
    first, second = (
        build_operation(
            parse_operation("slim"), shape, output_shape, teacher=copy.deepcopy(teacher), seed=seed
        )
        for seed in (1, 2)
    )

    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_channels_come_in_multiples_of_eight() -> None:
    """Sixteen or more are rounded; the few of a gate are counted one by one."""
    _, made, _ = slimmed("inverted residual, gated", "slim(width=0.4)")

    assert made.conv_pw.out_channels == made.conv_dw.groups == made.bn2.num_features == 24
    assert made.se.conv_reduce.out_channels == 2


def test_many_groups_are_dropped_whole() -> None:
    """Of 32 narrow groups half stay, each as wide as before."""
    teacher, made, _ = slimmed("bottleneck of groups", "slim")

    assert (teacher.conv2.groups, made.conv2.groups) == (32, 16)
    assert made.conv2.weight.shape[1] == teacher.conv2.weight.shape[1]


def test_few_wide_groups_become_narrower() -> None:
    """Of two groups of split attention both stay, each with half its channels."""
    teacher, made, _ = slimmed("split attention", "slim")

    assert made.conv2.conv.groups == teacher.conv2.conv.groups == 2
    assert made.conv2.conv.out_channels == teacher.conv2.conv.out_channels // 2


def test_attention_loses_whole_heads() -> None:
    """Two of four heads are left, as wide as before; the hidden layer of the MLP is halved."""
    with seeded(1):
        teacher = Block(48, 4).eval()
    made: Any = build_operation(parse_operation("slim"), (9, 48), (9, 48), teacher=teacher)

    assert (made.attn.num_heads, made.attn.head_dim) == (2, teacher.attn.head_dim)
    assert made.attn.qkv.weight.shape == (3 * 2 * 12, 48)
    assert made.mlp.fc1.out_features == 96


def test_kernels_are_cropped_to_their_centre() -> None:
    """A 5 × 5 kernel keeps its inner 3 × 3; the size of what comes out stays, whoever pads."""
    for name, weight in (("inverted residual", "conv_dw.weight"), ("padded", "_depthwise_conv.weight")):
        teacher, made, x = slimmed(name, "slim(width=1,kernel=3)")

        assert torch.equal(made.get_parameter(weight), teacher.get_parameter(weight)[..., 1:4, 1:4])
        assert run(made, x).shape == run(teacher, x).shape


def test_a_cropped_kernel_with_idle_edges_computes_the_same() -> None:
    """Cropping shifts nothing."""
    teacher = block("padded")
    with torch.no_grad():
        weight = teacher.get_parameter("_depthwise_conv.weight")
        centre = weight[..., 1:4, 1:4].clone()
        weight.zero_()[..., 1:4, 1:4] = centre
    x = torch.randn(2, 16, 8, 8)
    made = build_operation(parse_operation("slim(width=1,kernel=3)"), (16, 8, 8), (16, 8, 8), teacher=teacher)

    assert torch.allclose(run(made, x), run(teacher, x), atol=1e-6)


def test_gates_are_dropped() -> None:
    """What is left is the block without its squeeze-and-excitation."""
    teacher, made, x = slimmed("inverted residual, gated", "slim(width=1,se=drop)")
    teacher.se = nn.Identity()

    assert torch.equal(run(made, x), run(teacher, x))


def test_activations_inside_are_replaced_and_the_last_one_is_not() -> None:
    """What ends the block must be able to give what the teacher's gives."""
    with seeded(1):
        teacher = BasicBlock(32, 32, act_layer=nn.SiLU).eval()
    made: Any = build_operation(
        parse_operation("slim(width=1,act=relu6)"), (32, 8, 8), (32, 8, 8), teacher=teacher
    )

    assert type(made.act1) is nn.ReLU6
    assert type(made.act2) is nn.SiLU


def test_an_activation_of_several_places_is_replaced_in_all() -> None:
    """efficientnet_lite_pytorch runs one module twice."""
    _, made, _ = slimmed("padded", "slim(act=hswish)")

    assert type(made._swish) is nn.Hardswish


def test_dropping_at_random_is_switched_off() -> None:
    """A teacher in eval mode is to be learnt from: noise would only disturb that."""
    with seeded(1):
        teacher = Block(48, 4, drop_path=0.9, proj_drop=0.9, attn_drop=0.9).eval()
    made = build_operation(parse_operation("slim"), (9, 48), (9, 48), teacher=teacher).train()
    x = torch.randn(2, 9, 48)

    assert torch.equal(made(x), made(x))


class Mixing(nn.Module):
    """Mixes its inner channels in a way nothing is known about."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 32, 1)
        self.second = nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the branch added."""
        branch: Tensor = self.second(self.first(x).cumsum(1))
        return x + branch


class Counting(nn.Module):
    """Has its inner size in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 32, 1)
        self.second = nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the branch added."""
        left, right = self.first(x).split([16, 16], dim=1)
        branch: Tensor = self.second(torch.cat([left, right.relu()], dim=1))
        return x + branch


def _gated_depthwise() -> nn.Module:
    return DepthwiseSeparableConv(16, 16, se_layer=SqueezeExcite, noskip=False)


@pytest.mark.parametrize(
    ("make", "text", "reason"),
    [
        (Mixing, "slim", "no channels inside it can be dropped: its channels pass through cumsum"),
        (Counting, "slim", "its code counts on its sizes"),
        (_gated_depthwise, "slim", "only its squeeze-and-excitation could be narrower"),
        (lambda: BasicBlock(16, 16), "slim(width=0.95)", "it is too narrow: rounded, 0.95 of its channels"),
        (lambda: nn.Conv2d(16, 16, 3, 1, 1), "slim", "all its channels are its input's or its output's"),
        (lambda: BasicBlock(16, 16), "slim(se=drop)", "it has no squeeze-and-excitation of its own to drop"),
        (lambda: BasicBlock(16, 16), "slim(kernel=3)", "it has no kernel larger than 3"),
        (
            lambda: BasicBlock(16, 16),
            "slim(act=relu)",
            "it has no activation inside that is not relu already",
        ),
        (lambda: BasicBlock(16, 16), "slim(width=1)", "it would change nothing: that is teacher"),
        (lambda: nn.Conv2d(8, 16, 3), "slim", "it cannot be run by itself"),
    ],
)
def test_what_cannot_be_slimmed_is_refused_in_words(
    make: Callable[[], nn.Module], text: str, reason: str
) -> None:
    """The same words whether one asks or builds."""
    operation, layer, shape = parse_operation(text), make().eval(), (16, 8, 8)

    assert reason in (why_not_from(operation, layer, shape, shape) or "it fits")
    with pytest.raises(UnknownOperation) as caught:
        build_operation(operation, shape, shape, teacher=layer)
    assert reason in caught.value.message


def test_without_the_layer_it_is_refused() -> None:
    """The message says what is missing and how to give it."""
    with pytest.raises(UnknownOperation, match="needs the teacher's own layer") as caught:
        build_operation(parse_operation("slim"), (16, 8, 8), (16, 8, 8))

    assert "teacher=" in caught.value.hint


def test_a_layer_changed_in_place_is_looked_at_anew() -> None:
    """What is remembered of a layer holds as long as the layer is what it was."""
    layer, shape = HandWritten(16, 16, 1).eval(), (16, 8, 8)
    slim = parse_operation("slim")
    assert why_not_from(slim, layer, shape, shape) is None

    layer.conv1, layer.bn1 = nn.Conv2d(16, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
    layer.conv2 = nn.Conv2d(8, 16, 3, 1, 1, bias=False)

    made: Any = build_operation(slim, shape, shape, teacher=layer)
    assert made.conv1.out_channels == 4


def test_quick_offers_the_layer_narrower() -> None:
    """Half and three quarters stand beside the others; without the layer neither does."""
    layer, shape = block("basic"), BLOCKS["basic"][1]

    found = [operation.text for operation in operations_for("quick", shape, shape, teacher=layer)]
    without = [operation.text for operation in operations_for("quick", shape, shape)]

    assert found == [*without, "slim", "slim(width=0.75)"]


def test_quick_offers_one_of_two_widths_that_round_to_the_same() -> None:
    """Of 24 channels both are 16."""
    layer, shape = BasicBlock(24, 24).eval(), (24, 8, 8)

    found = [operation.text for operation in operations_for("quick", shape, shape, teacher=layer)]

    assert [text for text in found if text.startswith("slim")] == ["slim"]


def test_a_file_offers_what_can_be_made_of_the_layer(tmp_path: Path) -> None:
    """A line that fits the shapes but not the layer is left out of this layer's candidates."""
    path, shape = tmp_path / "ops.txt", (16, 8, 8)
    path.write_text("slim\nslim(kernel=3)\nslim(se=drop)\n")

    found = operations_for(path, shape, shape, teacher=block("inverted residual"))

    assert [operation.text for operation in found] == ["teacher", "slim", "slim(kernel=3)"]
