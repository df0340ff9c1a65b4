"""One integer program by one rival in a process of its own: ``python benchmarks/solver_rivals.py NAME FILE.npz``.

The file holds (layers, candidates) ``latency_us`` and ``score``, and ``budget_us``. Prints one JSON object: the seconds
that building the model and solving it took, the score, and whether the rival calls it the optimum; or, where the rival
is not installed, what is missing. Imports do not count. benchmarks/solver.py runs it, by any Python that has the rivals
(pulp, highspy, ortools, pyscipopt): CP-SAT's library and highspy's cannot be loaded into one process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Answer = tuple[
    float, float, "float | None", bool
]  # seconds to build, to solve, score, whether called optimal


def by_pulp(arrays: Any, limit_s: float, *, solver: str) -> Answer:
    """Solve by PuLP, as a user writes it, with CBC or HiGHS, one thread, gap 0."""
    pulp = importlib.import_module("pulp")
    if solver == "highs":
        importlib.import_module("highspy")
    scores, latencies = arrays["score"], arrays["latency_us"]
    start_s = time.perf_counter()
    program = pulp.LpProblem("plain", pulp.LpMaximize)
    x = [
        [program.add_variable(f"x{i}_{j}", 0, 1, cat="Binary") for j in range(scores.shape[1])]
        for i in range(len(scores))
    ]
    flat = [variable for row in x for variable in row]
    program += pulp.lpSum([s * v for s, v in zip(scores.ravel().tolist(), flat, strict=True)])
    for row in x:
        program += pulp.lpSum(row) == 1
    total = pulp.lpSum([w * v for w, v in zip(latencies.ravel().tolist(), flat, strict=True)])
    program += total <= float(arrays["budget_us"])
    built_s = time.perf_counter()
    if solver == "highs":
        engine = pulp.HiGHS(msg=False, threads=1, gapRel=0.0, gapAbs=1e-9, timeLimit=limit_s)
    else:
        bundled = getattr(pulp, "PULP_CBC_CMD", None) or pulp.COIN_CMD
        engine = bundled(msg=False, threads=1, gapRel=0.0, timeLimit=limit_s)
    outcome = program.solve(engine)
    ended_s = time.perf_counter()
    is_new = hasattr(outcome, "has_solution")
    done = outcome.status.name == "Optimal" if is_new else program.sol_status == pulp.LpSolutionOptimal
    return built_s - start_s, ended_s - built_s, pulp.value(program.objective), done


def diverse_by_pulp(arrays: Any, limit_s: float, *, count: int = 10, overlap: float = 0.7) -> dict[str, Any]:
    """Return the seconds of diverse solutions one after the other, each at most so much like every earlier one."""
    pulp = importlib.import_module("pulp")
    scores, latencies = arrays["score"], arrays["latency_us"]
    start_s = time.perf_counter()
    earlier: list[list[int]] = []
    proved = 0
    for _ in range(count):
        program = pulp.LpProblem("diverse", pulp.LpMaximize)
        x = [
            [program.add_variable(f"x{i}_{j}", 0, 1, cat="Binary") for j in range(scores.shape[1])]
            for i in range(len(scores))
        ]
        flat = [variable for row in x for variable in row]
        program += pulp.lpSum([s * v for s, v in zip(scores.ravel().tolist(), flat, strict=True)])
        for row in x:
            program += pulp.lpSum(row) == 1
        total = pulp.lpSum([w * v for w, v in zip(latencies.ravel().tolist(), flat, strict=True)])
        program += total <= float(arrays["budget_us"])
        for one in earlier:
            program += pulp.lpSum([x[i][j] for i, j in enumerate(one)]) <= int(overlap * len(scores))
        outcome = program.solve(pulp.HiGHS(msg=False, threads=1, gapRel=0.0, gapAbs=1e-9, timeLimit=limit_s))
        is_new = hasattr(outcome, "has_solution")
        proved += outcome.status.name == "Optimal" if is_new else program.sol_status == pulp.LpSolutionOptimal
        earlier.append([max(range(len(row)), key=lambda j: row[j].value() or 0.0) for row in x])
    return {"rival_s": time.perf_counter() - start_s, "rival_solutions": count, "rival_proved": proved}


def by_cp_sat(arrays: Any, limit_s: float) -> Answer:
    """Solve by OR-Tools CP-SAT, one worker: whole microseconds, scores in whole millionths."""
    cp_model = importlib.import_module("ortools.sat.python.cp_model")
    scores = np.round(arrays["score"] * 1e6).astype(np.int64)
    latencies = arrays["latency_us"].astype(np.int64)
    start_s = time.perf_counter()
    model = cp_model.CpModel()
    x = [[model.new_bool_var("") for _ in range(scores.shape[1])] for _ in range(len(scores))]
    flat = [variable for row in x for variable in row]
    for row in x:
        model.add_exactly_one(row)
    weighted = cp_model.LinearExpr.weighted_sum
    model.add(weighted(flat, latencies.ravel().tolist()) <= int(arrays["budget_us"]))
    model.maximize(weighted(flat, scores.ravel().tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = limit_s
    built_s = time.perf_counter()
    status = solver.solve(model)
    ended_s = time.perf_counter()
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    score = solver.objective_value / 1e6 if found else None
    return built_s - start_s, ended_s - built_s, score, status == cp_model.OPTIMAL


def by_scip(arrays: Any, limit_s: float) -> Answer:
    """Solve by SCIP through PySCIPOpt."""
    scip = importlib.import_module("pyscipopt")
    scores, latencies = arrays["score"], arrays["latency_us"]
    start_s = time.perf_counter()
    model = scip.Model()
    model.hideOutput()
    model.setParam("limits/time", limit_s)
    x = [[model.addVar(vtype="B") for _ in range(scores.shape[1])] for _ in range(len(scores))]
    flat = [variable for row in x for variable in row]
    for row in x:
        model.addCons(scip.quicksum(row) == 1)
    total = scip.quicksum(w * v for w, v in zip(latencies.ravel().tolist(), flat, strict=True))
    model.addCons(total <= float(arrays["budget_us"]))
    model.setObjective(
        scip.quicksum(s * v for s, v in zip(scores.ravel().tolist(), flat, strict=True)), "maximize"
    )
    built_s = time.perf_counter()
    model.optimize()
    ended_s = time.perf_counter()
    score = model.getObjVal() if model.getNSols() else None
    return built_s - start_s, ended_s - built_s, score, model.getStatus() == "optimal"


RIVALS: dict[str, Callable[[Any, float], Answer]] = {
    "PuLP + CBC": lambda arrays, limit_s: by_pulp(arrays, limit_s, solver="cbc"),
    "PuLP + HiGHS": lambda arrays, limit_s: by_pulp(arrays, limit_s, solver="highs"),
    "CP-SAT": by_cp_sat,
    "SCIP": by_scip,
}


DIVERSE = "diverse"
DISTRIBUTIONS = {
    "PuLP + CBC": ("pulp",),
    "PuLP + HiGHS": ("pulp", "highspy"),
    "CP-SAT": ("ortools",),
    "SCIP": ("pyscipopt",),
}


def main() -> None:
    """Solve and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", choices=(*RIVALS, DIVERSE))
    parser.add_argument("file")
    parser.add_argument("--limit", type=float, default=60.0)
    given = parser.parse_args()
    with np.load(given.file) as file:
        arrays = {name: file[name] for name in file.files}
    if given.rival == DIVERSE:
        print(json.dumps(diverse_by_pulp(arrays, given.limit)))
        return
    try:
        build_s, solve_s, score, is_optimal = RIVALS[given.rival](arrays, given.limit)
    except ImportError as error:
        print(json.dumps({"missing": str(error.name)}))
        return
    told = " with ".join(f"{name} {version(name)}" for name in DISTRIBUTIONS[given.rival])
    answer = {"build_s": build_s, "solve_s": solve_s, "score": score, "optimal": is_optimal}
    print(json.dumps({**answer, "version": told}))


if __name__ == "__main__":
    main()
