"""The exact selector against PuLP with HiGHS, interleaved in one run: ``python benchmarks/solver.py``.

Prints milliseconds and ratios per size. The rival is the plain model as a user would write it in PuLP, solved by HiGHS
with one thread at gap 0; it is given ``--limit`` seconds. Both start from the same arrays; building counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from harness import ended, harness_from, parser_for
from numpy.typing import NDArray

from lanaprof.solver import Problem, frontier, problem_from_arrays, solve, solve_diverse

Floats = NDArray[np.float64]
Result = TypeVar("Result")
SIZES = ((46, 197), (60, 200), (1000, 500))


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem with its arrays: (layers, candidates) latency in microseconds and score, and a budget."""

    problem: Problem
    latency_us: Floats
    score: Floats
    budget_us: float


def make_instance(
    layers: int, count: int, *, seed: int = 0, noise: float = 0.7, devices: int = 1
) -> Instance:
    """Return a problem shaped like a search space: candidate 0 is the teacher, candidate 1 nearly free and bad.

    Latency ratios are log-normal around 0.55, losses grow as a candidate gets cheaper, times log-normal noise: at
    0.7 about 10 of 200 candidates of a layer are undominated. Whole microseconds; budget half the teacher's.
    """
    rng = np.random.default_rng(seed)
    teacher_us = rng.lognormal(0, 0.6, layers)
    teacher_us *= 400 * layers / teacher_us.sum()
    sensitivity = rng.lognormal(0, 1.0, layers) * np.sqrt(teacher_us / teacher_us.mean())
    ratio = np.clip(rng.lognormal(np.log(0.55), 0.45, (layers, count)), 0.03, 1.6)
    ratio[:, 0], ratio[:, 1] = 1.0, 0.01
    shape = np.clip(1 - ratio / 1.6, 0.002, 1) ** 1.3
    score = -sensitivity[:, None] * shape * rng.lognormal(0, noise, ratio.shape)
    score[:, 0], score[:, 1] = 0.0, -4 * sensitivity * rng.lognormal(0, 0.2, layers)
    latency_us = np.maximum(np.round(teacher_us[:, None] * ratio), 1.0)
    costs = {"latency_us": latency_us}
    for device in range(1, devices):
        other = ratio**0.6 * rng.lognormal(0, 0.36, ratio.shape)
        costs[f"latency_us_{device}"] = np.maximum(np.round(2.2 * teacher_us[:, None] * other), 1.0)
    names = [[f"c{j}" for j in range(count)]] * layers
    problem = problem_from_arrays([f"l{i}" for i in range(layers)], names, scores=score, costs=costs)
    return Instance(problem, latency_us, score, float(latency_us[:, 0].sum()) / 2)


def solve_by_pulp(instance: Instance, limit_s: float) -> float | None:
    """Return the score of the plain PuLP model under HiGHS at gap 0; None when the limit came first."""
    import pulp

    layers, count = instance.score.shape
    program = pulp.LpProblem("plain", pulp.LpMaximize)
    x = [[program.add_variable(f"x{i}_{j}", 0, 1, cat="Binary") for j in range(count)] for i in range(layers)]
    flat = [variable for row in x for variable in row]
    program += pulp.lpSum([s * v for s, v in zip(instance.score.ravel().tolist(), flat, strict=True)])
    for row in x:
        program += pulp.lpSum(row) == 1
    latencies = instance.latency_us.ravel().tolist()
    program += pulp.lpSum([w * v for w, v in zip(latencies, flat, strict=True)]) <= instance.budget_us
    outcome = program.solve(pulp.HiGHS(msg=False, threads=1, gapRel=0.0, gapAbs=1e-9, timeLimit=limit_s))
    is_new = hasattr(outcome, "has_solution")
    done = outcome.status.name == "Optimal" if is_new else program.sol_status == pulp.LpSolutionOptimal
    return float(pulp.value(program.objective)) if done else None


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds some work took, and its result."""
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def compare(layers: int, count: int, *, rounds: int, limit_s: float) -> dict[str, Any]:
    """Return the times of both sides over interleaved rounds, each on a new instance."""
    ours_s, theirs_s, sorts_s, missed = [], [], [], 0
    for seed in range(rounds):
        instance = make_instance(layers, count, seed=seed)
        solution = solve(instance.problem, {"latency_us": instance.budget_us})
        again_s = [solve(instance.problem, {"latency_us": instance.budget_us}).solve_s for _ in range(5)]
        ours_s.append(statistics.median([solution.solve_s, *again_s]))
        sorts_s.append(timed(lambda: np.argsort(instance.latency_us, axis=1))[0])  # noqa: B023  # called at once
        their_s, score = timed(lambda: solve_by_pulp(instance, limit_s))  # noqa: B023  # called at once
        theirs_s.append(their_s)
        missed += score is None
        assert solution.proved
        if score is not None:
            assert abs(score - solution.score) < 1e-6, "the two optima differ"
    return {
        "layers": layers,
        "candidates": count,
        "ours_s": ours_s,
        "theirs_s": theirs_s,
        "sorts_s": sorts_s,
        "unfinished": missed,
    }


def show(result: dict[str, Any]) -> None:
    """Print one line: median times of both sides."""
    ours, theirs = statistics.median(result["ours_s"]), statistics.median(result["theirs_s"])
    missed, rounds = result["unfinished"], len(result["theirs_s"])
    note = f", HiGHS unfinished in {missed} of {rounds}" if missed else ""
    print(
        f"{result['layers']} x {result['candidates']}: exact {1e3 * ours:.2f} ms "
        f"(slowest {1e3 * max(result['ours_s']):.2f}), PuLP+HiGHS {1e3 * theirs:.0f} ms, ratio {theirs / ours:.0f}, "
        f"{ours / statistics.median(result['sorts_s']):.1f} row-wise argsorts{note}",
        flush=True,
    )


def longer_tasks() -> None:
    """Print the times of fronts, two budgets, many layers, diverse solutions and a case that no bound helps."""
    for layers, count in SIZES:
        instance = make_instance(layers, count)
        took_s, points = timed(lambda: frontier(instance.problem, "latency_us"))  # noqa: B023  # called at once
        print(f"{layers} x {count}: front of {len(points)} points {took_s:.2f} s", flush=True)
        two = make_instance(layers, count, devices=2)
        budgets = {
            k: float(v[::count].sum()) / 2
            for k, v in zip(two.problem.cost_names, two.problem.costs, strict=True)
        }
        solution = solve(two.problem, budgets)
        print(f"{layers} x {count}: two budgets {solution.status} in {solution.solve_s:.2f} s", flush=True)
    for seed in range(3):
        large = make_instance(100_000, 10, seed=seed)
        solution = solve(large.problem, {"latency_us": large.budget_us})
        print(f"100000 x 10: {solution.status} in {solution.solve_s:.2f} s", flush=True)
    instance = make_instance(46, 197)
    budget = {"latency_us": instance.budget_us}
    took_s, found = timed(
        lambda: solve_diverse(instance.problem, budget, top=10, overlap=0.7, time_limit_s=300)
    )
    print(
        f"46 x 197: {len(found)} diverse solutions {took_s:.1f} s, all proved: {all(s.proved for s in found)}"
    )
    weights = np.random.default_rng(0).random((46, 50))
    names = [[f"c{j}" for j in range(50)]] * 46
    sums = problem_from_arrays([f"l{i}" for i in range(46)], names, scores=weights, costs={"t": weights})
    solution = solve(sums, {"t": float(weights.mean(axis=1).sum())}, time_limit_s=20.0)
    gap = solution.bound / solution.score - 1
    print(f"46 x 50 subset-sum in floats: {solution.status} after {solution.solve_s:.1f} s, gap {gap:.1e}")


def main() -> None:
    """Run all comparisons."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="instances per size (a third of them at 1000 x 500)"
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds HiGHS is given per instance")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.limit = 1, 5.0
    harness = harness_from("solver", given, {"rounds": given.rounds, "limit_s": given.limit})

    def run_size(part: str) -> list[dict[str, Any]]:
        layers, count = map(int, part.split("x"))
        rounds = given.rounds if layers < 500 else max(1, given.rounds // 3)
        return [compare(layers, count, rounds=rounds, limit_s=given.limit)]

    harness.parts([f"{layers}x{count}" for layers, count in SIZES[: 1 if given.quick else 3]], run_size)
    for run in harness.finish():
        show(run["result"])
    if not given.quick:
        longer_tasks()


if __name__ == "__main__":
    ended(main)
