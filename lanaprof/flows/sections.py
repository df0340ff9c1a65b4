"""The sections of a project's report, each from facts that were read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

from lanaprof.config import Device
from lanaprof.errors import UserError
from lanaprof.flows.artifacts import exported_files, read_evaluations, student_file
from lanaprof.flows.choosing import project_frontier
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.pages import Section, facts, figure, hint, table
from lanaprof.flows.plotting import Bar, Mark, bars_chart, frontier_chart
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import Scores
from lanaprof.flows.stating import Step
from lanaprof.flows.summary import LatencySummary
from lanaprof.lut import Selection, Store
from lanaprof.ops import SKIP, TEACHER
from lanaprof.units import format_count, format_duration, format_size

__all__ = [
    "ReportFacts",
    "calibration_section",
    "frontier_section",
    "latency_section",
    "layers_section",
    "project_section",
    "scores_section",
    "selections_section",
    "space_section",
    "speed_up",
    "students_section",
]

_SHOWN_BARS = 40  # layers in a chart; the table below has them all
_SLOWEST = 12
_DASH = "–"
_FEATURES = {
    "relay_sum_s": "its layers' latencies",
    "edge_bytes": "bytes between layers",
    "operators": "number of layers",
    "weight_bytes": "bytes of weights",
    "constant": "constant",
}
_SHARES: Mapping[str, Callable[[float], str]] = {
    "relay_sum_s": lambda weight: f"{weight:.4g} times their sum",
    "edge_bytes": lambda weight: f"{format_duration(weight * 1e6, digits=3)} per MB",
    "operators": lambda weight: f"{format_duration(weight, digits=3)} each",
    "weight_bytes": lambda weight: f"{format_duration(weight * 1e6, digits=3)} per MB",
    "constant": lambda weight: format_duration(weight, digits=3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that the sections are made of, read once."""

    project: Project
    store: Store | None
    team: str
    device: Device
    predictors: Mapping[str, Predictor]
    summary: LatencySummary | None
    scores: Scores
    selections: tuple[Selection, ...]
    steps: tuple[Step, ...]

    @property
    def predictor(self) -> Predictor | None:
        """Return the device's predictor; None while nothing is measured on it."""
        return self.predictors.get(self.device.text)

    @property
    def shown(self) -> Selection | None:
        """Return the selection drawn layer by layer: the latest on this device, else the latest."""
        own = tuple(row for row in self.selections if row.device == self.device.text)
        return next(reversed(own or self.selections), None)

    def command(self, name: str) -> str:
        """Return what fills a part: the step's own command, on this device where it has one."""
        for step in self.steps:
            if step.name == name and step.device in ("", self.device.text) and step.command:
                return step.command
        return f"lanaprof {name}"


def _number(score: float) -> str:
    return f"{score:.4f}".replace("-", "−")


def speed_up(known: ReportFacts, selection: Selection) -> float | None:
    """Return how many times faster than the teacher a selection is; None when one of the two is unknown."""
    predictor = known.predictors.get(selection.device)
    latency_s = selection.measured_s or selection.predicted_s
    if predictor is None or predictor.teacher_s is None or not latency_s:
        return None
    return predictor.teacher_s / latency_s


def project_section(known: ReportFacts) -> Section:
    """Return what the project is made of, and its steps."""
    project, space = known.project, known.project.space
    weights = str(project.facts.get("weights") or project.config.weights or "")
    if project.facts.get("seeded"):
        weights = "seeded random weights: good for latencies, useless for scores"
    rows = [
        ("teacher", space.teacher),
        ("weights", weights),
        ("input", "×".join(map(str, space.input_shape))),
        ("data", project.config.data),
        ("operations", project.config.ops),
        ("devices", "; ".join(project.config.devices)),
        ("costs", ", ".join(project.config.costs)),
        ("seed", str(project.config.seed)),
    ]
    steps = table(
        ["step", "state", "how far"],
        [
            (
                f"{step.name} {step.device}".strip(),
                "stale" if step.stale else "done" if step.done else "open",
                step.detail,
            )
            for step in known.steps
        ],
    )
    return Section(name="project", title="Project", body=facts(rows) + steps)


def latency_section(known: ReportFacts) -> Section:
    """Return the environment, what is covered, and the teacher's slowest layers."""
    title, predictor = "Latency", known.predictor
    if predictor is None:
        return Section(name="latency", title=title, body="", missing=known.command("measure"))
    environment = predictor.table.environment
    threads = f"{environment.threads} thread" + ("s" if environment.threads > 1 else "")
    options = ", ".join(f"{name}={value}" for name, value in environment.options)
    rows = [
        ("device", known.device.text),
        ("hardware", environment.gpu_model or environment.cpu_model),
        ("instruction sets", environment.isa),
        ("cores", f"{environment.cores}" + (", hardware threads share them" if environment.smt else "")),
        (
            "runtime",
            f"{environment.backend} {environment.backend_version}, {threads}",
        ),
        ("options", options),
        ("environment", environment.id),
    ]
    measure = next(s for s in known.steps if s.name == "measure" and s.device in (known.device.text, ""))
    rows.append(("coverage", measure.detail))
    body = "".join(f'<p class="todo">{escape(warning)}</p>' for warning in predictor.warnings)
    if known.summary is not None:
        fastest = known.summary.fastest
        rows.append(
            ("fastest architecture", f"about {format_duration(fastest.latency_s)} (no score counted)")
        )
    body += facts(rows)
    bars = [
        Bar(layer.name, estimate.latency_s)
        for layer in known.project.space.layers
        if (estimate := predictor.find_estimate(layer.name, TEACHER)) is not None
        and estimate.latency_s is not None
    ]
    bars.sort(key=lambda bar: -bar.teacher_s)
    if bars:
        drawing = bars_chart(bars[:12], title=f"latency on {known.device.text}")
        body += figure(svg_from_drawing(drawing), "The teacher's slowest layers.")
    return Section(name="latency", title=title, body=body)


def calibration_section(known: ReportFacts) -> Section:
    """Return how well predictions hold for whole networks."""
    title, predictor, store = "Calibration", known.predictor, known.store
    if predictor is None or store is None or predictor.fitted is None:
        return Section(name="calibration", title=title, body="", missing=known.command("calibrate"))
    space = known.project.space.relay_digest(known.device.batch, precision=known.device.precision)
    newest = store.calibrations(predictor.table.environment.id, space)[-1]
    text = (
        f"Fitted to {len(newest.networks)} whole networks at {newest.time}: left out one by one, their latencies "
        f"scatter by {newest.residual_sd:.2%} around the prediction. A network's predicted latency is the sum of:"
    )
    rows = [
        (name, _SHARES[name](weight))
        for name, weight in zip(newest.features, newest.weights, strict=True)
        if name in _SHARES
    ]
    named = facts((_FEATURES[name], text) for name, text in rows)
    return Section(name="calibration", title=title, body=f"<p>{escape(text)}</p>{named}")


def scores_section(known: ReportFacts) -> Section:
    """Return the best replacement of each layer by its score."""
    title = "Scores"
    if not known.scores:
        missing = known.command("score" if not _needs_distilling(known) else "distill")
        return Section(name="scores", title=title, body="", missing=missing)
    rows = []
    for layer in known.project.space.layers:
        own = {
            op: known.scores[layer.name, op]
            for op in layer.candidates
            if op != TEACHER and (layer.name, op) in known.scores
        }
        ranked = sorted(own, key=lambda op: -own[op])
        best = ranked[0] if ranked else ""
        rows.append(
            (
                layer.name,
                str(len(own)),
                best or _DASH,
                _number(own[best]) if best else _DASH,
                _latency_text(known, layer.name, best) if best else _DASH,
                _number(own[SKIP]) if SKIP in own else _DASH,
            )
        )
    columns = ["layer", "#scored", "best replacement", "#its score", "#its latency", "#skip"]
    count = sum(int(row[1]) for row in rows)
    metric = f"{count} candidates scored; the teacher's own layer scores 0, and higher is better."
    return Section(name="scores", title=title, body=f"<p>{metric}</p>{table(columns, rows)}")


def _needs_distilling(known: ReportFacts) -> bool:
    return any(step.name == "distill" and not step.done for step in known.steps)


def _latency_s(known: ReportFacts, layer: str, operation: str) -> float | None:
    if operation == SKIP:
        return 0.0
    estimate = known.predictor.find_estimate(layer, operation) if known.predictor is not None else None
    return estimate.latency_s if estimate is not None else None


def _latency_text(known: ReportFacts, layer: str, operation: str) -> str:
    latency_s = _latency_s(known, layer, operation)
    return _DASH if latency_s is None else format_duration(latency_s, digits=3)


def frontier_section(known: ReportFacts) -> Section:
    """Return the chart of the best score for every latency, the selections marked on it."""
    title, predictor = "Frontier", known.predictor
    missing = known.command("score" if known.scores == {} else "measure")
    if predictor is None or not known.scores:
        return Section(name="frontier", title=title, body="", missing=missing)
    try:
        points = project_frontier(known.project, predictor, known.scores)
    except UserError as error:
        body = f'<p class="todo">{escape(error.message)}</p>' + (hint(error.hint) if error.hint else "")
        return Section(name="frontier", title=title, body=body)
    marks = [
        Mark(
            label=row.id[:8],
            latency_s=latency_s,
            score=row.score,
            measured=row.measured_s is not None,
            title=f"selection {row.id[:12]}, {row.status}: {format_duration(latency_s)}, score {row.score:.4f}",
        )
        for row in known.selections[-8:]
        if row.device == known.device.text and row.score is not None
        and (latency_s := row.measured_s or row.predicted_s)
    ]  # fmt: skip
    drawing = frontier_chart(points, device=known.device.text, teacher_s=predictor.teacher_s, marks=marks)
    caption = (
        f"{len(points)} architectures: the best score that the table allows for every latency. Predicted latencies; "
        "selections that were timed stand at their measured latency."
    )
    return Section(name="frontier", title=title, body=figure(svg_from_drawing(drawing), caption))


def selections_section(known: ReportFacts) -> Section:
    """Return what was selected for which budgets, and whether it was proved."""
    if not known.selections:
        missing = known.command("select")
        return Section(name="selections", title="Selections", body="", missing=missing)
    rows = []
    for row in reversed(known.selections):
        speed = speed_up(known, row)
        rows.append(
            (
                row.id[:12],
                row.device,
                "; ".join(_budget_text(cost, value) for cost, value in row.budgets),
                format_duration(row.predicted_s) if row.predicted_s is not None else _DASH,
                _measured_text(row),
                f"{speed:.2f}×" if speed else _DASH,
                _number(row.score) if row.score is not None else _DASH,
                row.status,
            )
        )
    columns = [
        "selection",
        "device",
        "budget",
        "#predicted",
        "#measured (95 %)",
        "#speed-up",
        "#score",
        "state",
    ]
    note = "Newest first. Verified: the whole network was timed on the device and lies inside its budget."
    body = f'{table(columns, rows, marked=True)}<p class="muted">{note}</p>'
    return Section(name="selections", title="Selections", body=body)


def _measured_text(row: Selection) -> str:
    if row.measured_s is None:
        return _DASH
    text = format_duration(row.measured_s)
    if row.ci_low_s is None or row.ci_high_s is None:
        return text
    half = (row.ci_high_s - row.ci_low_s) / 2 / row.measured_s
    return f"{text} ± {half:.1%}"


def _budget_text(cost: str, value: float) -> str:
    name, _, device = cost.partition("@")
    if name == "latency_s":
        return f"{format_duration(value)} on {device}"
    if name.endswith("_bytes"):
        return f"{format_size(value)} {name.removesuffix('_bytes')}"
    return f"{format_count(value)} {name}"


def layers_section(known: ReportFacts) -> Section:
    """Return the latest selection beside the teacher, layer by layer."""
    title, row = "Layer by layer", known.shown
    if row is None:
        return Section(name="layers", title=title, body="", missing=known.command("select"))
    choices = dict(row.choices)
    replaced = [name for name, operation in choices.items() if operation != TEACHER]
    bars = []
    for layer in known.project.space.layers:
        teacher_s, operation = _latency_s(known, layer.name, TEACHER), choices[layer.name]
        if teacher_s is not None:
            bars.append(Bar(layer.name, teacher_s, _latency_s(known, layer.name, operation), operation))
    body = (
        f"<p>Selection {escape(row.id[:12])}, made {escape(row.time)}: {len(replaced)} of {len(choices)} layers "
        "replaced.</p>"
    )
    if bars:
        drawing = bars_chart(bars[:_SHOWN_BARS], title=f"latency on {known.device.text}")
        caption = "The table's entry for each layer: the teacher's own, and what was selected in its place."
        body += figure(svg_from_drawing(drawing), caption)
    rows = [
        (name, operation, _score_text(known, name, operation), _latency_text(known, name, operation))
        for name, operation in choices.items()
    ]
    choices_table = table(["layer", "operation", "#score", "#latency"], rows)
    body += f"<details><summary>All {len(choices)} choices</summary>{choices_table}</details>"
    return Section(name="layers", title=title, body=body)


def _score_text(known: ReportFacts, layer: str, operation: str) -> str:
    if operation == TEACHER:
        return "0"
    score = known.scores.get((layer, operation))
    return _DASH if score is None else _number(score)


def _tuned_text(known: ReportFacts, selection: Selection) -> str:
    """Return what fine-tuning did on held-out data, as ``finetune`` noted it beside the weights."""
    stages = read_evaluations(known.project, selection)
    parts = []
    for name, unit in (("accuracy", "right"), ("agreement", "like the teacher")):
        before, after = (stages.get(stage, {}).get(name) for stage in ("assembled", "finetuned"))
        if before is not None and after is not None:
            parts.append(f"{before:.1%} → {after:.1%} {unit}")
    return "fine-tuned: " + (
        ", ".join(parts) + " on held-out data" if parts else "the whole network was distilled"
    )


def students_section(known: ReportFacts) -> Section:
    """Return what was fine-tuned and exported."""
    tuned = [row for row in known.selections if student_file(known.project, row).is_file()]
    since = known.selections[0].time if known.selections else ""
    files = exported_files(known.project, since=since)
    if not tuned and not files:
        missing = known.command("finetune" if known.selections else "select")
        return Section(name="students", title="Students", body="", missing=missing)
    rows = [(f"selection {row.id[:12]}", _tuned_text(known, row)) for row in tuned]
    rows += [(name, _file_text(known.project, name)) for name in files]
    return Section(name="students", title="Students", body=facts(rows))


def _file_text(project: Project, name: str) -> str:
    path = project.folder / name
    if path.is_dir():
        return "folder for lanaprof.load_student"
    return f"exported network, {format_size(path.stat().st_size)}"


def space_section(known: ReportFacts) -> Section:
    """Return the layers with their shapes, candidates and latencies."""
    rows = []
    for layer in known.project.space.layers:
        times = [_latency_s(known, layer.name, op) for op in layer.candidates if op != TEACHER]
        cheapest = min((seconds for seconds in times if seconds is not None), default=None)
        teacher_s = _latency_s(known, layer.name, TEACHER)
        rows.append(
            (
                layer.name,
                "×".join(map(str, layer.input_shape)),
                "×".join(map(str, layer.output_shape)),
                format_count(layer.params),
                str(len(layer.candidates)),
                _DASH if teacher_s is None else format_duration(teacher_s, digits=3),
                _DASH if cheapest is None else format_duration(cheapest, digits=3),
            )
        )
    columns = ["layer", "input", "output", "#parameters", "#candidates", "#teacher", "#cheapest"]
    return Section(name="space", title="Space", body=table(columns, rows))
