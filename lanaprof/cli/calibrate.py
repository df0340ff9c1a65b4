"""lanaprof calibrate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    device_option,
    notice,
    policy_option,
    team_option,
)
from lanaprof.cli.benches import project_bench

if TYPE_CHECKING:
    from rich.console import Console


@command("calibrate")
@device_option
@database_option
@team_option
@policy_option
@click.option(
    "-n", "count", default=16, show_default=True, help="Whole networks to time, the teacher among them."
)
def calibrate(
    device: str | None, database: str | None, team: str | None, policy: str | None, count: int
) -> Outcome:
    """Time whole architectures and fit the table to them."""
    from lanaprof.flows.calibrating import calibrate as run

    with project_bench(device, database, team, create=True, policy=policy) as (project, bench, exporting):
        report = run(project, bench, count=count, exporting=exporting)
        name = bench.device.text
    if report.too_noisy:
        notice(
            f"too noisy: two builds of one network differ by {report.repeatability:.1%}, some by "
            f"{report.repeatability_p95:.1%}; stop what else runs here (lanaprof doctor), then calibrate again"
        )
    document = {
        "device": name,
        "networks": report.networks,
        "refused": [one.to_json() for one in report.refused],
        "residual_sd": report.residual_sd,
        "weights": list(report.weights),
        "repeatability": report.repeatability,
        "repeatability_p95": report.repeatability_p95,
        "too_noisy": report.too_noisy,
        "seconds": round(report.seconds, 3),
    }

    def show(console: Console) -> None:
        console.print(
            f"calibrated on {report.networks} networks: they scatter by {report.residual_sd:.2%} around the fit"
            + (f"; {len(report.refused)} more were refused by the runtime" if report.refused else "")
        )

    return Outcome(document, show)
