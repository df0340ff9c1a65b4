"""Write docs/benchmarks.md and its charts from the committed results: ``python benchmarks/page.py``.

Every figure on the page comes out of benchmarks/results/*.json; nothing is typed by hand, and smoke runs are left out.
Of several runs of one thing the newest counts. ``--check`` writes nothing and exits with 1 when the page is another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import HERE, RESULTS, ended, read_runs
from sections import Section
from sections_campaigns import proving, repeatability, throughput
from sections_distilling import distilling, shrinking
from sections_farm import farm
from sections_hub import hub_scale
from sections_networks import accuracy, rivals
from sections_precision import precision
from sections_solver import solver
from sections_store import million
from sections_students import students

ROOT = HERE.parent
PAGE = "docs/benchmarks.md"
IMAGES = "docs/images"
Run = Mapping[str, Any]

_HEAD = """\
# Benchmarks

<!-- Generated: python benchmarks/page.py; a test compares this page with the results it is made of. -->

What is claimed of lanaprof's numbers, as measured. `make benchmarks` runs all of it anew (a few hours on a machine that
does nothing else), adds to `benchmarks/results/` and writes this page; each section names its commands. Errors are
predicted / measured − 1 throughout. The last section says on which machine, when, with which versions and load.
"""


def newest(runs: Iterable[Run], key: Callable[[Run], Hashable]) -> list[Run]:
    """Return the last run of each key, in the order in which the keys came up first."""
    found: dict[Hashable, Run] = {}
    for run in sorted(runs, key=lambda run: str(run["time"])):
        found[key(run)] = run
    return list(found.values())


def _sections(runs: Sequence[Run]) -> list[Section]:
    def of(name: str) -> list[Run]:
        return [run for run in runs if run["benchmark"] == name]

    judged = of("latency_accuracy")
    counted = [run for run in judged if run["result"]["counted"]]
    by_space = newest(counted, lambda run: (run["part"], run["options"]["threads"]))
    with_rivals = [run for run in counted if "rivals" in run["result"]]
    return [
        students(newest(of("lana"), lambda run: run["part"])),
        accuracy(by_space, noisy=len(judged) - len(counted)),
        rivals(newest(with_rivals, lambda run: (run["part"], run["options"]["threads"]))),
        repeatability(
            newest(
                of("repeatability"),
                lambda run: (run["part"], run["result"]["protocol"], run["options"]["hogs"]),
            )
        ),
        proving(newest(of("proving"), lambda run: run["part"])),
        precision(newest(of("precision"), lambda run: run["part"])),
        throughput(newest(of("throughput"), lambda run: run["part"])),
        farm(newest(of("farm"), lambda run: run["options"]["workers"])),
        solver(newest(of("solver"), lambda run: (run["part"], run["result"].get("name")))),
        million(
            newest(
                of("million"),
                lambda run: (
                    run["part"],
                    run["options"]["rows"],
                    run["result"].get("policy"),
                    run["result"]["what"],
                ),
            )
        ),
        hub_scale(newest(of("hub_scale"), lambda run: (run["part"], run["result"].get("name")))),
        shrinking(newest(of("shrinking"), lambda run: run["part"])),
        distilling(
            newest(
                of("distilling"),
                lambda run: (run["part"], run["result"]["precision"], run["result"]["threads"]),
            )
        ),
    ]


def _provenance(runs: Sequence[Run]) -> list[str]:
    """Return where the figures come from, one line per run of a benchmark."""
    if not runs:
        return []
    lines = [
        "## Where the figures come from",
        "",
        "Load is the system's average over a minute before and after a part; steal is what the hypervisor took.",
        "",
        "| date | command | machine | versions | load | steal |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in newest(runs, lambda run: (run["run"], run["command"])):
        own = [one for one in runs if one["run"] == run["run"]]
        machine, versions = run["machine"], run["versions"]
        loads = [
            one["load"][when] for one in own for when in ("before", "after") if one["load"][when] is not None
        ]
        steals = [one["load"]["steal"] for one in own if one["load"]["steal"] is not None]
        described = (
            f"{machine['cpu_model']}, {machine['cores']} cores{', virtual' if machine['virtual'] else ''}"
        )
        load = f"{min(loads):.1f}–{max(loads):.1f}" if loads else "–"
        steal = f"{max(steals):.2%}" if steals else "–"
        listed = ", ".join(f"{name} {number}" for name, number in versions.items())
        date = str(run["time"])[:10]
        lines.append(
            f"| {date} | `{run['command']}` | {described}, {machine['system']} | {listed} | {load} | {steal} |"
        )
    return [*lines, ""]


def files_from(runs: Sequence[Run]) -> dict[str, str]:
    """Return the page and its charts, by their path from the root of the repository."""
    told = [run for run in runs if not run["quick"]]
    lines: list[str] = [_HEAD]
    files: dict[str, str] = {}
    used: list[Run] = []
    for section in _sections(told):
        lines += [f"## {section.title}", "", *section.lines, ""]
        for name, content in section.images.items():
            files[f"{IMAGES}/{name}"] = content
        used += section.runs
    ids = [id(run) for run in used]
    kept = [run for number, run in enumerate(used) if id(run) not in ids[:number]]
    files[PAGE] = "\n".join([*lines, *_provenance(kept)]).rstrip() + "\n"
    return files


def stale(files: Mapping[str, str], root: Path) -> list[str]:
    """Return the files that are missing, differ, or are charts nobody draws any more."""
    drawn = {str(path.relative_to(root)) for path in (root / IMAGES).glob("benchmark-*.svg")}
    wrong = [
        name
        for name, content in files.items()
        if not (root / name).exists() or (root / name).read_text(encoding="utf-8") != content
    ]
    return sorted({*wrong, *(drawn - set(files))})


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when the page is another"
    )
    given = parser.parse_args()
    files = files_from([run for path in sorted(RESULTS.glob("*.json")) for run in read_runs(path)])
    wrong = stale(files, ROOT)
    if given.check:
        if wrong:
            sys.exit(f"not what the results say: {', '.join(wrong)}\n  → python benchmarks/page.py")
        return
    for name in wrong:
        path = ROOT / name
        if name not in files:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name], encoding="utf-8")
    print(f"{len(wrong)} files written")


if __name__ == "__main__":
    ended(main)
