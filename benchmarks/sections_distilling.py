"""The sections on distilling: what it costs, and what need not be trained."""

from __future__ import annotations

from collections.abc import Sequence

from sections import Run, Section, commands_of, nothing_yet, percent

from lanaprof.units import format_duration


def distilling(runs: Sequence[Run]) -> Section:
    """Return what distilling costs beside the candidates' own steps."""
    title = "Distilling beside the candidates' own steps"
    what = (
        "The real `distill`, and after each of its steps the same candidates trained for a step each alone on the same "
        "tensors (forward, loss, backward, clipping, optimiser) plus one pass of the teacher."
    )
    if not runs:
        return nothing_yet(title, what, "python benchmarks/distilling.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Processor time where there is one thread; with more, wall time, one candidate per thread beside each alone on "
        "all threads. Before: building the candidates and starting; after: writing their weights; both once, whatever "
        "the steps.",
        "",
        "| layers of | candidates | batch | precision | threads | a step | alone | ratio | before | after |",
        "| --- | ---: | ---: | --- " + "| ---: " * 6 + "|",
    ]
    for run in runs:
        result = run["result"]
        step, alone, before, after = (
            format_duration(result[name], digits=3) for name in ("engine_s", "bare_s", "before_s", "after_s")
        )
        lines.append(
            f"| {run['part']} | {result['candidates']} | {result['batch']} | {result['precision']} "
            f"| {result['threads']} | {step} | {alone} | {result['ratio']:.2f} | {before} | {after} |"
        )
    return Section(title=title, lines=lines, runs=runs)


def shrinking(runs: Sequence[Run]) -> Section:
    """Return how much need not be trained, and whether that changes selections."""
    title = "Candidates that are never trained to the end"
    what = (
        "Two projects with the same table: one trains every candidate that the table leaves, one gives up early those "
        "that cost no less than a clearly better one of their layer. Both are scored; the solver selects for budgets "
        "evenly between the least latency and the teacher's."
    )
    if not runs:
        return nothing_yet(title, what, "python benchmarks/shrinking.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "| teacher | candidates | hopeless by the table | given up | not trained to the end | training steps "
        "| same weights of the others | same selection | largest loss of score |",
        "| --- " + "| ---: " * 8 + "|",
    ]
    for run in runs:
        result = run["result"]
        lost = max(row["score"] - row["score_stopped"] for row in result["budgets"])
        lines.append(
            f"| {run['part']} | {result['trainable']} | {result['hopeless']} | {result['stopped']} "
            f"| {percent(result['not_trained'], 1)} "
            f"| {percent(result['candidate_steps'] / result['candidate_steps_whole'], 1)} "
            f"| {'yes' if result['same_weights'] else 'no'} | {result['same']} of {len(result['budgets'])} "
            f"| {lost:.2g} |"
        )
    return Section(title=title, lines=lines, runs=runs)
