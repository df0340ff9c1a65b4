"""lanaprof init."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, notice, team_option

if TYPE_CHECKING:
    from rich.console import Console


@command("init")
@click.option(
    "--teacher", required=True, metavar="T", help="timm:NAME, torchvision:NAME or pkg.module:factory."
)
@click.option("--weights", default="", metavar="FILE|pretrained", help="A .safetensors, .pt or .pth file.")
@click.option(
    "--input", "shape", default="", metavar="3x224x224", help="One sample; default: the model's own."
)
@click.option(
    "--layers", multiple=True, metavar="GLOB", help="Submodules to replace, e.g. 'stages.*.*'; repeatable."
)
@click.option(
    "--data", default="", metavar="SPEC", help="imagefolder:PATH, fashion-mnist, pkg.module:function, …"
)
@click.option("--ops", default="quick", metavar="quick|lana|FILE|pkg.module:function", help="The candidates.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="int8|fp8|fp16|bf16",
    help="Offer every operation at this one, too; repeatable.",
)
@click.option(
    "--device", "devices", multiple=True, metavar="DEVICE", help="Devices to fit; the first is the default."
)
@click.option(
    "--cost", "costs", multiple=True, metavar="NAME", help="What may be budgeted: latency_s@DEVICE, params, …"
)
@click.option("--seed", default=0, show_default=True, help="Of every random choice.")
@click.option("--force", is_flag=True, help="Replace the project that is here.")
@database_option
@team_option
def init(**options: Any) -> Outcome:
    """Make a project in this folder: find the teacher's layers, write lanaprof.toml and the space."""
    from lanaprof.config import ProjectConfig
    from lanaprof.flows.starting import init_project

    config = ProjectConfig(
        teacher=options["teacher"],
        weights=options["weights"],
        input=options["shape"],
        layers=options["layers"],
        ops=options["ops"],
        precisions=options["precisions"],
        data=options["data"],
        devices=options["devices"],
        database=options["database"] or "",
        team=options["team"] or "",
        costs=options["costs"],
        seed=options["seed"],
    )
    project = init_project(Path.cwd(), config, force=options["force"], tell=notice)
    if project.facts["seeded"]:
        notice("no --weights: the teacher has seeded random weights, good for latencies, useless for scores")
    space = project.space
    following = "lanaprof measure" if project.config.devices else "lanaprof measure --device cpu"
    document = {
        "teacher": space.teacher,
        "layers": len(space.layers),
        "candidates": space.candidate_count,
        "spans": len(space.spans),
        "log10_size": space.log10_size,
        "weights": project.facts["weights"],
        "seeded": project.facts["seeded"],
    }

    def show(console: Console) -> None:
        from lanaprof.cli.tables import space_table
        from lanaprof.flows.counting import space_words

        console.print(space_table(space, {}))
        console.print(f"{space_words(space)}. Next: [bold]{following}[/bold]")

    return Outcome(document, show)
