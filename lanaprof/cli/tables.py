"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lanaprof.units import format_count

if TYPE_CHECKING:
    from rich.table import Table

    from lanaprof.space import Space

__all__ = ["plain_table", "space_table"]


def plain_table(*columns: str) -> Table:
    """Return an empty table; a column whose name starts with ``#`` holds numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith("#") else "left"
        # names of several layers are long: folded where there is no room, they can still be read
        table.add_column(name.removeprefix("#"), justify=justify, overflow="fold")
    return table


def space_table(space: Space, operators: Mapping[tuple[str, str], str | None]) -> Table:
    """Return the layers, one a row, then the runs of layers that spans stand for."""
    table = plain_table("layer", "input", "output", "#parameters", "#candidates", "#operators")
    for layer in space.places:
        keys = {operators.get((layer.name, operation)) for operation in layer.candidates} - {None, ""}
        table.add_row(
            layer.name,
            "×".join(map(str, layer.input_shape)),
            "×".join(map(str, layer.output_shape)),
            format_count(layer.params),
            str(len(layer.candidates)),
            str(len(keys)) if keys else "–",
        )
    return table
