"""lanaprof export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import Outcome, command, database_option, notice, warn_of_latest

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.students import Student


@command("export")
@click.option("--selection", metavar="ID", help="A stored selection: an id, its beginning, or latest.")
@click.option("--architecture", metavar="FILE", type=click.Path(path_type=Path), help="An architecture file.")
@click.option("--out", required=True, metavar="net.onnx|net.pt2|DIR/", type=click.Path(path_type=Path))
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1))
@database_option
def export(
    selection: str | None, architecture: Path | None, out: Path, batch: int, database: str | None
) -> Outcome:
    """Write a network: ONNX, a torch.export program, or a folder for lanaprof.load_student."""
    from lanaprof.flows.prechecks import check_out, student_kind
    from lanaprof.flows.project import load_project
    from lanaprof.flows.students import build_student, export_student, selected
    from lanaprof.lut import open_store
    from lanaprof.space import load_architecture

    check_out(out, is_folder=student_kind(out) == "folder")
    project = load_project()
    if architecture is not None:
        choices = load_architecture(architecture).complete(project.space)
    else:
        with open_store(project.database(database)) as store:
            choices = selected(project, store, selection, None)
            warn_of_latest(project, store, selection)
    student = build_student(project, choices)
    if student.untrained:
        notice(
            f"{len(student.untrained)} of its layers are not trained and have seeded initial weights "
            f"({', '.join(student.untrained[:3])}{', …' if len(student.untrained) > 3 else ''}): lanaprof distill"
        )
    elif not student.finetuned and set(choices) - {"teacher"}:
        notice("this network was not fine-tuned as a whole; its accuracy rises with: lanaprof finetune")
    written = export_student(project, student, out, batch=batch)
    _warn_of_denormals(student, out)
    document = {
        "out": str(written.out),
        "kind": written.kind,
        "untrained": list(written.untrained),
        "finetuned": student.finetuned,
        "difference": written.difference,
    }

    def show(console: Console) -> None:
        agreement = "" if written.difference is None else f"; differs from torch by {written.difference:.1e}"
        replaced = sum(1 for operation in choices if operation != "teacher")
        console.print(f"wrote {written.out}: {replaced} of {len(choices)} layers replaced{agreement}")

    return Outcome(document, show)


def _warn_of_denormals(student: Student, out: Path) -> None:
    from lanaprof.profiler.denormals import denormal_share_of_arrays, denormal_warning

    weights = (tensor.detach().cpu() for tensor in student.module.state_dict().values())
    share = denormal_share_of_arrays(each.float().numpy() for each in weights if each.is_floating_point())
    if warning := denormal_warning(out.name, share):
        notice(warning)
