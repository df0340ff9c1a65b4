"""The modules of the families that come with lanaprof.

Each takes (N, *input_shape) and gives (N, *output_shape). They are made of what every exporter and runtime
knows: convolutions, matrix products, norms, activations, means over the pixels, additions.
"""

from lanaprof.ops.blocks.attention import GlobalAttention, OutlookAttention, PoolMixer, WindowAttention
from lanaprof.ops.blocks.collapsing import CollapsibleLinear, DiverseBranch, MobileOne, RepVGG
from lanaprof.ops.blocks.dense import Dilated, LowRank, SplitAttention
from lanaprof.ops.blocks.mobile import (
    ConvNeXt,
    EfficientChannelAttention,
    Ghost,
    Partial,
    Shuffle,
    UniversalInverted,
)
from lanaprof.ops.blocks.plain import (
    Basic,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Skip,
)

__all__ = [
    "Basic",
    "Bottleneck",
    "CollapsibleLinear",
    "Conv",
    "ConvNeXt",
    "DepthwiseSeparable",
    "Dilated",
    "DiverseBranch",
    "EfficientChannelAttention",
    "FusedMBConv",
    "Ghost",
    "GlobalAttention",
    "LowRank",
    "MBConv",
    "MobileOne",
    "OutlookAttention",
    "Partial",
    "PoolMixer",
    "RepVGG",
    "Shuffle",
    "Skip",
    "SplitAttention",
    "UniversalInverted",
    "WindowAttention",
]
