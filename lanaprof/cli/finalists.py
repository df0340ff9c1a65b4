"""The finalists of ``select``: options, timing, progress, their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Meter, meter, notice
from lanaprof.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.bench import Bench
    from lanaprof.flows.choosing import Chosen, Question
    from lanaprof.flows.finalist_judge import ProjectJudge
    from lanaprof.flows.finalists import Finalist
    from lanaprof.flows.operators import Choices
    from lanaprof.flows.proving import Held, Proof
    from lanaprof.lut import Selection, Store

__all__ = ["bench_of", "finalist_options", "find_judge", "hold", "keep", "show_finalists"]


def finalist_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --finalists and what belongs to it."""
    options = [
        click.option(
            "--finalists",
            type=click.IntRange(1),
            metavar="K",
            help="Also judge K diverse ones on held-out data; the best is selected.",
        ),
        click.option(
            "--tuned", default=3, show_default=True, type=click.IntRange(0), help="Finalists fine-tuned."
        ),
        click.option(
            "--tune-steps", default=100, show_default=True, type=click.IntRange(1), help="Batches for each."
        ),
        click.option("--tune-batch-size", default=128, show_default=True, type=click.IntRange(2)),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def find_judge(question: Question, options: Mapping[str, Any], *, here: bool) -> ProjectJudge | None:
    """Return who judges the finalists, None where none are asked for.

    Args:
        question: what select was asked.
        options: of the command.
        here: whether networks are timed before: what cannot be judged is then said first.

    Raises:
        BadInput: finalists and a list of alternatives were asked for at once.
        BadProject: there is no data to judge by.
        UserError: the teacher gives nothing that can be judged.
    """
    if not options["finalists"]:
        return None
    if options["top"] > 1:
        raise BadInput(
            "--top lists architectures, --finalists picks one of them", hint="leave one of the two out"
        )
    from lanaprof.flows.finalist_judge import open_judge

    judge = open_judge(
        question.project, steps=options["tune_steps"], batch_size=options["tune_batch_size"], tell=notice
    )
    if here:
        judge.check()
    return judge


def hold(
    question: Question,
    chosen: Chosen,
    proof: Proof | None,
    *,
    judge: ProjectJudge,
    store: Store,
    team: str,
    options: Mapping[str, Any],
) -> tuple[Finalist, ...]:
    """Find, time and judge the finalists, with progress on stderr."""
    from lanaprof.flows.finalists import Rules, hold_finalists
    from lanaprof.flows.proving import time_beside
    from lanaprof.units import parse_duration

    def timing(networks: Sequence[Choices]) -> Mapping[Choices, Held]:
        assert proof is not None
        with meter("timing finalists") as bar:
            bench = bench_of(question, store, team, bar)
            return time_beside(
                question.project,
                bench,
                question.predictor,
                proof,
                networks,
                budget_s=question.budget_s,
                tell=notice,
            )

    rules = Rules(
        options["finalists"],
        options["overlap"],
        options["tuned"],
        parse_duration(options["time_limit"], what="--time-limit"),
    )
    with ExitStack() as stack:
        bars: dict[str, Meter] = {}

        def advance(stage: str, done: float, total: float) -> None:
            if stage not in bars:
                bars[stage] = stack.enter_context(meter(stage))
            bars[stage](round(done, 2), total)

        return hold_finalists(
            question, chosen, proof, rules=rules, judge=judge, timing=timing, tell=notice, advance=advance
        )


def keep(question: Question, selection: Selection, finalists: Sequence[Finalist]) -> list[dict[str, Any]]:
    """Return the finalists as plain data, kept for reports."""
    from lanaprof.flows.finalists import finalists_to_json, write_finalists

    rows = finalists_to_json(question.project, finalists)
    if rows:
        write_finalists(question.project, selection.id, rows)
    return rows


def bench_of(question: Question, store: Store, team: str, bar: Meter) -> Bench:
    """Return this machine as the device that is proved."""
    from lanaprof.flows.bench import open_bench

    return open_bench(
        question.device,
        store,
        team=team,
        state=question.project.state,
        report=lambda p: bar(p.done, p.total, p.left_s, p.text),
        notice=notice,
    )


def show_finalists(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the finalists, the best first."""
    from lanaprof.cli.tables import plain_table
    from lanaprof.units import format_duration

    def number(row: Mapping[str, Any], name: str) -> str:
        value, error = row[name], row[f"{name}_standard_error"]
        if value is None:
            return "–"
        return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")

    table = plain_table(
        "finalist", "#score", "#predicted", "#measured", "#KL", "#KL fine-tuned", "#behind the best"
    )
    for place, row in enumerate(rows, start=1):
        label = "selected" if row["chosen"] else "over budget" if row["inside"] is False else str(place)
        table.add_row(
            label,
            f"{row['score']:.4f}",
            format_duration(row["predicted_s"]),
            "–" if row["measured_s"] is None else format_duration(row["measured_s"]),
            number(row, "kl"),
            number(row, "tuned_kl"),
            "–" if row["chosen"] else number(row, "tuned_difference"),
        )
    console.print(table)
