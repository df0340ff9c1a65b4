"""lanaprof space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lanaprof.cli.base import Outcome, command, database_option, device_option

if TYPE_CHECKING:
    from rich.console import Console


@command("space")
@device_option
@database_option
def space(device: str | None, database: str | None) -> Outcome:
    """Show layers, candidates, shapes, parameters, and operators after deduplication."""
    from lanaprof.config import parse_device
    from lanaprof.flows.operators import find_operators
    from lanaprof.flows.project import load_project
    from lanaprof.space import place_ends

    project = load_project()
    chosen = (
        parse_device(device, project.folder)
        if device
        else project.device(None if project.config.devices else "cpu")
    )
    del database  # operators are cached in the project
    operators = find_operators(project, chosen)
    space = project.space
    document = {
        "teacher": space.teacher,
        "layers": [
            {
                "name": layer.name,
                "input_shape": list(layer.input_shape),
                "output_shape": list(layer.output_shape),
                "params": layer.params,
                "candidates": [
                    {"name": operation, "operator": operators.operator(layer.name, operation)}
                    for operation in layer.candidates
                ],
            }
            for layer in space.layers
        ],
        "spans": [
            {
                "first": place_ends(run.name)[0],
                "last": place_ends(run.name)[1],
                "name": operation,
                "operator": operators.operator(run.name, operation),
                "input_shape": list(run.input_shape),
                "output_shape": list(run.output_shape),
            }
            for run in space.runs
            for operation in run.candidates
        ],
        "operators": len(operators.keys),
        "log10_size": space.log10_size,
    }

    def show(console: Console) -> None:
        from lanaprof.cli.tables import space_table
        from lanaprof.flows.counting import operator_words, space_words

        console.print(space_table(space, operators.candidates))
        console.print(f"{space_words(space)}; {operator_words(operators)}")

    return Outcome(document, show)
