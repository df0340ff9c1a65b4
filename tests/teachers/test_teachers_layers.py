"""Which submodules are layers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from lanaprof.errors import BadInput
from lanaprof.teachers import Teacher, find_layers, load_attribute, load_teacher, structure_digest


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())


class Odd(nn.Module):
    """One part for each reason why a submodule is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.good = block()
        self.twice = block()
        self.never = block()
        self.pair = nn.Bilinear(4, 4, 4)
        self.several = Several()
        self.flat = nn.Flatten()
        self.named = Named()

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.good(x)))
        x = self.named(scale=x) + self.several(x)[0]
        flat: Tensor = self.flat(x)
        y: Tensor = self.pair(flat[:, :4], flat[:, 4:8])
        return y


class Several(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Named(nn.Module):
    def forward(self, *, scale: Tensor) -> Tensor:
        return scale


class Reversed(nn.Module):
    """Runs its blocks in another order than it holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(), block(), block()])

    def forward(self, x: Tensor) -> Tensor:
        for one in reversed(self.blocks):
            x = one(x)
        return x


def teacher_of(module: nn.Module, shape: tuple[int, ...] = (4, 6, 6)) -> Teacher:
    return Teacher("test:net", module.eval(), shape, "", "", False, {})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("timm:resnet10t", ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]),
        ("timm:test_efficientnet", ["blocks.0.0", "blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0"]),
        ("torchvision:mobilenet_v3_small", [f"features.{i}" for i in range(1, 12)]),
    ],
)
def test_blocks_of_known_networks_are_layers(text: str, names: Sequence[str]) -> None:
    """Without globs the blocks are found, stem and head left out."""
    teacher = load_teacher(text, input_shape=(3, 64, 64))

    assert [layer.name for layer in find_layers(teacher)] == names


def test_torchvisions_efficientnet_is_known() -> None:
    """Its blocks lie one level deeper, its stem and head do not count."""
    teacher = load_teacher("torchvision:efficientnet_b0", input_shape=(3, 32, 32))
    names = [layer.name for layer in find_layers(teacher)]

    assert names[0] == "features.1.0"
    assert names[-1] == "features.7.0"
    assert len(names) == 16


def test_transformer_blocks_take_tokens() -> None:
    """A vision transformer's layers turn (T, D) into (T, D)."""
    teacher = load_teacher("timm:test_vit", input_shape=(3, 64, 64))
    layers = find_layers(teacher)

    assert layers
    assert all(layer.input_shape == layer.output_shape and len(layer.input_shape) == 2 for layer in layers)


def test_shapes_and_parameters_are_the_layers_own(resnet: Teacher) -> None:
    """Shapes leave the batch out; parameters are counted."""
    layer = find_layers(resnet)[1]
    module = resnet.module.get_submodule("layer2.0")

    assert (layer.input_shape, layer.output_shape) == ((64, 8, 8), (128, 4, 4))
    assert layer.params == sum(parameter.numel() for parameter in module.parameters())
    assert not layer.signed  # ends with a ReLU


def test_arithmetic_is_counted() -> None:
    """4 × 4 × 3 × 3 weights at 6 × 6 places, once."""
    module = nn.Sequential(nn.Identity(), block())
    (layer,) = find_layers(teacher_of(module), ["1"])

    assert layer.macs == 4 * 4 * 9 * 36


def test_layers_come_in_the_order_in_which_they_run() -> None:
    """The order is the execution's, whatever the names."""
    layers = find_layers(teacher_of(Reversed()), ["blocks.*"])

    assert [layer.name for layer in layers] == ["blocks.2", "blocks.1", "blocks.0"]


def test_a_plain_list_of_blocks_is_found_without_globs() -> None:
    """A hand-written network's ``blocks`` are its layers."""
    assert len(find_layers(teacher_of(Reversed()))) == 3


def test_globs_do_not_cross_dots(resnet: Teacher) -> None:
    """``layer1.*`` is the block, not what is in it; ranges work."""
    assert [layer.name for layer in find_layers(resnet, ["layer1.*"])] == ["layer1.0"]
    assert [layer.name for layer in find_layers(resnet, ["layer[3-4].0", "layer1.0"])] == [
        "layer1.0", "layer3.0", "layer4.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("globs", "message"),
    [
        (["twice"], "'twice' is called 2 times"),
        (["never"], "'never' is not called when the teacher runs"),
        (["pair"], "'pair' takes 2 inputs"),
        (["named"], "'named' takes 1 inputs or something else"),
        (["several"], "'several' gives 2 outputs instead of one tensor"),
        (["flat"], "'flat' turns 4×6×6 into 144, neither images nor tokens"),
        (["good", "good.0"], "'good.0' lies inside the layer 'good'"),
        (["nothing.*"], "no submodule matches --layers 'nothing.*'"),
    ],
)
def test_what_is_no_layer_is_refused(globs: Sequence[str], message: str) -> None:
    """The message says why."""
    with pytest.raises(BadInput) as caught:
        find_layers(teacher_of(Odd()), globs)

    assert message in caught.value.message


def test_what_could_be_a_layer_is_listed() -> None:
    """The hint names the fitting submodules with their shapes."""
    with pytest.raises(BadInput) as caught:
        find_layers(teacher_of(Odd()), ["twice"])

    assert "good: Sequential 4×6×6 to 4×6×6" in caught.value.hint
    assert "never" not in caught.value.hint


def test_an_unknown_kind_of_network_asks_for_layers() -> None:
    """Nothing is guessed; the user sees what there is."""
    with pytest.raises(BadInput, match="the layers of 'test:net' are not known") as caught:
        find_layers(teacher_of(Odd()))

    assert "--layers 'stages.*.*'" in caught.value.hint
    assert "good: Sequential" in caught.value.hint


def test_looking_leaves_no_hooks(resnet: Teacher) -> None:
    """The teacher runs at full speed afterwards."""
    find_layers(resnet)

    assert not any(child._forward_hooks or child._forward_pre_hooks for child in resnet.module.modules())


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 1)
        self.factor = factor

    def forward(self, x):
        return self.conv(x) * self.factor{more}
"""


@pytest.fixture
def net_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Make the class Net of a module of its own project, with a forward method that ends as given."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(more: str) -> Any:
        folder = tmp_path / f"project{more}"
        folder.mkdir(exist_ok=True)
        (folder / "scaled_net.py").write_text(NET.format(more=more))
        return load_attribute("scaled_net:Net", search_path=folder)

    yield make
    sys.modules.pop("scaled_net", None)


def test_a_structure_leaves_the_weights_out(net_of: Callable[[str], Any]) -> None:
    """Equal modules with other weights have one digest; the mode does not count."""
    net = net_of("")

    assert structure_digest(net()) == structure_digest(net().eval())


def test_a_structure_sees_plain_values(net_of: Callable[[str], Any]) -> None:
    """A number that the forward method uses and no printout shows counts."""
    net = net_of("")

    assert repr(net(2.0)) == repr(net(3.0))
    assert structure_digest(net(2.0)) != structure_digest(net(3.0))


def test_a_structure_sees_the_forward_method(net_of: Callable[[str], Any]) -> None:
    """Two classes of one name that compute different things are different."""
    plain = net_of("")()
    before = structure_digest(plain)
    squared = net_of(" ** 2")()

    assert repr(squared) == repr(plain)
    assert structure_digest(squared) != before


def test_a_structure_sees_what_is_around(net_of: Callable[[str], Any]) -> None:
    """A module and the same module in a sequence have different names for their weights."""
    net = net_of("")()

    assert structure_digest(nn.Sequential(net)) != structure_digest(net)
