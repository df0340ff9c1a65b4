"""lanaprof predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    device_option,
    environment_option,
    notice,
    policy_option,
    team_option,
)
from lanaprof.cli.benches import project_store

if TYPE_CHECKING:
    from rich.console import Console


@command("predict")
@click.option(
    "--architecture",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An architecture file.",
)
@device_option
@database_option
@team_option
@environment_option
@policy_option
@click.option(
    "--level", default=0.9, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True)
)
def predict(
    architecture: Path,
    device: str | None,
    database: str | None,
    team: str | None,
    environment: str | None,
    policy: str | None,
    level: float,
) -> Outcome:
    """Predict an architecture's latency with its interval, from the table alone."""
    from lanaprof.flows.predicting import open_predictor
    from lanaprof.flows.project import default_team
    from lanaprof.space import load_architecture

    loaded = load_architecture(architecture)
    with project_store(device, database, policy=policy) as (project, chosen, store):
        choices = loaded.complete(project.space)
        predictor = open_predictor(
            project, chosen, store, team=default_team(team, project.config), environment=environment
        )
        prediction = predictor.predict(choices, level=level)
    for warning in predictor.warnings:
        notice(warning)
    document = {
        "latency_s": prediction.latency_s,
        "low_s": prediction.low_s,
        "high_s": prediction.high_s,
        "level": prediction.level,
        "calibrated": prediction.calibrated,
        "device": chosen.text,
    }

    def show(console: Console) -> None:
        from lanaprof.units import format_duration

        console.print(
            f"{format_duration(prediction.latency_s)} on {chosen.text}; {level:.0%} interval "
            f"{format_duration(prediction.low_s)} … {format_duration(prediction.high_s)}"
            + (
                ""
                if prediction.calibrated
                else f" (not calibrated: lanaprof calibrate --device {chosen.text})"
            )
        )

    return Outcome(document, show)
