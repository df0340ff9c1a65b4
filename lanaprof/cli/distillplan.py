"""What ``distill --plan`` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from lanaprof.distill import DistillPlan
    from lanaprof.flows.learning import Wanted

__all__ = ["plan_document", "plan_line", "plan_table"]


def plan_document(plan: DistillPlan, wanted: Wanted) -> dict[str, Any]:
    """Return the JSON keys of a plan."""
    verdicts = {layer.layer: layer for layer in wanted.layers}
    layers = []
    for layer in plan.layers:
        verdict = asdict(verdicts[layer.name])
        del verdict["layer"]
        layers.append({"name": layer.name, **verdict, **asdict(layer)})
    return {
        "train": len(plan.train),
        "reused": plan.reused,
        "stopped": plan.stopped,
        "turns": plan.turns,
        "estimated_seconds": plan.seconds,
        "layers": layers,
    }


def plan_table(plan: DistillPlan, wanted: Wanted) -> Table:
    """Return the plan by layer: which candidates need no training and why, what the others take."""
    from rich import box
    from rich.table import Table

    from lanaprof.units import format_duration, format_size

    table = Table(box=box.SIMPLE)
    table.add_column("layer", overflow="fold")
    for title in ("candidates", "hopeless", "failed", "done", "to train", "time", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    verdicts = {layer.layer: layer for layer in wanted.layers}
    for layer in plan.layers:
        verdict = verdicts[layer.name]
        table.add_row(
            layer.name,
            str(verdict.candidates),
            str(verdict.hopeless),
            str(verdict.failed),
            str(layer.stopped + layer.reused),
            str(layer.train),
            format_duration(layer.seconds, digits=2) if layer.train else "–",
            format_size(layer.memory_bytes) if layer.train else "–",
        )
    return table


def plan_line(plan: DistillPlan, *, stop: bool) -> str:
    """Return the sum of it in a sentence."""
    from lanaprof.units import format_duration

    turns = f", in {plan.turns} turns for want of memory" if plan.turns > 1 else ""
    given_up = f"; {plan.stopped} were given up" if plan.stopped else ""
    spared = ", less what early stops spare" if stop and plan.train else ""
    return (
        f"{len(plan.train)} to train, {plan.reused} trained already{given_up}: about "
        f"{format_duration(plan.seconds, digits=2)}{turns}{spared}"
    )
