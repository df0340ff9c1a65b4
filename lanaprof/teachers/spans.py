"""Which consecutive layers of a teacher one candidate may replace, and what the space offers in their place.

A *stage* is a row of layers of one parent module of which only the first may change the shape; its *tail* is what
follows a first layer that does. A run is only replaced where it is a plain chain: each layer reads what the one before
gives, and nobody else does.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lanaprof.errors import BadInput
from lanaprof.ops import Operation, at_precisions, why_not_from
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.ops.spans import STAGE, TAIL, SpanRule, catalogue_spans, read_spans
from lanaprof.space import Span, place_name
from lanaprof.teachers.layers import FoundLayer
from lanaprof.teachers.sources import Teacher

__all__ = ["find_spans"]

_CLOSE = 1e-4  # relative: what a network gives twice may differ by this where a runtime is not deterministic

Run = tuple[FoundLayer, ...]


def find_spans(
    teacher: Teacher,
    found: Sequence[FoundLayer],
    ops: str | Path,
    *,
    precisions: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _text: None,
) -> tuple[Span, ...]:
    """Return the candidates that stand for several layers.

    Args:
        teacher: whose layers they are.
        found: the layers, in the order in which the teacher runs them.
        ops: as for ``make_space``: ``lana`` has some for every stage, a file those of its lines ``RUN: OPERATION``.
        precisions: at which every one is offered once more.
        tell: told which runs can have none, and why.

    Raises:
        UnknownOperation: a line of the file names no operation.
        BadInput: a line names layers that are none or do not follow each other, or an operation that fits nowhere.
    """
    rules = read_spans(ops)
    if not rules and ops != "lana":
        return ()
    chains = _Chains(teacher, found)
    places = {layer.name: number for number, layer in enumerate(found)}
    chosen: dict[Run, list[Operation]] = {}
    if ops == "lana":
        stages, tails = tuple(_stages(found)), tuple(_tails(found))
        chains.try_together(stages)
        chains.try_together(tails)
        for run in (*stages, *tails):
            if _judged(chains, run, tell):
                offered = catalogue_spans(
                    _module(teacher, run),
                    run[0].input_shape,
                    run[-1].output_shape,
                    macs=sum(layer.macs for layer in run),
                    signed=run[-1].signed,
                )
                chosen[run] = list(offered)
    for rule in rules:
        _follow(rule, teacher, found, chains, chosen, tell=tell)
    return tuple(
        Span(run[0].name, run[-1].name, operation.text)
        for run, operations in sorted(chosen.items(), key=lambda item: places[item[0][0].name])
        for operation in at_precisions(
            list(dict.fromkeys(operations)), precisions, run[0].input_shape, run[-1].output_shape
        )
    )


def _follow(
    rule: SpanRule,
    teacher: Teacher,
    found: Sequence[FoundLayer],
    chains: _Chains,
    chosen: dict[Run, list[Operation]],
    *,
    tell: Callable[[str], None],
) -> None:
    """Add a rule's operation to the runs that it names and fits; it must fit one."""
    runs = _runs_of(rule, found)
    reasons = []
    for run in runs:
        if not _judged(chains, run, tell):
            reasons.append(f"{_name(run)} is no plain chain")
            continue
        reason = why_not_from(rule.operation, _module(teacher, run), run[0].input_shape, run[-1].output_shape)
        if reason is None:
            chosen.setdefault(run, []).append(rule.operation)
        else:
            reasons.append(f"{_name(run)}: {reason}")
    if len(reasons) == len(runs):
        raise BadInput(
            f"{rule.where}: {rule.operation.text} cannot stand for {rule.run!r}: "
            + ("; ".join(reasons[:3]) or "the teacher has no such run of two or more layers"),
            hint="name other layers or another operation, or delete the line",
        )


def _runs_of(rule: SpanRule, found: Sequence[FoundLayer]) -> list[Run]:
    if rule.run in (STAGE, TAIL):
        return list(_stages(found) if rule.run == STAGE else _tails(found))
    names = [layer.name for layer in found]
    first, dots, last = rule.run.partition("..")
    if dots:
        places = [names.index(name) for name in (first, last) if name in names]
        run = tuple(found[places[0] : places[1] + 1]) if len(places) == 2 else ()
    else:
        places = [number for number, name in enumerate(names) if _matches(name, rule.run)]
        run = tuple(found[number] for number in places)
        if places and places != list(range(places[0], places[-1] + 1)):
            run = ()
    if len(run) < 2:
        raise BadInput(
            f"{rule.where}: {rule.run!r} names no two or more consecutive layers",
            hint=f"write stage, tail, first..last or a glob; the layers are: {', '.join(names)}",
        )
    return [run]


def _matches(name: str, glob: str) -> bool:
    parts, wanted = name.split("."), glob.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _stages(found: Sequence[FoundLayer]) -> Iterable[Run]:
    """Give the stages of two or more layers, in order."""
    stage: list[FoundLayer] = []
    for layer in found:
        parent = layer.name.rpartition(".")[0]
        same = stage and parent == stage[-1].name.rpartition(".")[0]
        if not same or layer.input_shape != layer.output_shape:
            if len(stage) > 1:
                yield tuple(stage)
            stage = []
        stage.append(layer)
    if len(stage) > 1:
        yield tuple(stage)


def _tails(found: Sequence[FoundLayer]) -> Iterable[Run]:
    """Give what follows the first layer of stages that begin with another shape, where that is two layers or more."""
    for stage in _stages(found):
        if stage[0].input_shape != stage[0].output_shape and len(stage) > 2:
            yield stage[1:]


def _name(run: Run) -> str:
    return place_name(run[0].name, run[-1].name)


def _module(teacher: Teacher, run: Run) -> LayerRun:
    return LayerRun(*(teacher.module.get_submodule(layer.name) for layer in run))


def _judged(chains: _Chains, run: Run, tell: Callable[[str], None]) -> bool:
    """Say whether a run is a plain chain; tell why where it is not, once."""
    reason = chains.why_not(run)
    if reason and run not in chains.told:
        chains.told.add(run)
        tell(f"no candidates for {_name(run)} as a whole: {reason}")
    return not reason


@dataclass(slots=True)
class _Pass:
    """What went through a layer."""

    input: Tensor
    output: Tensor
    kept: Tensor  # the output as it was then: what follows may change it in place


class _Chains:
    """Tells which runs of layers are plain chains, by running the teacher."""

    def __init__(self, teacher: Teacher, found: Sequence[FoundLayer]) -> None:
        self.told: set[Run] = set()
        self._module = teacher.module
        generator = torch.Generator().manual_seed(0)
        self._x = torch.randn(2, *teacher.input_shape, generator=generator)
        self._passes: dict[str, _Pass] = {}
        self._reasons: dict[Run, str] = {}
        handles = [
            teacher.module.get_submodule(layer.name).register_forward_hook(self._noter(layer.name))
            for layer in found
        ]
        try:
            self._expected = self._run()
        finally:
            for handle in handles:
                handle.remove()

    def _noter(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._passes[name] = _Pass(inputs[0], output, output.clone())

        return note

    def _run(self) -> list[Tensor]:
        with torch.no_grad():
            result = self._module(self._x.clone())
        return [leaf.clone() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]

    def why_not(self, run: Run) -> str:
        """Return why no single module can take the place of these layers; empty where one can."""
        if run not in self._reasons:
            self._reasons[run] = self._judge(run)
        return self._reasons[run]

    def try_together(self, runs: Sequence[Run]) -> None:
        """Judge runs that do not overlap at once: where all are chains, as usual, one pass says so."""
        self._reasons |= {run: reason for run in runs if (reason := self._gap(run))}
        chained = [run for run in runs if run not in self._reasons]
        if chained and not self._broken_by(chained):
            self._reasons |= dict.fromkeys(chained, "")

    def _judge(self, run: Run) -> str:
        return self._gap(run) or self._broken_by([run])

    def _gap(self, run: Run) -> str:
        """Return where something lies between two of the layers."""
        for before, after in itertools.pairwise(run):
            if self._passes[after.name].input is not self._passes[before.name].output:
                return f"{after.name} does not read what {before.name} gives"
        return ""

    def _broken_by(self, runs: Sequence[Run]) -> str:
        """Return what is wrong with the network when the first layer of each run gives what its last gave."""
        patched = []
        try:
            for run in runs:
                first, *others = [self._module.get_submodule(layer.name) for layer in run]
                patched += [first, *others]
                first.__dict__["forward"] = _giving(self._passes[run[-1].name].kept)
                for module in others:  # pass it on, as behind a span
                    module.__dict__["forward"] = _passing
            found = self._run()
        except Exception as error:  # whatever the network's own code raises when something inside is missing
            return f"the network does not run without what its layers give in between ({error})"
        finally:
            for module in patched:
                module.__dict__.pop("forward", None)
        same = len(found) == len(self._expected) and all(map(_is_close, found, self._expected))
        return "" if same else "something else reads what its layers give in between"


def _giving(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _x: value.clone()


def _passing(x: Tensor) -> Tensor:
    return x


def _is_close(one: Tensor, other: Tensor) -> bool:
    room = _CLOSE * float(other.abs().max())
    return one.shape == other.shape and torch.allclose(one, other, rtol=_CLOSE, atol=room)
