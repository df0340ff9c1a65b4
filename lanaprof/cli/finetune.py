"""lanaprof finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, meter, warn_of_latest

if TYPE_CHECKING:
    from rich.console import Console


@command("finetune")
@click.option("--selection", metavar="ID", help="A stored selection: an id, its beginning, or latest.")
@click.option("--architecture", metavar="FILE", type=click.Path(path_type=Path), help="An architecture file.")
@click.option("--epochs", default=2.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Batches, instead of --epochs.")
@click.option("--batch-size", default=128, show_default=True, type=click.IntRange(2))
@click.option("--learning-rate", default=2e-3, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option(
    "--temperature",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Both networks' logits are divided by it.",
)
@click.option(
    "--alpha",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="The labels' share of the loss, where there are labels.",
)
@click.option(
    "--features",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="The share of the loss that compares stages with the teacher's.",
)
@click.option(
    "--ema/--no-ema",
    default=True,
    show_default=True,
    help="Keep a moving average of the weights, or those of one moment.",
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Of training; auto: bf16 on a GPU that has it.",
)
@database_option
def finetune(
    database: str | None, selection: str | None, architecture: Path | None, **options: Any
) -> Outcome:
    """Distil the whole selected network from the teacher; with labels, learn from them too."""
    from lanaprof.flows.prechecks import check_has_data
    from lanaprof.flows.project import load_project
    from lanaprof.flows.students import finetune_student, selected
    from lanaprof.lut import open_store

    project = load_project()
    check_has_data(project)
    if architecture is None:
        with open_store(project.database(database)) as store:
            choices = selected(project, store, selection, None)
            warn_of_latest(project, store, selection)
    else:
        from lanaprof.space import load_architecture

        choices = load_architecture(architecture).complete(project.space)
    from lanaprof.distill import FinetuneRecipe  # imports torch: after what can be refused without

    recipe = FinetuneRecipe(seed=project.config.seed, **options)
    with meter("fine-tuning") as bar:
        result = finetune_student(
            project, choices, recipe, progress=lambda p: bar(p.done, p.total, p.seconds_left, p.stage)
        )
    stages = {"assembled": result.before, "reestimated": result.reestimated, "finetuned": result.best}
    document = {
        "steps": result.steps,
        "reused": result.reused,
        "kept_statistics": result.kept_statistics,
        **{
            name: {
                "images": e.images,
                "accuracy": e.accuracy,
                "agreement": e.agreement,
                "kl": e.kl,
                "loss": e.loss,
            }
            for name, e in stages.items()
        },
    }

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table

        table = plain_table(
            f"{result.best.images} held-out images", "#accuracy", "#agreement with the teacher", "#KL"
        )
        for name, e in stages.items():
            table.add_row(
                name,
                "–" if e.accuracy is None else f"{e.accuracy:.2%}",
                "–" if e.agreement is None else f"{e.agreement:.2%}",
                "–" if e.kl is None else f"{e.kl:.4f}",
            )
        console.print(table)
        if result.kept_statistics:
            console.print(
                "Re-estimating batch norm made it worse (few images): the statistics it came with were kept."
            )

    return Outcome(document, show)
