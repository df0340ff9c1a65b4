"""Which submodules of a teacher are layers: named by globs or known kinds, checked by running it once."""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.digest import digest
from lanaprof.errors import BadInput
from lanaprof.teachers.sources import Teacher
from lanaprof.teachers.splitting import AttentionHalf

__all__ = ["FoundLayer", "find_layers", "structure_digest"]

_SHOWN = 40  # lines in a message that lists what could be a layer
_BATCH = 2  # with one sample a leading 1 could be anything
_HALVES = ("AttentionHalf", "MlpHalf")
# (glob, classes): the first glob wins whose matches all are blocks. Without classes any block in a plain
# Sequential will do; torchvision's ``features`` also hold stem, head and transitions.
_DEFAULTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("blocks.*.*", _HALVES),  # timm: vision transformers, split
    ("encoder.layers.*.*", _HALVES),  # torchvision: vision transformers, split
    ("blocks.*.*", ()),  # timm: EfficientNet, MobileNet and their kin
    ("layer[1-4].*", ()),  # timm and torchvision: ResNet and its kin
    ("s[1-4].b*", ("Bottleneck",)),  # timm: RegNet
    ("trunk_output.block[1-4].*", ("ResBottleneckBlock",)),  # torchvision: RegNet
    ("features.*.*", ("MBConv", "FusedMBConv")),  # torchvision: EfficientNet
    ("features.*.*", ("CNBlock",)),  # torchvision: ConvNeXt
    ("features.*", ("InvertedResidual",)),  # torchvision: MobileNet
    ("stages.*.blocks.*", ()),  # timm: ConvNeXt, DaViT
    ("stages.*.*", ()),  # timm: RepVGG, MobileOne, RegNetZ
    ("blocks.*", ()),  # transformers of other kinds, hand-written networks
)


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """A submodule that can be replaced.

    Args:
        name: as in ``teacher.module.named_modules()``.
        input_shape: of one sample.
        output_shape: of one sample.
        params: number of its parameters.
        structure: digest of what it computes, its weights' values left out.
        macs: multiply-accumulates of its convolutions, linear layers and attention for one sample.
        signed: its output had negative values for a random input.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    structure: str
    macs: int = 0
    signed: bool = True


@dataclass(slots=True)
class _Calls:
    """What one submodule was seen to do while the teacher ran once."""

    count: int = 0
    order: int = 0
    problem: str = ""
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    signed: bool = True


@dataclass(slots=True)
class _Watcher:
    """Records every call of every submodule, and the arithmetic of the leaves."""

    calls: dict[str, _Calls] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    clock: int = 0

    def before(self, name: str, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        call = self.calls.setdefault(name, _Calls())
        call.count += 1
        if call.count > 1:
            return
        self.clock += 1
        call.order = self.clock
        if named or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            call.problem = f"takes {len(inputs) + len(named)} inputs or something else than a tensor"
        elif inputs[0].shape[0] != _BATCH:
            call.problem = "its input's first dimension is not the batch"
        else:
            call.input_shape = tuple(inputs[0].shape[1:])

    def after(self, name: str, module: nn.Module, output: Any) -> None:
        call = self.calls[name]
        if not isinstance(output, Tensor):
            kind = (
                f"{len(output)} outputs" if isinstance(output, tuple | list | dict) else type(output).__name__
            )
            call.problem = call.problem or f"gives {kind} instead of one tensor"
        elif not output.dim() or output.shape[0] != _BATCH:
            call.problem = call.problem or "its output's first dimension is not the batch"
        else:
            call.output_shape = tuple(output.shape[1:])
            call.signed = bool((output < 0).any())
            if isinstance(module, nn.Conv2d | nn.Linear):
                places = output[0].numel() // output.shape[1 if isinstance(module, nn.Conv2d) else -1]
                self.macs[name] = self.macs.get(name, 0) + module.weight.numel() * places
            elif isinstance(module, AttentionHalf) and output.dim() == 3:
                self.macs[name] = self.macs.get(name, 0) + module.attention_macs(output.shape[1])


def find_layers(teacher: Teacher, globs: Sequence[str] | None = None) -> tuple[FoundLayer, ...]:
    """Return the teacher's layers in the order in which it runs them.

    The teacher runs once, on two random samples: a layer is called exactly once, takes one tensor and gives
    one, (N, C, H, W) or (N, T, D), batch first.

    Args:
        teacher: whose submodules are looked at.
        globs: names with wildcards (``stages.*.*``; ``*`` does not cross dots, ``[1-4]`` is a range); None:
            the blocks of networks whose kind is known.

    Raises:
        BadInput: nothing matches, matches lie in one another, or a match is no layer; the message says why
            and lists what could be one, with shapes.
    """
    watched = _watch(teacher)
    modules = dict(teacher.module.named_modules())
    if globs is None:
        names = _default_names(modules, watched)
        if not names:
            raise BadInput(
                f"the layers of {teacher.text!r} are not known",
                hint=f"name them: --layers 'stages.*.*'; {_candidates_text(modules, watched)}",
            )
    else:
        names = _matching(list(modules), globs)
    called = [name for name in names if name in watched.calls]
    names = sorted(called, key=lambda name: watched.calls[name].order) + [n for n in names if n not in called]
    _refuse_misfits(names, watched, modules)
    return tuple(
        FoundLayer(
            name=name,
            input_shape=watched.calls[name].input_shape,
            output_shape=watched.calls[name].output_shape,
            params=sum(parameter.numel() for parameter in modules[name].parameters()),
            structure=structure_digest(modules[name]),
            macs=sum(
                macs for inner, macs in watched.macs.items() if inner == name or inner.startswith(f"{name}.")
            ),
            signed=watched.calls[name].signed,
        )
        for name in names
    )


def _watch(teacher: Teacher) -> _Watcher:
    watcher = _Watcher()
    handles = []
    for name, module in teacher.module.named_modules():
        if not name:
            continue
        handles.append(
            module.register_forward_pre_hook(
                lambda _, inputs, named, name=name: watcher.before(name, inputs, named), with_kwargs=True
            )
        )
        handles.append(
            module.register_forward_hook(
                lambda owner, _, output, name=name: watcher.after(name, owner, output)
            )
        )
    try:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            teacher.module(torch.randn(_BATCH, *teacher.input_shape, generator=generator))
    finally:
        for handle in handles:
            handle.remove()
    return watcher


def _segments_match(name: str, glob: str) -> bool:
    parts, wanted = name.split("."), glob.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _matching(names: list[str], globs: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for glob in globs:
        matches = [name for name in names if name and _segments_match(name, glob)]
        if not matches:
            tops = sorted({name.partition(".")[0] for name in names if name})
            raise BadInput(
                f"no submodule matches --layers {glob!r}",
                hint=f"* does not cross dots; the teacher's parts are: {', '.join(tops)}",
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def _default_names(modules: dict[str, nn.Module], watched: _Watcher) -> list[str]:
    for glob, classes in _DEFAULTS:
        names = [
            name
            for name in modules
            if _segments_match(name, glob)
            and (
                type(modules[name]).__name__ in classes
                if classes
                else type(modules[name.rpartition(".")[0]]) in (nn.Sequential, nn.ModuleList)
            )
        ]
        if names and all(_problem(name, watched) is None and _is_block(modules[name]) for name in names):
            return names
    return []


def _problem(name: str, watched: _Watcher) -> str | None:
    """Return why a submodule is no layer, or None if it is one."""
    call = watched.calls.get(name)
    if call is None:
        return "is not called when the teacher runs"
    if call.count > 1:
        return f"is called {call.count} times"
    if call.problem:
        return call.problem
    if len(call.input_shape) not in (2, 3) or len(call.output_shape) not in (2, 3):
        return f"turns {_shape(call.input_shape)} into {_shape(call.output_shape)}, neither images nor tokens"
    return None


def _refuse_misfits(names: list[str], watched: _Watcher, modules: dict[str, nn.Module]) -> None:
    hint = _candidates_text(modules, watched)
    for outer in names:
        inner = next((name for name in names if name.startswith(f"{outer}.")), None)
        if inner is not None:
            raise BadInput(
                f"the layer {inner!r} lies inside the layer {outer!r}", hint=f"name one of them; {hint}"
            )
    problems = [f"{name!r} {problem}" for name in names if (problem := _problem(name, watched)) is not None]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise BadInput(f"no layer: {'; '.join(problems[:3])}{more}", hint=hint)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "nothing"


def _candidates_text(modules: dict[str, nn.Module], watched: _Watcher) -> str:
    """Return what could be a layer, one a line: blocks before single convolutions."""
    fitting = [name for name in watched.calls if _problem(name, watched) is None]
    blocks = [name for name in fitting if _is_block(modules[name])] or fitting
    lines = [
        f"  {name}: {type(modules[name]).__name__} "
        f"{_shape(watched.calls[name].input_shape)} to {_shape(watched.calls[name].output_shape)}"
        for name in blocks
    ]
    rest = len(lines) - _SHOWN
    lines = lines[:_SHOWN] + ([f"  … and {rest} more"] if rest > 0 else [])
    return "\n".join(["these submodules could be layers:", *(lines or ["  none"])])


def _is_block(module: nn.Module) -> bool:
    """Say whether a module is made of several and does arithmetic: norms with activations are no blocks."""
    inner = list(module.modules())[1:]
    return any(isinstance(child, nn.Conv2d | nn.Linear) for child in inner)


def structure_digest(module: nn.Module) -> str:
    """Return the digest of what a module computes, the values of its weights left out.

    It covers the printed structure, the shapes of parameters and buffers, and, because a forward method may
    do what no printout shows, the source of every class that is not PyTorch's and the plain values its
    objects hold. Too fine costs an export; too coarse would give a candidate another one's latency.
    """
    classes: set[Any] = {type(child) for child in module.modules()}
    sources = {
        f"{kind.__module__}.{kind.__qualname__}": _source(kind)
        for kind in classes
        if not kind.__module__.startswith("torch.")
    }
    plain = [
        [name, sorted((key, repr(value)) for key, value in vars(child).items() if _is_plain(key, value))]
        for name, child in module.named_modules()
    ]
    shapes = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in module.state_dict().items()]
    return digest({"printed": repr(module), "shapes": shapes, "sources": sources, "plain": plain})


def _is_plain(key: str, value: Any) -> bool:
    if key.startswith("_") or key == "training":
        return False
    if isinstance(value, tuple | list):
        return all(isinstance(item, int | float | str | bool) for item in value)
    return value is None or isinstance(value, int | float | str | bool)


@lru_cache(maxsize=1024)
def _source(kind: type) -> str:
    """Return a digest of a class's source text; of its forward's bytecode where there is no source."""
    try:
        text = textwrap.dedent(inspect.getsource(kind)).encode()
    except (OSError, TypeError):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        text = repr((code.co_code, code.co_names, code.co_consts)).encode() if code is not None else b""
    return hashlib.sha256(text).hexdigest()
