"""Does the selected student beat what else one could do at the same measured latency and training?

    python benchmarks/lana.py [--task fashion_mnist] [--speeds 2 3 5] [--seeds 3] [--ops quick|lana|FILE]

Teacher → measure → calibrate → distil → score, once; then for each speed-up, networks within teacher / speed-up:

* lanaprof: ``lanaprof select``, proved on this device;
* random: layers drawn evenly from the same library of trained candidates, filling the budget;
* greedy, evolution: other searches on the same table and scores (evolution for as many seconds as given);
* flops: the best sum of scores under a bound on multiply-accumulates instead of latency;
* uniform: the teacher scaled down in width and depth, untrained at first;
* scratch: the architecture that lanaprof selected, with fresh weights everywhere.

All are exported, timed beside each other and the teacher in a fresh process, and whoever misses the budget, lanaprof
like the others, searches again with a corrected one. Then every network is trained by the same recipe for the same
number of batches; uniform and scratch get as many more as the distilled candidates had seen. Judged on the test data.

The first speed-up is trained with ``--seeds`` seeds (random draws another network for each), the others with one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness import HERE, Harness, command, ended, harness_from, parser_for, say
from lana_searches import Library, by_evolution, by_flops, by_greed, by_luck, library_of
from lana_summary import OURS, show, student_rows
from lana_tasks import Task, find_task, make_project
from lana_training import LIBRARY, SCALED, SCRATCH, judge, test_batches

from lanaprof import open_project
from lanaprof.digest import digest
from lanaprof.errors import BadInput, InfeasibleBudget
from lanaprof.flows.demo import export_teacher, time_files_afresh
from lanaprof.flows.predicting import open_predictor
from lanaprof.flows.project import load_project
from lanaprof.flows.selecting import build_problem, find_scores
from lanaprof.lut import open_store
from lanaprof.profiler.environment import available_cores
from lanaprof.solver import Problem
from lanaprof.space import Architecture, load_architecture

NAME = "lana"
_CORRECTIONS = 3  # times a search is repeated with a corrected budget
_USED = 0.95  # of the budget: a search whose network uses less searches again with a larger one
_RESERVE = 0.997  # of what a correction would allow, so that the next one is rarely needed


def prepare(harness: Harness, task: Task, folder: Path) -> Path:
    """Measure, calibrate, distil and score; return the project's folder."""
    project, options = folder / "project", harness.options
    images = Path(options["images"]) if options["images"] else None
    make_project(project, task, ops=options["ops"], images=images)
    steps = ("--steps", str(task.distill_steps), "--batch-size", str(task.distill_batch))
    for words in (
        ("measure",),
        ("calibrate", "-n", "6" if harness.quick else "16"),
        ("distill", *steps),
        ("score", "--images", str(task.images), *task.scoring),
    ):
        harness.stage(folder, words[0], partial(command, project, *words))
    return project


def problem_of(folder: Path) -> tuple[Problem, Library]:
    """Return the selection problem with latency and multiply-accumulates, and its candidates as a library."""
    project = load_project(folder)
    device = project.device(None)
    with open_store(project.database(None)) as store:
        predictor = open_predictor(project, device, store, team="local")
        # the other searches know single layers only: ours gets no more than they
        project = replace(project, space=replace(project.space, spans=()))
        problem = build_problem(project, [predictor], find_scores(project, store), sizes=("macs",))
    return problem, library_of(problem, predictor.cost_name)


class Contest:
    """The networks of one task: found, exported, timed.

    Attributes:
        task: what is compared on.
        folder: of files.
        project: its folder.
        layers: their names.
    """

    def __init__(self, harness: Harness, task: Task, folder: Path, project: Path) -> None:
        self.task, self.folder, self.project = task, folder, project
        self._harness = harness
        self._problem, self._library = problem_of(project)
        self.layers = self._problem.layer_names

    def selected(self, budget_s: float) -> tuple[str, ...]:
        """Return the operations that ``lanaprof select`` chose for a budget."""
        budget = f"{budget_s * 1e6:.2f}us"
        place = self.folder / f"selected-{budget}.json"
        words = ["select", "--budget", budget, "--out", str(place), *self._harness.options["select"]]
        self._harness.stage(self.folder, f"select-{budget}", partial(command, self.project, *words))
        chosen = dict(load_architecture(place).choices)
        return tuple(chosen.get(layer, "teacher") for layer in self.layers)

    def search(self, method: str, budget_s: float, seed: int) -> tuple[str, ...]:
        """Return what a search finds within a latency."""
        if method == OURS:
            return self.selected(budget_s)
        if method == "random":
            return by_luck(self._library, budget_s, seed=seed)
        if method == "greedy":
            return by_greed(self._library, budget_s)
        if method == "evolution":
            return by_evolution(
                self._library, budget_s, seed=seed, seconds=self._harness.options["evolution_s"]
            )
        return by_flops(self._problem, self._library, budget_s)

    def exported(self, choices: Sequence[str]) -> Path:
        """Return the ONNX file of a network of the space."""
        path = self.folder / f"{digest(list(choices))[:16]}.onnx"
        if not path.exists():
            pairs = tuple(zip(self.layers, choices, strict=True))
            open_project(self.project).export(Architecture("", pairs), path)
        return path

    def teacher_file(self) -> Path:
        """Return the ONNX file of the teacher."""
        path = self.folder / "teacher.onnx"
        if not path.exists():
            export_teacher(self.project, path)
        return path

    def scaled_files(self) -> dict[str, Path]:
        """Return the ONNX files of the scaled teachers by name."""
        from lanaprof.ops import fuse
        from lanaprof.profiler.export import exported_model
        from lanaprof.teachers import load_attribute

        found = {}
        make = load_attribute(self.task.factory, search_path=self.project)
        shape = (1, *(int(size) for size in self.task.size.split("x")))
        for name, arguments in self.task.scaled.items():
            path = self.folder / f"scaled-{digest(dict(arguments))[:12]}.onnx"
            if not path.exists():
                path.write_bytes(exported_model(fuse(make(**arguments).eval()), shape).SerializeToString())
            found[name] = path
        return found

    def timed(self, paths: Sequence[Path]) -> dict[Path, dict[str, float]]:
        """Return the latencies of files, interleaved with the teacher in a fresh process."""
        asked = list(dict.fromkeys([self.teacher_file(), *paths]))
        found = time_files_afresh(asked)
        return {path: found[str(path)] for path in asked}


def find_networks(contest: Contest, speeds: Sequence[float], seeds: int) -> list[dict[str, Any]]:
    """Return the networks to train, with their measured latencies and budgets.

    Args:
        contest: the task's.
        speeds: times faster than the teacher.
        seeds: of the first speed; the others have one.
    """
    entries: list[dict[str, Any]] = []
    for number, speed in enumerate(speeds):
        draws = seeds if number == 0 else 1
        for method, count in ((OURS, 1), ("random", draws), ("greedy", 1), ("evolution", 1), ("flops", 1)):
            entries += [{"speed": speed, "method": method, "draw": draw} for draw in range(count)]
    _fit(contest, entries)
    entries = [entry for entry in entries if "choices" in entry]
    scaled = contest.scaled_files()
    files = {id(entry): contest.exported(entry["choices"]) for entry in entries}
    timed = contest.timed([*files.values(), *scaled.values()])
    teacher_s = timed[contest.teacher_file()]["latency_s"]
    for entry in entries:
        entry.update(timed[files[id(entry)]], budget_s=teacher_s / entry["speed"], teacher_s=teacher_s)
    for speed in speeds:
        budget_s = teacher_s / speed
        inside = {name: timed[path] for name, path in scaled.items() if timed[path]["latency_s"] <= budget_s}
        if not inside:
            say(f"no scaled teacher is {speed:g} times as fast")
            continue
        name = max(inside, key=lambda one: inside[one]["latency_s"])
        entries.append(
            {"speed": speed, "method": "uniform", "draw": 0, "scaled": name, "budget_s": budget_s,
             "teacher_s": teacher_s, **inside[name]}
        )  # fmt: skip
    return entries


def _fit(contest: Contest, entries: Sequence[dict[str, Any]]) -> None:
    """Give every search a network whose measured latency is within the budget, and most of it."""
    first = contest.timed([])[contest.teacher_file()]["latency_s"]
    asked = {id(entry): first / entry["speed"] for entry in entries}
    open_ones = list(entries)
    for _ in range(_CORRECTIONS + 1):
        for entry in list(open_ones):
            try:
                entry["choices"] = contest.search(entry["method"], asked[id(entry)], entry["draw"])
            except InfeasibleBudget as error:
                say(f"  {entry['method']} finds nothing {entry['speed']:g} times as fast: {error.message}")
                open_ones.remove(entry)  # keeps what an earlier turn found, over the budget as it is
        timed = contest.timed([contest.exported(entry["choices"]) for entry in open_ones])
        teacher_s = timed[contest.teacher_file()]["latency_s"]
        missed = []
        for entry in open_ones:
            used = timed[contest.exported(entry["choices"])]["latency_s"] * entry["speed"] / teacher_s
            if not _USED <= used <= 1.0:
                asked[id(entry)] *= _RESERVE / used
                missed.append(entry)
        say(f"  {len(open_ones) - len(missed)} of {len(open_ones)} searches fill their budget")
        open_ones = missed
        if not missed:
            return


def training_jobs(
    harness: Harness, task: Task, contest: Contest, entries: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the jobs by key; networks that several methods found are trained once per seed."""
    options = harness.options
    more = round(task.distill_steps * task.distill_batch / task.tune_batch)
    fresh_rate = task.fresh_learning_rate or task.learning_rate
    jobs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        seeds = options["seeds"] if entry["speed"] == options["speeds"][0] else 1
        kinds = [SCALED if entry["method"] == "uniform" else LIBRARY]
        if entry["method"] == OURS:
            kinds.append(SCRATCH)
        for kind in kinds:
            for seed in [entry["draw"]] if entry["method"] == "random" else range(seeds):
                job = {
                    "project": str(contest.project),
                    "kind": kind,
                    "choices": list(entry.get("choices", ())),
                    "factory": task.factory,
                    "arguments": dict(task.scaled[entry["scaled"]]) if kind == SCALED else {},
                    "steps": task.tune_steps + (0 if kind == LIBRARY else more),
                    "batch": task.tune_batch,
                    "learning_rate": task.learning_rate if kind == LIBRARY else fresh_rate,
                    "evaluations": 4,
                    "precision": options["precision"],
                    "ema": options["ema"],
                    "seed": seed,
                    "test": task.test.format(images=options["images"]),
                }
                method = "scratch" if kind == SCRATCH else entry["method"]
                used = jobs.setdefault(digest(job)[:16], {**job, "uses": []})
                used["uses"].append({"speed": entry["speed"], "method": method, "seed": seed})
    return jobs


def train_all(
    harness: Harness, folder: Path, jobs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Train every network, one per core at a time; those that ended before a stop are not trained again."""
    place = folder / "jobs"
    place.mkdir(exist_ok=True)
    waiting: SimpleQueue[str | None] = SimpleQueue()
    for key in sorted(jobs, key=lambda key: (jobs[key]["seed"], key)):  # seeds together share more
        if not (place / f"{key}.result.json").exists():
            waiting.put(key)
    cores = harness.options["cores"]
    for _ in cores:
        waiting.put(None)

    def work(core: int) -> None:
        script = [sys.executable, str(HERE / "lana_training.py"), "--core", str(core)]
        with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while (key := waiting.get()) is not None:
                path = place / f"{key}.json"
                path.write_text(json.dumps(jobs[key]), encoding="utf-8")
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
                if not process.stdout.readline():
                    raise BadInput(f"training {path} failed", hint="its error is above")
                done = len(list(place.glob("*.result.json")))
                say(f"  trained {done} of {len(jobs)}: {jobs[key]['uses'][0]}")

    with ThreadPoolExecutor(len(cores)) as workers:
        list(workers.map(work, cores))
    return {key: json.loads((place / f"{key}.result.json").read_text(encoding="utf-8")) for key in jobs}


def run_task(harness: Harness, name: str) -> list[dict[str, Any]]:
    """Return the result of a task."""
    task = find_task(name, quick=harness.quick)
    folder, options = harness.folder(name), harness.options
    project = prepare(harness, task, folder)
    contest = Contest(harness, task, folder, project)
    networks = harness.stage(
        folder, "networks", lambda: {"rows": find_networks(contest, options["speeds"], options["seeds"])}
    )["rows"]
    jobs = training_jobs(harness, task, contest, networks)
    trained = train_all(harness, folder, jobs)
    teacher = harness.stage(folder, "teacher", partial(judged_teacher, contest, task, options["images"]))
    stages = {
        one: json.loads((folder / f"stage-{one}.json").read_text()) for one in ("measure", "distill", "score")
    }
    return [
        {
            "task": name,
            "teacher": {key: teacher[key] for key in ("images", "wrong_count")},
            "layers": len(contest.layers),
            "candidates": stages["distill"]["candidates"],
            "trained": stages["distill"]["trained"],
            "distill_s": stages["distill"]["wall_s"],
            "steps": {"distill": [task.distill_steps, task.distill_batch], "tune": [task.tune_steps, task.tune_batch]},
            "students": student_rows(networks, jobs, trained),
        }
    ]  # fmt: skip


def judged_teacher(contest: Contest, task: Task, images: str) -> dict[str, Any]:
    """Return how many test images the teacher classifies wrongly; None without labels."""
    from lanaprof.flows.learning import load_project_data

    project = load_project(contest.project)
    module = project.load_teacher().module
    batches = test_batches(project, load_project_data(project), task.test.format(images=images))
    wrong, _ = judge(module, module, batches)
    count = sum(len(x) for x, _ in batches)
    return {"images": count, "wrong_count": None if wrong is None else len(wrong)}


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument("--task", nargs="+", default=["fashion_mnist"], dest="tasks", metavar="NAME")
    parser.add_argument(
        "--speeds", nargs="+", type=float, default=[3.0, 2.0, 5.0], help="the first has all seeds"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ops", default="quick", help="quick, lana, or a file")
    parser.add_argument(
        "--evolution-s", type=float, default=10.0, help="wall time of the evolutionary search"
    )
    parser.add_argument(
        "--select", nargs="*", default=[], help="further options of lanaprof select, without --"
    )
    parser.add_argument("--precision", default="auto", help="of training: fp32, bf16, or auto")
    parser.add_argument("--no-ema", dest="ema", action="store_false")
    parser.add_argument("--images", type=Path, help="folder with train and test, for tasks on photographs")
    parser.add_argument("--cores", nargs="+", type=int, help="one network is trained on each [default: all]")
    given = parser.parse_args()  # fmt: skip
    if given.quick:
        given.tasks, given.speeds, given.seeds, given.evolution_s = ["tiny"], [1.2], 1, 0.2
    if any(speed <= 1 for speed in given.speeds):
        raise BadInput("a speed-up is above 1", hint="--speeds 2 3 5")
    options = {
        "speeds": given.speeds,
        "seeds": given.seeds,
        "ops": given.ops,
        "evolution_s": given.evolution_s,
        "select": [word if word[:1].isdigit() else f"--{word}" for word in given.select],
        "precision": given.precision,
        "ema": given.ema,
        "images": str(given.images.resolve()) if given.images else "",
        "cores": given.cores or sorted(available_cores()),
    }
    for name in given.tasks:
        find_task(name, quick=given.quick)
    harness = harness_from(NAME, given, options)
    harness.parts(given.tasks, lambda name: run_task(harness, name))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
