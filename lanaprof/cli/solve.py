"""lanaprof solve."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command

if TYPE_CHECKING:
    from rich.console import Console


@command("solve")
@click.argument("problem", type=click.Path(path_type=Path))
@click.option(
    "--budget", "budgets", multiple=True, metavar="COST=VALUE", help="In the cost's own unit; repeatable."
)
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(1), help="So many diverse solutions."
)
@click.option(
    "--overlap", default=0.7, show_default=True, help="Share of layers two of them may have in common."
)
@click.option("--time-limit", default="60s", show_default=True, metavar="60s")
@click.option("--method", default="exact", show_default=True, metavar="NAME", help="The selector.")
@click.option("--explain", is_flag=True, help="What an exchange would buy, by the first budget's cost.")
@click.option("--out", metavar="arch.json", type=click.Path(path_type=Path), help="Write the architecture.")
def solve(problem: Path, **options: Any) -> Outcome:
    """Solve PROBLEM.json: the best score within the budgets."""
    from lanaprof.solver import explain, load_problem, solve_diverse
    from lanaprof.solver import solve as run
    from lanaprof.units import parse_duration

    time_limit_s = parse_duration(options["time_limit"], what="--time-limit")
    budgets = _budgets(options["budgets"])
    loaded = load_problem(problem)
    if options["top"] > 1:
        found = solve_diverse(
            loaded, budgets, top=options["top"], overlap=options["overlap"], time_limit_s=time_limit_s
        )
        document = {**found[0].to_json(), "solutions": [solution.to_json() for solution in found]}
    else:
        found = (run(loaded, budgets, method=options["method"], time_limit_s=time_limit_s),)
        document = found[0].to_json()
    explanation = None
    if options["explain"]:
        explanation = explain(loaded, budgets, found[0], cost=next(iter(budgets)), time_limit_s=time_limit_s)
        document["explanation"] = explanation.to_json()
    if options["out"]:
        _write(document["choices"], options["out"])

    def show(console: Console) -> None:
        from lanaprof.cli.explaining import show_explanation
        from lanaprof.cli.tables import plain_table

        table = plain_table("layer", "candidate")
        for layer, candidate in document["choices"].items():
            table.add_row(layer, candidate)
        console.print(table)
        for number, solution in enumerate(found, start=1):
            costs = ", ".join(f"{name} {value:g}" for name, value in solution.costs.items())
            proof = "optimal" if solution.proved else f"bound {solution.bound:.6g}"
            console.print(
                f"{number}: score {solution.score:.6g} ({proof}); {costs}; {solution.solve_s * 1e3:.2f} ms"
            )
        if explanation is not None:
            show_explanation(console, explanation)

    return Outcome(document, show)


def _budgets(texts: tuple[str, ...]) -> dict[str, float]:
    from lanaprof.errors import BadInput

    budgets: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or not name or math.isnan(number):
            raise BadInput(
                f"budget {text!r} is not COST=VALUE with a plain number", hint="--budget latency_s@cpu=0.005"
            )
        if name in budgets:
            raise BadInput(f"cost {name!r} has two budgets", hint="keep one of them")
        budgets[name] = number
    if not budgets:
        raise BadInput("no budget was given", hint="--budget latency_s@cpu=0.005")
    return budgets


def _write(choices: dict[str, str], path: Path) -> None:
    from lanaprof.flows.files import write_for_user

    document = {"format": "lanaprof-architecture/1", "teacher": "", "choices": choices}
    write_for_user(path, json.dumps(document, indent=1) + "\n", hint="choose another --out")
