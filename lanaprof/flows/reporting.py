"""report: one self-contained page on where a project stands. Needs no torch.

A part that has nothing to show yet says which command fills it, so the page is useful from ``init`` on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from lanaprof.errors import UserError
from lanaprof.flows.artifacts import read_evaluations, trained_candidates
from lanaprof.flows.chosen import own_selections
from lanaprof.flows.counting import space_words
from lanaprof.flows.pages import facts, page, tiles
from lanaprof.flows.plotting import write_text
from lanaprof.flows.project import Project
from lanaprof.flows.report.baselines import find_baselines
from lanaprof.flows.report.candidates import candidates_csv, layer_views
from lanaprof.flows.report.facts import ReportFacts, speed_up
from lanaprof.flows.report.layers import candidates_section, layers_section
from lanaprof.flows.report.machine import calibration_section, latency_section
from lanaprof.flows.report.outcome import finalists_section, frontier_section, selections_section
from lanaprof.flows.report.project import project_section, space_section
from lanaprof.flows.report.provenance import provenance_section
from lanaprof.flows.report.students import students_section
from lanaprof.flows.report.training import training_section
from lanaprof.flows.shrinking import dropped_candidates, space_costs
from lanaprof.flows.stating import device_predictors, project_devices, project_steps
from lanaprof.flows.summary import latency_summary
from lanaprof.lut import Score, Selection, Store, utc_now
from lanaprof.units import format_duration
from lanaprof.version import VERSION

__all__ = ["Report", "write_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a report shows: names of filled sections, and (name, command) of those that wait."""

    out: Path
    sections: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]


def write_report(
    project: Project,
    store: Store | None,
    out: Path,
    *,
    team: str,
    device: str | None = None,
    baselines: Path | None = None,
    csv: Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Report:
    """Write the page.

    Args:
        project: whose.
        store: its database; None while there is none.
        out: the file.
        team: whose measurements come first.
        device: text; default: the project's first device that has measurements.
        baselines: a JSON file of networks to compare with; default: .lanaprof/baselines.json where it is there.
        csv: where all candidates are written as a table, too.
        extra: a box on top: ``{"title": text, "rows": [[name, value], …]}``.

    Raises:
        UnknownDevice: nobody defined the device.
        BadInput: a file cannot be written, or the baselines make no sense.
    """
    known = _facts(project, store, team=team, device=device, baselines=baselines)
    views = layer_views(known)
    finalists = finalists_section(known)
    sections = [
        frontier_section(known),
        students_section(known),
        selections_section(known),
        *([finalists] if finalists.body else []),  # not a step on the way: nobody waits for them
        layers_section(known, views),
        candidates_section(known, views),
        training_section(known, views),
        calibration_section(known),
        latency_section(known),
        project_section(known),
        space_section(known),
        provenance_section(known),
    ]
    space = project.space
    html = page(
        f"{space.teacher}",
        lead=[f"{space_words(space)}; latencies on {known.device.text}"],
        top=_extra(extra) + _tiles(known),
        sections=sections,
        foot=f"Written by lanaprof {VERSION} at {utc_now()}.",
    )
    write_text(out, html, option="--out")
    if csv is not None:
        write_text(csv, candidates_csv(views), option="--csv")
    return Report(
        out,
        tuple(section.name for section in sections if section.body),
        tuple((section.name, section.missing) for section in sections if not section.body),
    )


def _facts(
    project: Project, store: Store | None, *, team: str, device: str | None, baselines: Path | None
) -> ReportFacts:
    devices = (project.device(device),) if device else project_devices(project, store)
    selections = own_selections(project, store)
    texts = {d.text for d in devices}
    others = [row.device for row in selections if row.device not in texts]
    wanted = list(devices)
    for text in dict.fromkeys(others):
        try:
            wanted.append(project.device(text))
        except UserError:  # selected on a device that devices.yaml no longer has
            continue
    predictors = device_predictors(project, store, wanted, team=team)
    chosen = next((d for d in devices if d.text in predictors), devices[0])
    summary = latency_summary(project, chosen, store, team=team) if store is not None else None
    known = ReportFacts(
        project=project,
        store=store,
        team=team,
        device=chosen,
        predictors=predictors,
        summary=summary,
        score_rows=_score_rows(project, store),
        trained=trained_candidates(project),
        dropped={},
        selections=selections,
        steps=project_steps(project, store, team=team, devices=devices),
        baselines=find_baselines(project, baselines),
    )
    return replace(known, dropped=dropped_candidates(project, space_costs(project, known.own_predictors)))


def _score_rows(project: Project, store: Store | None) -> dict[tuple[str, str], Score]:
    """Return the newest score of every candidate, of the metric and data of the newest of all."""
    rows = store.scores(teacher=project.weights_digest) if store is not None else ()
    if not rows:
        return {}
    newest = max(rows, key=lambda row: (row.time, row.id))
    own = {(layer.name, op) for layer in project.space.layers for op in layer.candidates}
    return {
        (row.layer, row.operation): row
        for row in rows  # sorted by time: the last wins
        if (row.metric, row.data) == (newest.metric, newest.data) and (row.layer, row.operation) in own
    }


def _extra(extra: Mapping[str, Any] | None) -> str:
    if not extra:
        return ""
    rows = [(str(name), str(value)) for name, value in extra.get("rows", ())]
    return f'<div class="result"><h2>{escape(str(extra.get("title", "Result")))}</h2>{facts(rows)}</div>'


def _quality(known: ReportFacts, selection: Selection) -> list[tuple[str, str]]:
    """Return how good the fine-tuned network is, as one tile; none before it is."""
    judged = read_evaluations(known.project, selection).get("finetuned", {})
    for name, text in (("accuracy", "right on held-out data"), ("agreement", "like the teacher")):
        value = judged.get(name)
        if value is not None:
            return [(text, f"{value:.1%}")]
    return []


def _tiles(known: ReportFacts) -> str:
    rows = []
    teacher_s = known.predictor.teacher_s if known.predictor is not None else None
    if teacher_s is not None:
        rows.append(("teacher", format_duration(teacher_s, digits=3)))
    if known.shown is not None:
        latency_s = known.shown.measured_s or known.shown.predicted_s
        how = "measured" if known.shown.measured_s else "predicted"
        if latency_s:
            rows.append((f"latest selection, {how}", format_duration(latency_s, digits=3)))
        speed = speed_up(known, known.shown)
        if speed:
            rows.append(("faster than the teacher", f"{speed:.2f}×"))
        rows += _quality(known, known.shown)
    elif known.summary is not None:
        rows.append(
            ("fastest architecture, about", format_duration(known.summary.fastest.latency_s, digits=3))
        )
    done = sum(1 for step in known.steps if step.done and not step.stale)
    rows.append(("steps done", f"{done} of {len(known.steps)}"))
    return tiles(rows)
