"""G-Ghost: a stage whose deep features are partly computed by narrow blocks and partly derived from its first ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lanaprof.errors import UnknownOperation
from lanaprof.ops.blocks.parts import ACTIVATION_MODULES, Residual, conv_norm, start_norms
from lanaprof.ops.blocks.plain import Basic, MBConv
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.ops.families.shapes import round_channels
from lanaprof.ops.family import Shape

__all__ = ["GGhost"]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The operation's parameters, as in its text."""

    share: float
    block: str
    expand: float
    kernel: int
    end: str
    act: str
    out: str


class GGhost(nn.Module):
    """The stage of Han et al., GhostNets on Heterogeneous Devices via Cheap Operations (arXiv 2201.03297).

    The run's first layer is kept. Of its C channels the first ``(1 − share) · C`` go on through narrow blocks, one for
    each further layer: the intrinsic features. The others become the ghost features by a pointwise convolution, with
    what the stage computed mixed in: the means over the pixels of the first layer's and all narrow blocks' outputs,
    through a linear layer. With ``end="keep"`` the run's last layer stands behind both, and there is a narrow block
    less, as in the authors' program. Where theirs has the network's own block with fewer channels, this has one of
    the families: a teacher's block rarely knows what it is at another width.

    Args:
        layer: the teacher's layers, a LayerRun; copied, so that what is kept starts from the teacher's weights.
        input_shape: of one sample, (C, H, W).
        output_shape: of one sample; every layer of the run gives this shape.
        parameters: the family's: ``share`` of the channels that are ghosts; ``block`` of reduced width with ``expand``
            hidden channels over its own and its ``kernel``; ``end``; the activations ``act`` inside and ``out``, of the
            blocks and the ghosts.

    Raises:
        UnknownOperation: the layers are no such run; the message says why.
    """

    def __init__(self, layer: nn.Module, input_shape: Shape, output_shape: Shape, **parameters: Any) -> None:
        super().__init__()
        del input_shape  # the first layer is kept: it fits
        wanted = _Wanted(**parameters)
        reason = _misfit(layer, output_shape, wanted)
        if reason is not None:
            raise UnknownOperation(f"g_ghost does not fit: {reason}", hint="choose another operation")
        assert isinstance(layer, LayerRun)
        ghosts = round_channels(output_shape[0] * wanted.share)
        narrow = (output_shape[0] - ghosts, *output_shape[1:])
        self.sizes = [narrow[0], ghosts]
        kept = list(layer)
        self.first = copy.deepcopy(kept[0])
        count = len(kept) - (2 if wanted.end == "keep" else 1)
        self.blocks = nn.ModuleList(_narrow_block(narrow, wanted) for _ in range(count))
        self.cheap = conv_norm(ghosts, ghosts, kernel=1)
        self.mix = nn.Conv2d(output_shape[0] + count * narrow[0], ghosts, 1)
        self.out = ACTIVATION_MODULES[wanted.out]()
        self.last = copy.deepcopy(kept[-1]) if wanted.end == "keep" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, *output_shape) for (N, *input_shape)."""
        first = self.first(x)
        intrinsic, rest = torch.split(first, self.sizes, 1)
        means = [first.mean((2, 3), keepdim=True)]
        for block in self.blocks:
            intrinsic = block(intrinsic)
            means.append(intrinsic.mean((2, 3), keepdim=True))
        ghosts = self.out(self.cheap(rest) + self.mix(torch.cat(means, 1)))
        result: Tensor = self.last(torch.cat((intrinsic, ghosts), 1))
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Start ghosts and narrow blocks near the teacher's output; see lanaprof.ops.match_output.

        In front of the run's last layer its output is a stand-in for its input: both lie on the same residual path.
        """
        was_training = self.training
        self.first.eval()
        with torch.no_grad():
            first = self.first(x.clone())
        self.first.train(was_training)
        kept, ghosts = torch.split(y, self.sizes, 1)
        norm = self.cheap[1]
        assert isinstance(norm, nn.BatchNorm2d)
        start_norms([norm], ghosts, share)
        before, step = first[:, : self.sizes[0]], 1 / len(self.blocks)
        for block in self.blocks:  # each goes an equal part of the way from the first layer's output
            after = before + (kept - first[:, : self.sizes[0]]) * step
            cast("Residual", block).match_output(before, after, share)
            before = after
        with torch.no_grad():  # the mixing begins silent: the norm has set the scale
            self.mix.weight.zero_()
            assert self.mix.bias is not None
            self.mix.bias.zero_()

    @staticmethod
    def why_not(layer: nn.Module, input_shape: Shape, output_shape: Shape, **parameters: Any) -> str | None:
        """Return why a stage cannot be made from these layers, or None where it can."""
        reason = _misfit(layer, output_shape, _Wanted(**parameters))
        if reason is not None:
            return reason
        for number, shape in enumerate(_shapes(layer, input_shape), start=1):
            if shape != tuple(output_shape):
                return f"layer {number} of the run gives {shape} instead of {tuple(output_shape)}"
        return None


def _misfit(layer: nn.Module, output_shape: Shape, wanted: _Wanted) -> str | None:
    """Return what can be said against these layers without running them."""
    if not isinstance(layer, LayerRun):
        return "it stands for several layers"
    least = 3 if wanted.end == "keep" else 2
    if len(layer) < least:
        return f"with end={wanted.end} it needs {least} layers, not {len(layer)}"
    if output_shape[0] - round_channels(output_shape[0] * wanted.share) < 8:
        return f"of {output_shape[0]} channels none are left to compute"
    return None


def _narrow_block(shape: Shape, wanted: _Wanted) -> Residual:
    if wanted.block == "basic":
        return Basic(shape, shape, kernel=wanted.kernel, width=wanted.expand, act=wanted.act, out=wanted.out)
    return MBConv(
        shape, shape, expand=wanted.expand, kernel=wanted.kernel, se=0.0, act=wanted.act, out=wanted.out
    )


def _shapes(layer: nn.Module, input_shape: Shape) -> list[Shape]:
    """Return what each layer of a run gives for one sample, the teacher's modes and weights left as they are."""
    own = copy.deepcopy(layer).eval()
    try:
        return _given(
            own.to("meta"), torch.zeros(2, *input_shape, device="meta")
        )  # shapes alone: no arithmetic
    except (RuntimeError, NotImplementedError):  # a layer that makes tensors of its own makes them elsewhere
        return _given(copy.deepcopy(layer).eval(), torch.zeros(2, *input_shape))


def _given(layers: nn.Module, x: Tensor) -> list[Shape]:
    shapes = []
    with torch.no_grad():
        for one in cast("LayerRun", layers):
            x = one(x)
            shapes.append(tuple(x.shape[1:]))
    return shapes
