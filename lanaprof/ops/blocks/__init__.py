"""The modules of the families that come with lanaprof.

Each takes (N, *input_shape) and gives (N, *output_shape). They are made of what every exporter and runtime
knows: convolutions, matrix products, norms, activations, means over the pixels, additions.
"""

from lanaprof.ops.blocks.collapsing import RepVGG
from lanaprof.ops.blocks.plain import (
    Basic,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Skip,
)

__all__ = ["Basic", "Bottleneck", "Conv", "DepthwiseSeparable", "FusedMBConv", "MBConv", "RepVGG", "Skip"]
