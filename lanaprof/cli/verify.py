"""lanaprof verify."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, device_option, notice, team_option
from lanaprof.cli.benches import project_bench

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.verifying import VerifyReport
    from lanaprof.space import Space


@command("verify")
@click.option("--selection", metavar="ID", help="A stored selection: an id, its beginning, or latest.")
@click.option(
    "--architecture",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An architecture file.",
)
@click.option("--random", "count", type=click.IntRange(1), metavar="N", help="Random architectures.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--level", default=0.9, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True)
)
@device_option
@database_option
@team_option
def verify(device: str | None, database: str | None, team: str | None, **options: Any) -> Outcome:
    """Build and time whole networks; predicted against measured."""
    from lanaprof.flows.chosen import find_selection
    from lanaprof.flows.predicting import open_predictor
    from lanaprof.flows.verified import note_verified
    from lanaprof.flows.verifying import verify as run
    from lanaprof.space import Architecture, load_architecture, random_architecture

    loaded = [load_architecture(path) for path in options["files"]]
    with project_bench(device, database, team) as (project, bench, exporting):
        chosen = [architecture.complete(project.space) for architecture in loaded]
        if options["count"]:
            predictor = open_predictor(
                project,
                bench.device,
                bench.store,
                team=bench.provenance.team,
                environment=bench.environment.id,
            )
            allowed = predictor.measured_candidates()
            generator = random.Random(f"verify {options['seed']}")
            chosen += [
                random_architecture(project.space, generator, allowed).complete(project.space)
                for _ in range(options["count"])
            ]
        if options["selection"] or not chosen:
            selection = find_selection(project, bench.store, options["selection"])
            chosen.append(Architecture("", selection.choices).complete(project.space))
        report = run(project, bench, chosen, level=options["level"], exporting=exporting)
        note_verified(project, bench.device, bench.environment.id, report)
    if report.too_noisy:
        notice(
            "too noisy: the machine did not repeat itself well enough to judge the errors; close other programs, "
            "or run it again at a calmer time"
        )
    missing = len(dict.fromkeys(chosen)) > len(report.networks)
    return Outcome(
        _document(report, project.space), lambda console: _show(console, report), 3 if missing else 0
    )


def _document(report: VerifyReport, space: Space) -> dict[str, Any]:
    return {
        "architectures": [
            {
                "choices": dict(space.named(row.choices)),
                "table_s": row.table_s,
                "predicted_s": row.predicted.latency_s,
                "low_s": row.predicted.low_s,
                "high_s": row.predicted.high_s,
                "measured_s": row.measured.latency_s,
                "ci_low_s": row.measured.ci_low_s,
                "ci_high_s": row.measured.ci_high_s,
            }
            for row in report.networks
        ],
        "refused": [one.to_json() for one in report.refused],
        "common_factor": report.common_factor,
        "bias": report.bias,
        "median_error": report.median_error,
        "p95_error": report.p95_error,
        "coverage": report.coverage,
        "interval_width": report.interval_width,
        "repeatability": report.repeatability,
        "repeatability_p95": report.repeatability_p95,
        "too_noisy": report.too_noisy,
        "seconds": round(report.seconds, 3),
    }


def _show(console: Console, report: VerifyReport) -> None:
    from lanaprof.cli.tables import plain_table
    from lanaprof.units import format_duration, format_percent

    table = plain_table("#", "#predicted", "#measured", "#error", "inside")
    for number, row in enumerate(report.networks, start=1):
        assert row.measured.latency_s is not None
        table.add_row(
            str(number),
            format_duration(row.predicted.latency_s),
            format_duration(row.measured.latency_s),
            format_percent(row.error),
            "yes" if row.is_inside else "no",
        )
    console.print(table)
    console.print(
        f"the machine as a whole is at {report.common_factor:.4f} of its calibration, which is in the predictions; "
        f"after it: bias {format_percent(report.bias)}, median error {report.median_error:.2%}, 95 % of errors below "
        f"{report.p95_error:.2%}; {report.coverage:.0%} inside the interval, {report.interval_width:.1%} wide; "
        f"two builds of one network differ by {report.repeatability:.2%}, 95 % by less than "
        f"{report.repeatability_p95:.2%}"
    )
