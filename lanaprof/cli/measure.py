"""lanaprof measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_from,
    database_option,
    device_option,
    meter,
    notice,
    team_option,
)
from lanaprof.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.config import Device
    from lanaprof.flows.bench import Bench
    from lanaprof.flows.measuring import FileResult, MeasureReport
    from lanaprof.flows.project import Project

_STATES = ("noisy", "failed", "unsupported", "timeout")


def _workers(_context: click.Context, _parameter: click.Parameter, text: str) -> int | None:
    """Return the number asked for; None for as many as is worth it."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number from 1 nor 'auto'")
    return int(text)


@command("measure")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@device_option
@database_option
@team_option
@click.option(
    "--plan", is_flag=True, help="Export and store the operators, say how many and how long; measure nothing."
)
@click.option(
    "--queue", "queued", is_flag=True, help="Let the farm's workers measure it: put it on the device's queue."
)
@click.option("--retry", multiple=True, type=click.Choice(_STATES), help="Measure these again; repeatable.")
@click.option("--force", is_flag=True, help="Measure everything again.")
@click.option("--max-time", metavar="10m", help="Stop after this time, export included.")
@click.option(
    "--workers",
    metavar="N|auto",
    default="1",
    show_default=True,
    callback=_workers,
    help="Measuring processes at once, on cores of their own, as far as they do not slow each other.",
)
@click.option(
    "--lock-clocks",
    is_flag=True,
    help="Fix the GPU's clock at its default meanwhile, where root measures; `lock_clocks` of a device does so always.",
)
@click.option(
    "--exporter",
    default="torchscript",
    type=click.Choice(["torchscript", "dynamo"]),
    show_default=True,
    help="Which of torch's ONNX exporters.",
)
def measure(files: tuple[Path, ...], **options: Any) -> Outcome:
    """Fill the latency database for this project, for ONNX FILEs, or for whatever the database lacks."""
    from lanaprof.config import PROJECT_FILE
    from lanaprof.flows.bench import open_bench
    from lanaprof.flows.devicing import device_to_measure
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.lut import open_store
    from lanaprof.units import parse_duration

    limit_s = (
        parse_duration(options["max_time"], what="--max-time", example="10m") if options["max_time"] else None
    )
    here = Path.cwd()
    project = load_project(here) if (here / PROJECT_FILE).exists() else None
    config = project.config if project is not None else None
    own = config if config is not None and (config.devices or not files) else None
    device = device_to_measure(options["device"], own, here)
    database = (
        project.database(options["database"]) if project is not None else database_from(options["database"])
    )
    if options["lock_clocks"] and device.lock_clocks is None:
        device = replace(device, lock_clocks=0)
    team = default_team(options["team"], config)
    if options["queued"]:
        return _queue(files, project, device, database, team, options)
    _check_available(device, options["workers"])
    with open_store(database, create=True) as store, meter("measuring") as bar:
        bench = open_bench(
            device,
            store,
            team=team,
            state=project.state if project is not None else None,
            report=lambda p: bar(p.done, p.total, p.left_s, p.text),
            notice=notice,
            workers=options["workers"],
        )
        if files:
            return _files(files, bench, options, limit_s)
        if project is None:
            return _gaps(bench, options, limit_s)
        return _project(project, bench, options, limit_s)


def _queue(
    files: Sequence[Path],
    project: Project | None,
    device: Device,
    database: str,
    team: str,
    options: dict[str, Any],
) -> Outcome:
    from lanaprof.cli.queueing import enqueue

    if files or options["plan"] or options["max_time"] or options["workers"] != 1:
        raise BadInput(
            "--queue enqueues a project's or the database's operators; workers have their own limits",
            hint="leave out FILEs, --plan, --max-time and --workers",
        )
    return enqueue(project, device, database, team=team, options=options)


def _check_available(device: Device, workers: int | None) -> None:
    """Fail before any work when this machine is not the device, or has no room for so many workers."""
    from lanaprof.profiler.coresets import choose_core_sets
    from lanaprof.profiler.environment import local_environment

    local_environment(device)
    if workers != 1:
        choose_core_sets(device, workers)


def _document(report: MeasureReport) -> dict[str, Any]:
    return {
        "measured": report.measured,
        "reused": report.reused,
        "noisy": report.noisy,
        "failed": report.failed,
        "unsupported": report.unsupported,
        "timeout": report.timeout,
        "exported": report.exported,
        "cache": report.cache,
        "complete": not report.incomplete,
        "workers": report.workers,
        "slowdown": report.slowdown,
        "seconds": round(report.seconds, 3),
    }


def _code(report: MeasureReport, *, plan: bool) -> int:
    broken = report.failed or report.unsupported or report.timeout
    return 3 if (broken or report.incomplete) and not plan else 0


def _line(report: MeasureReport, of: str = "") -> str:
    """Return what was done, for people; ``of`` says how many operators there are."""
    from lanaprof.units import format_duration

    tail = " (stopped by the limit; the same command goes on)" if report.incomplete else ""
    return f"{of}{report.words} in {format_duration(report.seconds, digits=3)}{tail}"


def _project(project: Project, bench: Bench, options: dict[str, Any], limit_s: float | None) -> Outcome:
    from lanaprof.flows.measuring import measure_project

    with meter("exporting candidates") as bar:
        report = measure_project(
            project,
            bench,
            exporter=options["exporter"],
            retry=options["retry"],
            force=options["force"],
            limit_s=limit_s,
            plan_only=options["plan"],
            exporting=bar,
        )
    document = _document(report)
    if options["plan"]:
        return _plan(project, bench, document)
    document["operators"] = report.operators
    from lanaprof.flows.summary import latency_summary

    summary = latency_summary(project, bench.device, bench.store, team=bench.provenance.team)
    document |= summary.to_json() if summary is not None else {}

    def show(console: Console) -> None:
        console.print(_line(report, f"{report.operators} operators: "))
        if summary is not None:
            summary.show(console)

    return Outcome(document, show, _code(report, plan=False))


def _plan(project: Project | None, bench: Bench, document: dict[str, Any]) -> Outcome:
    from lanaprof.flows.measuring import planned

    plan = planned(project, bench)
    document |= {
        "operators": plan.operators,
        "missing": plan.missing,
        "complete": not plan.missing,
        "estimated_seconds": plan.seconds,
    }

    def show(console: Console) -> None:
        from lanaprof.units import format_duration

        console.print(
            f"{plan.operators} operators, {plan.missing} to measure: about {format_duration(plan.seconds, digits=2)}"
        )

    return Outcome(document, show)


def _gaps(bench: Bench, options: dict[str, Any], limit_s: float | None) -> Outcome:
    from lanaprof.flows.measuring import MeasureReport, measure_gaps

    if options["plan"]:
        return _plan(None, bench, _document(MeasureReport()))
    report = measure_gaps(bench, retry=options["retry"], force=options["force"], limit_s=limit_s)
    return Outcome(_document(report), lambda console: console.print(_line(report)), _code(report, plan=False))


def _files(files: Sequence[Path], bench: Bench, options: dict[str, Any], limit_s: float | None) -> Outcome:
    from lanaprof.flows.measuring import measure_files

    results, report = measure_files(files, bench, force=options["force"], limit_s=limit_s)
    for result, path in zip(results, files, strict=True):
        if result.operator:
            _warn_of_denormals(path)
    document = {**_document(report), "files": [_file(result) for result in results]}

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table
        from lanaprof.units import format_duration

        table = plain_table("file", "#latency", "#95 % interval", "state")
        for result in results:
            row = result.measurement
            if row is None or row.latency_s is None or row.ci_low_s is None or row.ci_high_s is None:
                table.add_row(result.file, "–", "–", result.message or (row.message if row else "missing"))
            else:
                interval = f"{format_duration(row.ci_low_s)} … {format_duration(row.ci_high_s)}"
                table.add_row(result.file, format_duration(row.latency_s), interval, row.status)
        console.print(table)
        console.print(_line(report))

    missing = any(result.measurement is None for result in results)
    return Outcome(document, show, 3 if missing else _code(report, plan=False))


def _warn_of_denormals(path: Path) -> None:
    from lanaprof.profiler.denormals import denormal_share, denormal_warning

    if warning := denormal_warning(path.name, denormal_share(path)):
        notice(warning)


def _file(result: FileResult) -> dict[str, Any]:
    row = result.measurement
    return {
        "file": result.file,
        "operator": result.operator or None,
        "latency_s": row.latency_s if row else None,
        "ci_low_s": row.ci_low_s if row else None,
        "ci_high_s": row.ci_high_s if row else None,
        "status": row.status if row else ("unsupported" if not result.operator else "missing"),
        "message": result.message or (row.message if row else ""),
    }
