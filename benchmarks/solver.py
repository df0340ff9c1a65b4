"""The solver against integer programs, interleaved in one run on one core: ``python benchmarks/solver.py``.

Parts: one budget beside four rivals on the same arrays (each in a process of its own, benchmarks/solver_rivals.py, by
``--python``, any Python that has them; building the model counts, imports don't); large tables beside one argsort;
every budget at once; two budgets; ten diverse solutions; spans and pairs beside our own integer program; and small
adversarial problems of every kind, exact = integer program on each of them.

The rivals, once: ``python -m venv build/rivals && build/rivals/bin/pip install "pulp<4" highspy ortools pyscipopt``,
then ``--python build/rivals/bin/python``. PuLP below 4 brings CBC along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from harness import HERE, Harness, ended, harness_from, parser_for, say
from solver_cases import FAMILIES, STRUCTURES, Instance, make_chained, make_instance, random_case
from solver_rivals import DIVERSE, RIVALS

from lanaprof.errors import InfeasibleBudget, UserError
from lanaprof.solver import Solution, frontier, load_problem, solve, solve_diverse
from lanaprof.solver.exact import stairs_of
from lanaprof.solver.front import best_scores

Result = TypeVar("Result")
Row = dict[str, Any]
RIVAL_SIZES = {"46x197": 3, "60x200": 3, "200x200": 1}  # and how many instances
LARGE_SIZES = ("1000x500", "100000x10")
CHAINS = {  # layers, candidates, terms at each boundary, spans
    "10 × 20, spans and pairs": (10, 20, 20, 5),
    "46 × 197, 40 spans": (46, 197, 0, 40),
    "46 × 197, 400 terms a boundary": (46, 197, 400, 0),
    "300 × 200, 100 terms a boundary, 100 spans": (300, 200, 100, 100),
}
_PROGRAM_LIMIT_S = 20.0  # for our own integer program on spans and pairs


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds some work took, and its result."""
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def by_rival(rival: str, instance: Instance, folder: Path, python: str, limit_s: float) -> Row:
    """Return what one rival says of an instance, from a process of its own."""
    file = folder / "instance.npz"
    np.savez(file, latency_us=instance.latency_us, score=instance.score, budget_us=instance.budget_us)
    script = str(HERE / "solver_rivals.py")
    words = [python, script, rival, str(file), "--limit", str(limit_s)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        return {"missing": ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "no answer"}
    answer: Row = json.loads(ran.stdout.splitlines()[-1])
    return answer


def beside_rivals(part: str, harness: Harness, python: str, *, rounds: int, limit_s: float) -> Row:
    """Return the best times of ours (of nine) and of every rival (of two), on the same arrays in turn."""
    layers, count = map(int, part.split("x"))
    rows = []
    for seed in range(rounds):
        instance = make_instance(layers, count, seed=seed)
        ours = [solve(instance.problem, instance.budget) for _ in range(9)]
        row: Row = {"ours_s": min(one.solve_s for one in ours), "proved": ours[0].proved}
        for rival in RIVALS:
            answers = [by_rival(rival, instance, harness.folder(part), python, limit_s) for _ in range(2)]
            answer = min(answers, key=lambda one: one.get("build_s", 0.0) + one.get("solve_s", 0.0))
            if answer.get("score") is not None:
                # CP-SAT rounds 46 or more scores to millionths; the others see the same floats.
                answer["off"] = answer.pop("score") - ours[0].score
            row[rival] = answer
        rows.append(row)
    return {"kind": "rivals", "layers": layers, "candidates": count, "instances": rows, "limit_s": limit_s}


def beside_argsort(part: str) -> Row:
    """Return the time of the whole solve beside one argsort of the latencies, by rows and of all, in turns.

    Processor time: an argsort ends between two turns of the scheduler, so that others slow only the solve down.
    """
    layers, count = map(int, part.split("x"))
    instance = make_instance(layers, count)
    works: dict[str, Callable[[], Any]] = {
        "ours_s": lambda: solve(instance.problem, instance.budget),
        "argsort_rows_s": lambda: np.argsort(instance.latency_us, axis=1),
        "argsort_all_s": lambda: np.argsort(instance.latency_us, axis=None),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(15):
        for name, work in works.items():
            began_s = time.thread_time()
            work()
            times[name].append(time.thread_time() - began_s)
    solution = solve(instance.problem, instance.budget)
    least = {name: min(taken) for name, taken in times.items()}
    ratios = {
        f"in_{name}": float(np.median(np.divide(times["ours_s"], times[name])))
        for name in ("argsort_rows_s", "argsort_all_s")
    }
    sizes = {"layers": layers, "candidates": count}
    return {
        "kind": "large",
        **sizes,
        "proved": solution.proved,
        "wall_s": solution.solve_s,
        **least,
        **ratios,
    }


def every_budget(harness: Harness, python: str, limit_s: float) -> Row:
    """Return the time of the optimum for every whole microsecond of 46 × 197, beside one budget by PuLP and HiGHS."""
    instance = make_instance(46, 197)
    reach = round(float(instance.latency_us[:, 0].sum()))
    everything = np.ones(len(instance.problem.scores), dtype=np.bool_)

    def fill() -> int:
        stairs, _ = stairs_of(instance.problem, everything, 0, budget=2.0 * reach)
        return len(best_scores(stairs, 1 / stairs.cost_scale, round(reach - stairs.low_cost)))

    ours_s, rival_s, budgets = [], [], 0
    for _ in range(3):
        took_s, budgets = min(timed(fill) for _ in range(3))
        ours_s.append(took_s)
        answer = by_rival("PuLP + HiGHS", instance, harness.folder("every budget"), python, limit_s)
        rival_s.append(answer["build_s"] + answer["solve_s"])
    front_s, points = timed(lambda: frontier(instance.problem, "latency_us"))
    row = {"budgets": budgets, "ours_s": min(ours_s), "rival_s": min(rival_s)}
    return {"kind": "every budget", **row, "front_s": front_s, "points": len(points)}


def two_budgets() -> Row:
    """Return the time to the proof under two budgets at 1000 × 500."""
    two = make_instance(1000, 500, devices=2)
    budgets = {
        name: float(cost[::500].sum()) / 2
        for name, cost in zip(two.problem.cost_names, two.problem.costs, strict=True)
    }
    found = [solve(two.problem, budgets) for _ in range(3)]
    times = [one.solve_s for one in found]
    return {"kind": "two budgets", "ours_s": min(times), "slowest_s": max(times), "proved": found[0].proved}


def diverse(harness: Harness, python: str, limit_s: float) -> Row:
    """Return the time of ten diverse proved solutions of 46 × 197, beside the raw program's for the same ten."""
    instance = make_instance(46, 197)
    ours_s, found = timed(
        lambda: solve_diverse(instance.problem, instance.budget, top=10, overlap=0.7, time_limit_s=300)
    )
    row: Row = {"ours_s": ours_s, "solutions": len(found), "proved": all(one.proved for one in found)}
    rival = by_rival(DIVERSE, instance, harness.folder("diverse"), python, limit_s)
    return {"kind": "diverse", **row, "each_s": [one.solve_s for one in found], **rival, "limit_s": limit_s}


def chains() -> list[Row]:
    """Return, for problems with spans and pairs, times of ours and of our own integer program."""
    rows = []
    for name, (layers, count, terms, spans) in CHAINS.items():
        instance = make_chained(layers, count, terms=terms, spans=spans)
        exact = [solve(instance.problem, instance.budget) for _ in range(3)]
        row: Row = {"name": name, "ours_s": min(one.solve_s for one in exact), "proved": exact[0].proved}
        program: Solution | None = None
        if layers < 100:
            row["limit_s"] = _PROGRAM_LIMIT_S
            try:
                program = solve(
                    instance.problem, instance.budget, method="mip", time_limit_s=_PROGRAM_LIMIT_S
                )
            except UserError:  # out of time before any choice was found
                row["program_s"] = None
        front_s, points = timed(partial(frontier, instance.problem, "latency_us", points=50))
        row |= {"front_s": front_s, "points": len(points)}
        if program is not None:
            row |= {"program_s": program.solve_s, "program_proved": program.proved}
            row["off"] = program.score - exact[0].score
        rows.append({"kind": "chain", **row})
    return rows


def one_case(family: str, structure: str, seed: int) -> str | None:
    """Return what is wrong with the answers to one small problem; None when all is as it must be."""
    document, budget = random_case(family, structure, seed)
    problem, cost = load_problem(document), "latency_us"
    scale = 1e-9 * float(np.abs(problem.scores).max(initial=0.0)) * len(problem.layer_names)
    try:
        exact = solve(problem, {cost: budget})
    except InfeasibleBudget:
        try:
            solve(problem, {cost: budget}, method="mip")
        except InfeasibleBudget:
            return None
        return "exact calls it infeasible, the program does not"
    program = solve(problem, {cost: budget}, method="mip")
    if not (exact.proved and program.proved):
        return f"not proved: exact {exact.proved}, program {program.proved}"
    if abs(exact.score - program.score) > scale:
        return f"exact {exact.score!r}, program {program.score!r}"
    if exact.bound < exact.score:
        return "the bound is below the answer"
    more = solve(problem, {cost: budget + 0.1 * abs(budget)})
    if more.score < exact.score - scale:
        return f"a larger budget scores {more.score!r}, less than {exact.score!r}"
    turned = solve(load_problem(turned_round(document)), {cost: budget})
    if abs(turned.score - exact.score) > scale:
        return f"in another order {turned.score!r} instead of {exact.score!r}"
    return None


def turned_round(document: Row) -> Row:
    """Return the same problem with layers and candidates in the opposite order."""
    layers = [{**layer, "candidates": layer["candidates"][::-1]} for layer in document["layers"]]
    spans = [{**span, "first": span["last"], "last": span["first"]} for span in document.get("spans", [])]
    return {**document, "layers": layers[::-1], "spans": spans}


def adversarial(instances: int) -> Row:
    """Return how many small problems of every family and structure were solved alike by all."""
    kinds = [(family, structure) for family in FAMILIES for structure in STRUCTURES]
    wrong: list[str] = []
    for number in range(instances):
        family, structure = kinds[number % len(kinds)]
        fault = one_case(family, structure, number // len(kinds))
        if fault is not None:
            wrong.append(f"{family}, {structure}, {number // len(kinds)}: {fault}")
    return {"kind": "adversarial", "instances": instances, "kinds": len(kinds), "wrong": wrong}


def main() -> None:
    """Run all comparisons."""
    parser = parser_for(__doc__)
    parser.add_argument("--python", default=sys.executable, help="the Python that runs the rivals")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a rival is given per instance")
    parser.add_argument("--instances", type=int, default=2016, help="small adversarial problems")
    parser.add_argument("--parts", nargs="+", help="only these")
    given = parser.parse_args()
    if given.quick:
        given.limit, given.instances = 5.0, 72
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(
            0, {max(os.sched_getaffinity(0))}
        )  # one core for both sides; children inherit it
    harness = harness_from("solver", given, {"limit_s": given.limit, "instances": given.instances})

    def run(part: str) -> list[Row]:
        if part in RIVAL_SIZES:
            rounds = 1 if given.quick else RIVAL_SIZES[part]
            return [beside_rivals(part, harness, given.python, rounds=rounds, limit_s=given.limit)]
        if part in LARGE_SIZES:
            return [beside_argsort(part)]
        if part == "chains":
            return chains()
        others: dict[str, Callable[[], Row]] = {
            "every budget": lambda: every_budget(harness, given.python, given.limit),
            "two budgets": two_budgets,
            "diverse": lambda: diverse(harness, given.python, given.limit),
            "adversarial": lambda: adversarial(given.instances),
        }
        return [others[part]()]

    names = [*RIVAL_SIZES, *LARGE_SIZES, "every budget", "two budgets", "diverse", "chains", "adversarial"]
    harness.parts(given.parts or (["46x197", "adversarial"] if given.quick else names), run)
    for one in harness.finish():
        say(f"{one['part']}: {json.dumps(one['result'], ensure_ascii=False)}")


if __name__ == "__main__":
    ended(main)
