"""The report's last section: who measured, where, when, with what, and the commands that lead here."""

from __future__ import annotations

import platform
import shlex
from html import escape

from lanaprof.flows.artifacts import exported_files, student_file
from lanaprof.flows.pages import Section, facts
from lanaprof.flows.report.facts import ReportFacts
from lanaprof.version import VERSION

__all__ = ["provenance_section"]


def provenance_section(known: ReportFacts) -> Section:
    """Return who measured, where, when, with what, and the commands that lead here."""
    from lanaprof.profiler.environment import host_hash

    rows = [
        ("team", known.team),
        ("this host", host_hash()),
        ("lanaprof", VERSION),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("database", known.store.name if known.store is not None else ""),
        ("teacher's weights", known.project.weights_digest),
    ]
    if known.predictor is not None:
        entries = list(known.predictor.table)
        times = sorted(entry.time for entry in entries)
        rows += [
            ("measured by", ", ".join(sorted({entry.team for entry in entries}))),
            ("on hosts", ", ".join(sorted({entry.host for entry in entries}))),
            ("measured", f"{times[0]} to {times[-1]}" if times else ""),
        ]
    commands = escape("\n".join(_commands(known)))
    return Section(
        name="provenance",
        title="Provenance",
        body=f'{facts(rows)}<p>The commands that lead here:</p><pre tabindex="0">{commands}</pre>',
    )


def _commands(known: ReportFacts) -> list[str]:
    """Return the commands behind the steps that are done, in order."""
    config = known.project.config
    init = ["lanaprof", "init", "--teacher", config.teacher]
    for option, value in (("--weights", config.weights), ("--input", config.input), ("--data", config.data)):
        init += [option, value] if value else []
    for option, values in (
        ("--layers", config.layers),
        ("--device", config.devices),
        ("--cost", config.costs),
    ):
        for value in values:
            init += [option, value]
    if config.ops != "quick":
        init += ["--ops", config.ops]
    found = [shlex.join(init)]
    for step in known.steps:
        if not step.done or step.name in ("init", "select", "finetune", "export"):
            continue
        found.append(
            f"lanaprof {step.name}" + (f" --device {shlex.quote(step.device)}" if step.device else "")
        )
    for row in known.selections:
        budgets = [
            f"--budget {_typed(value)}" for cost, value in row.budgets if cost == f"latency_s@{row.device}"
        ]
        found.append(" ".join(["lanaprof select", f"--device {shlex.quote(row.device)}", *budgets]))
        if student_file(known.project, row).is_file():
            found.append(f"lanaprof finetune --selection {row.id[:12]}")
    since = min((row.time for row in known.selections), default="")
    found += [
        f"lanaprof export --out {shlex.quote(name)}" for name in exported_files(known.project, since=since)
    ]
    return list(dict.fromkeys(found))


def _typed(seconds: float) -> str:
    return f"{seconds * 1e3:.6g}ms"
