"""A report's section on the students: how good they are beside the teacher and networks from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from lanaprof.flows.artifacts import exported_files, read_evaluations, student_file
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.marks import Mark, interval_of
from lanaprof.flows.pages import Cell, Section, details, facts, figure, table
from lanaprof.flows.project import Project
from lanaprof.flows.report.charts import quality_chart
from lanaprof.flows.report.facts import DASH, ReportFacts, duration_cell, number_cell, number_text
from lanaprof.lut import Selection
from lanaprof.units import format_duration, format_size

__all__ = ["quality_marks", "students_section"]

_NORMAL_95 = 1.96
_METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "agreement": "agreement with the teacher",
    "kl": "divergence from the teacher (nats, less is better)",
    "loss": "cross entropy (nats, less is better)",
}
_SHORT = {"kl": "divergence", "loss": "cross entropy"}  # in tables
_SHARES = ("accuracy", "agreement")  # between 0 and 1, with a binomial error
_OF_TEACHER = {"agreement": 1.0, "kl": 0.0}  # by definition
_STAGES = {
    "assembled": "assembled",
    "reestimated": "batch norm re-estimated",
    "finetuned": "fine-tuned",
}


def students_section(known: ReportFacts) -> Section:
    """Return how good the fine-tuned networks are, beside the teacher and baselines, and what was exported."""
    tuned = [row for row in known.selections if student_file(known.project, row).is_file()]
    since = min((row.time for row in known.selections), default="")
    files = exported_files(known.project, since=since)
    if not tuned and not files and not known.baselines:
        missing = known.command("finetune" if known.selections else "select")
        return Section(name="students", title="Students", body="", missing=missing)
    teacher_s = known.predictor.teacher_s if known.predictor is not None else None
    body = ""
    for metric in _metrics(known, tuned):
        marks = quality_marks(known, metric)
        drawing = quality_chart(
            marks, device=known.device.text, metric=_METRICS.get(metric, metric), teacher_s=teacher_s
        )
        caption = (
            "Measured latency against quality on held-out data; bars are 95 % intervals where they are known."
        )
        body += figure(svg_from_drawing(drawing), caption)
    if tuned or known.baselines:
        body += _quality_table(known, tuned)
    if tuned:
        body += _stages_table(known, tuned)
    named = [(name, _file_text(known.project, name)) for name in files]
    return Section(name="students", title="Students", body=body + (facts(named) if named else ""))


def _metrics(known: ReportFacts, tuned: list[Selection]) -> list[str]:
    """Return what to draw: what baselines are judged by, else accuracy, else agreement, else divergence."""
    judged = [read_evaluations(known.project, row).get("finetuned", {}) for row in tuned]
    own = [name for name in ("accuracy", "agreement", "kl") if any(e.get(name) is not None for e in judged)]
    found = [*dict.fromkeys(baseline.metric for baseline in known.baselines), *own[:1]]
    return [name for name in dict.fromkeys(found) if quality_marks(known, name)]


def quality_marks(known: ReportFacts, metric: str) -> list[Mark]:
    """Return teacher, students and baselines whose latency and quality in a metric are known."""
    marks = []
    teacher_s = known.predictor.teacher_s if known.predictor is not None else None
    if teacher_s is not None and metric in _OF_TEACHER:
        own = _OF_TEACHER[metric]
        marks.append(
            Mark(label="", latency_s=teacher_s, score=own, measured=True, kind="teacher", title="teacher")
        )
    for row in known.selections:
        latency_s = row.measured_s or row.predicted_s
        judged = read_evaluations(known.project, row).get("finetuned", {})
        value, images = judged.get(metric), judged.get("images")
        if row.device != known.device.text or not latency_s or value is None:
            continue
        error = (value * (1 - value) / images) ** 0.5 if metric in _SHARES and images else None
        marks.append(
            Mark(
                label=row.id[:8],
                latency_s=latency_s,
                score=value,
                measured=row.measured_s is not None,
                title=f"student {row.id[:12]}: {format_duration(latency_s)}, {metric} {_quality_text(metric, value)}",
                kind="student",
                latency_span_s=interval_of(row),
                score_span=_interval(value, error),
            )
        )
    for baseline in known.baselines:
        if baseline.metric == metric:
            quality = _quality_text(metric, baseline.quality)
            marks.append(
                Mark(
                    label=baseline.name,
                    latency_s=baseline.latency_s,
                    score=baseline.quality,
                    measured=True,
                    title=f"{baseline.name}: {format_duration(baseline.latency_s)}, {metric} {quality}",
                    kind="baseline",
                    score_span=_interval(baseline.quality, baseline.standard_error),
                )
            )
    return marks


def _interval(value: float, standard_error: float | None) -> tuple[float, float] | None:
    if standard_error is None:
        return None
    return value - _NORMAL_95 * standard_error, value + _NORMAL_95 * standard_error


def _quality_text(metric: str, value: float | None, standard_error: float | None = None) -> str:
    if value is None:
        return DASH
    if metric in _SHARES:
        text = f"{value:.2%}"
        return text if standard_error is None else f"{text} ± {_NORMAL_95 * standard_error:.2%}"
    text = number_text(value)
    return text if standard_error is None else f"{text} ± {number_text(_NORMAL_95 * standard_error)}"


def _quality_table(known: ReportFacts, tuned: list[Selection]) -> str:
    """Return teacher, students and baselines in numbers."""
    teacher_s = known.predictor.teacher_s if known.predictor is not None else None
    others = [b.metric for b in known.baselines if b.metric not in ("accuracy", "agreement", "kl")]
    metrics = ["accuracy", "agreement", "kl", *dict.fromkeys(others)]
    rows: list[list[Cell]] = []

    def add(name: str, latency_s: float | None, qualities: Mapping[str, Cell]) -> None:
        speed = teacher_s / latency_s if teacher_s and latency_s else None
        cells = [qualities.get(metric, (DASH, None)) for metric in metrics]
        speed_cell: Cell = (f"{speed:.2f}×", speed) if speed else (DASH, None)
        rows.append([name, duration_cell(latency_s, digits=4), speed_cell, *cells])

    add("teacher", teacher_s, {m: (_quality_text(m, v), v) for m, v in _OF_TEACHER.items()})
    for row in tuned:
        judged = read_evaluations(known.project, row).get("finetuned", {})
        images = judged.get("images")
        qualities = {}
        for metric in metrics:
            value = judged.get(metric)
            error = (value * (1 - value) / images) ** 0.5 if value and images and metric in _SHARES else None
            qualities[metric] = (_quality_text(metric, value, error), value)
        name = f"student {row.id[:12]}" + ("" if row.measured_s is not None else " (latency predicted)")
        add(name, row.measured_s or row.predicted_s, qualities)
    for baseline in known.baselines:
        text = _quality_text(baseline.metric, baseline.quality, baseline.standard_error)
        add(baseline.name, baseline.latency_s, {baseline.metric: (text, baseline.quality)})
    columns = ["network", "#latency", "#speed-up", *(f"#{_SHORT.get(name, name)}" for name in metrics)]
    return table(columns, rows, label="Quality of teacher, students and baselines", sortable=True)


def _stages_table(known: ReportFacts, tuned: list[Selection]) -> str:
    """Return what each stage from the assembled network to the fine-tuned one brought."""
    rows: list[list[Cell]] = []
    for row in tuned:
        stages = read_evaluations(known.project, row)
        for stage, text in _STAGES.items():
            judged = stages.get(stage)
            if judged is not None:
                values = ((name, judged.get(name)) for name in ("accuracy", "agreement", "kl"))
                cells: list[Cell] = [(_quality_text(name, value), value) for name, value in values]
                rows.append([row.id[:12], text, *cells, number_cell(judged.get("images"), digits=0)])
    if not rows:
        return ""
    columns = ["selection", "stage", "#accuracy", "#agreement", "#divergence", "#images"]
    label = "What fine-tuning did on held-out data"
    return details(label, table(columns, rows, label=label))


def _file_text(project: Project, name: str) -> str:
    path = project.folder / name
    if path.is_dir():
        return "folder for lanaprof.load_student"
    return f"exported network, {format_size(path.stat().st_size)}"
