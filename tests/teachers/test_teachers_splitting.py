"""Transformer blocks in two halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lanaprof.profiler.export import exported_model
from lanaprof.teachers import (
    SplitBlock,
    Teacher,
    assemble,
    bare_teacher,
    find_layers,
    load_teacher,
    make_space,
    split_blocks,
)


def timm_vit(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    network: nn.Module = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5, **options
    )
    return network


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    net: nn.Module = VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    nn.init.normal_(net.get_parameter("heads.head.weight"))  # zero at birth: all outputs would be equal
    return net


@pytest.fixture(params=["plain", "scaled", "torchvision"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A small transformer with random weights: timm's, with layer scale and normed keys, torchvision's."""
    torch.manual_seed(0)
    if request.param == "torchvision":
        return torchvision_vit().eval()
    return timm_vit(**({"init_values": 0.3, "qk_norm": True} if request.param == "scaled" else {})).eval()


@pytest.fixture(scope="module")
def vit() -> Teacher:
    """timm's test network: six blocks of 17 tokens with 64 channels."""
    return load_teacher("timm:test_vit?num_classes=10", input_shape=(3, 64, 64))


def images(size: int = 16, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_split_blocks_compute_the_same(network: nn.Module) -> None:
    """Outputs before and after are equal, timm's bit for bit, and differ between images."""
    expected = network(images())
    replaced = split_blocks(network, (3, 16, 16))
    actual = network(images())

    assert replaced == 2
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert type(network).__module__.startswith("torchvision") or torch.equal(actual, expected)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)


def test_splitting_keeps_every_weight(network: nn.Module) -> None:
    """The halves hold the blocks' own parameters, none more, none less."""
    before = {id(parameter) for parameter in network.parameters()}
    split_blocks(network, (3, 16, 16))

    assert {id(parameter) for parameter in network.parameters()} == before


def test_stochastic_depth_stays_while_training() -> None:
    """A split network drops the branches that the whole one drops."""
    torch.manual_seed(0)
    whole = timm_vit(drop_path_rate=0.5).train()
    torch.manual_seed(3)
    expected = whole(images())
    split_blocks(whole, (3, 16, 16))
    torch.manual_seed(3)

    assert torch.equal(whole(images()), expected)


def test_a_block_with_a_mask_stays_whole() -> None:
    """A block that gets more than the tokens is not touched."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = timm_vit().eval()

        def forward(self, x: Tensor) -> Tensor:
            features: Tensor = self.net.forward_features(x, is_causal=True)  # type: ignore[operator]
            return features

    assert split_blocks(Masked(), (3, 16, 16)) == 0


def test_a_subclass_of_a_block_stays_whole() -> None:
    """What another class computes is not known."""
    from timm.models.vision_transformer import Block

    class Other(Block):
        pass

    assert split_blocks(nn.Sequential(nn.Flatten(2), Other(16, 2)), (3, 4, 4)) == 0


def test_attention_and_mlp_are_layers(vit: Teacher) -> None:
    """A vision transformer's layers are the halves of its blocks, tokens to tokens, in turn."""
    layers = find_layers(vit)

    assert [layer.name for layer in layers[:3]] == [
        "blocks.0.attention",
        "blocks.0.mlp",
        "blocks.1.attention",
    ]
    assert len(layers) == 12
    assert {(layer.input_shape, layer.output_shape) for layer in layers} == {((17, 64), (17, 64))}


def test_the_products_of_attention_are_counted(vit: Teacher) -> None:
    """Four maps of 64 to 64 channels for 17 tokens, and the two products of all tokens with all others."""
    layer = find_layers(vit)[0]

    assert layer.macs == 17 * 4 * 64 * 64 + 2 * 17 * 17 * 64


def test_whole_blocks_may_still_be_named(vit: Teacher) -> None:
    """``blocks.*`` takes both halves as one layer."""
    assert [layer.name for layer in find_layers(vit, ["blocks.*"])] == [f"blocks.{i}" for i in range(6)]


def test_skipping_a_half_drops_its_branch(vit: Teacher) -> None:
    """Without all its halves the network is patches and head alone."""
    space = make_space(vit, find_layers(vit))
    bare = assemble(vit, [(layer.name, "skip") for layer in space.layers], space=space)
    assert isinstance(bare.blocks, nn.Sequential)
    x = torch.randn(1, 17, 64)

    assert torch.equal(bare.blocks(x), x)


def test_the_digest_is_that_of_the_weights_as_published(tmp_path: Path) -> None:
    """A file with the library's own names fits, and splitting does not change the digest."""
    import timm

    from lanaprof.teachers import state_digest

    torch.manual_seed(4)
    source = timm.create_model("test_vit", num_classes=7)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    teacher = load_teacher(
        "timm:test_vit", weights=tmp_path / "weights.safetensors", input_shape=(3, 160, 160)
    )

    assert teacher.weights_digest == state_digest(source)
    assert isinstance(teacher.module.get_submodule("blocks.0"), SplitBlock)
    x = images(160, batch=1)
    torch.testing.assert_close(teacher.module(x), source.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_bare_teacher_is_split_too() -> None:
    """A student's weights, named as in the split network, fit the bare network."""
    text = "timm:test_vit?num_classes=3"
    state = load_teacher(text, input_shape=(3, 64, 64)).module.state_dict()
    bare = bare_teacher(text, state, input_shape=(3, 64, 64))

    assert list(bare.state_dict()) == list(state)


def test_split_networks_export(network: nn.Module) -> None:
    """ONNX Runtime computes what the split network computes."""
    split_blocks(network, (3, 16, 16))
    model = exported_model(network, (1, 3, 16, 16)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": images(batch=1).numpy()})

    np.testing.assert_allclose(actual, network(images(batch=1)).detach().numpy(), rtol=1e-4, atol=1e-5)
