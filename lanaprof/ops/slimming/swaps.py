"""Cheaper parts for a block: smaller kernels, other activations, no squeeze-and-excitation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import ACTIVATION_MODULES

__all__ = ["crop_kernels", "find_activations", "find_gates", "replace_parts", "silence"]

_GATES = re.compile(
    r"SqueezeExcite|SqueezeExcitation|SqueezeExcitationLite|SEModule|SELayer|SEBlock|SE|SEUnit|SqEx|"
    r"EffectiveSEModule|EffectiveSqueezeExcite|EcaModule|CecaModule|SqueezeAndExcite"
)
_ACTIVATIONS = re.compile(
    r"ReLU|ReLU6|LeakyReLU|PReLU|ELU|CELU|SELU|SiLU|Swish|SwishMe|SwishJit|MemoryEfficientSwish|Mish|MishMe|"
    r"Hardswish|HardSwish|HardswishMe|HardSwishMe|HardSwishJit|GELU|GELUTanh|QuickGELU|StarReLU"
)


def replace_parts(module: nn.Module, names: Iterable[str], make: Callable[[], nn.Module]) -> None:
    """Put a fresh module in the place of each named one."""
    for name in names:
        parent_name, _, own_name = name.rpartition(".")
        setattr(module.get_submodule(parent_name), own_name, make())


def find_gates(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the block's squeeze-and-excitation modules and their like."""
    return tuple(
        name
        for name, child in module.named_modules()
        if name and any(_GATES.fullmatch(kind.__name__) for kind in type(child).__mro__)
    )


def find_activations(module: nn.Module, act: str, run: Callable[[], Any]) -> tuple[str, ...]:
    """Return the names of the activations inside a block that are of another kind.

    The last one, where the block ends with it, is left out: what comes out must be able to take the teacher's
    values.

    Args:
        module: the block.
        act: one of ACTIVATION_MODULES.
        run: calls the block and returns what it gives, to see which activation is the last.
    """
    wanted = ACTIVATION_MODULES[act]
    # under every name, as the same one may stand in several places
    found = [
        (name, child)
        for name, child in module.named_modules(remove_duplicate=False)
        if name and _ACTIVATIONS.fullmatch(type(child).__name__) and type(child) is not wanted
    ]
    given: list[tuple[nn.Module, Any]] = []

    def note(child: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        del inputs
        given.append((child, output))

    handles = [
        child.register_forward_hook(note) for child in {id(child): child for _, child in found}.values()
    ]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    last = next((child for child, output in reversed(given) if output is result), None)
    return tuple(name for name, child in found if child is not last)


def crop_kernels(module: nn.Module, kernel: int) -> int:
    """Crop convolutions' larger kernels to their centre in place, as Once-for-All does (arXiv 1908.09791).

    Paddings shrink with them, so that sizes stay. Kernels that are not square, of even size, or with a padding
    that cannot shrink, stay as they are.

    Returns:
        How many were cropped.
    """
    cropped = 0
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and _crop(child, kernel):
            cropped += 1
    return cropped


def _crop(convolution: nn.Conv2d, kernel: int) -> bool:
    high, wide = convolution.kernel_size
    if high != wide or high <= kernel or high % 2 == 0:
        return False
    less = (high - kernel) // 2
    if not _shrink_padding(convolution, less):
        return False
    with torch.no_grad():
        centre: Tensor = convolution.weight.detach()[..., less : high - less, less : wide - less].clone()
    convolution.weight = nn.Parameter(centre, requires_grad=convolution.weight.requires_grad)
    convolution.kernel_size = (kernel, kernel)
    return True


def _shrink_padding(convolution: nn.Conv2d, less: int) -> bool:
    """Take from every side what the kernel loses there; False where there is not so much."""
    down, right = (less * dilation for dilation in convolution.dilation)
    margins = getattr(convolution, "margins", None)  # PaddedConv2d: left, right, top, bottom
    if margins is not None:
        return _shrink_margins(convolution, "margins", right, down)
    outside = getattr(convolution, "static_padding", None)  # efficientnet_lite_pytorch and its like
    if isinstance(outside, nn.ZeroPad2d):
        return _shrink_margins(outside, "padding", right, down)
    if type(convolution).__name__ == "Conv2dSame" or isinstance(convolution.padding, str):
        return True  # computed from the kernel's size
    if convolution.padding[0] < down or convolution.padding[1] < right:
        return False
    convolution.padding = (convolution.padding[0] - down, convolution.padding[1] - right)
    # torch keeps a copy for padding that is not zeros
    convolution._reversed_padding_repeated_twice = [
        convolution.padding[1], convolution.padding[1], convolution.padding[0], convolution.padding[0]
    ]  # fmt: skip
    return True


def _shrink_margins(owner: nn.Module, name: str, right: int, down: int) -> bool:
    old = getattr(owner, name)
    new = (old[0] - right, old[1] - right, old[2] - down, old[3] - down)
    if min(new) < 0:
        return False
    setattr(owner, name, new)
    return True


def silence(module: nn.Module) -> None:
    """Switch random numbers off: dropout and dropped branches would only disturb what is learnt from a teacher."""
    for child in module.modules():
        if isinstance(child, nn.modules.dropout._DropoutNd):
            child.p = 0.0
        elif type(child).__name__ == "DropPath":  # timm
            setattr(child, "drop_prob", 0.0)  # noqa: B010 - no attribute of every module
        elif type(child).__name__ == "StochasticDepth":  # torchvision
            setattr(child, "p", 0.0)  # noqa: B010 - as above
