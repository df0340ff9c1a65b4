"""A report's sections on latency: what was measured where, and how well whole networks are predicted from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from statistics import median

from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.networks import calibration_networks
from lanaprof.flows.operators import Choices, find_networks
from lanaprof.flows.pages import Cell, Section, details, facts, figure, table
from lanaprof.flows.plotting import Bar, bars_chart
from lanaprof.flows.predicting import Predictor, table_digest
from lanaprof.flows.report.charts import errors_chart
from lanaprof.flows.report.facts import DASH, ReportFacts, duration_cell
from lanaprof.flows.verified import TimedNetwork, find_verified
from lanaprof.lut import Calibration, Store
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import left_out
from lanaprof.units import format_duration, format_percent

__all__ = ["calibration_section", "latency_section"]

_SLOWEST = 12
_SELECTIONS = 30  # in the chart of errors, the newest
_USUAL_NETWORKS = 16  # that calibrate times unless told otherwise
_LEVEL = 0.9  # of the intervals
_FEATURES = {
    "relay_sum_s": "its layers' latencies",
    "edge_bytes": "bytes between layers",
    "operators": "number of layers",
    "weight_bytes": "bytes of weights",
    "constant": "constant",
    "joined_bytes": "bytes not converted between neighbours of one lower precision",
    "joined": "such borders",
}
_SHARES: Mapping[str, Callable[[float], str]] = {
    "relay_sum_s": lambda weight: f"{weight:.4g} times their sum",
    "edge_bytes": lambda weight: f"{format_duration(weight * 1e6, digits=3)} per MB",
    "operators": lambda weight: f"{format_duration(weight, digits=3)} each",
    "weight_bytes": lambda weight: f"{format_duration(weight * 1e6, digits=3)} per MB",
    "constant": lambda weight: format_duration(weight, digits=3),
    "joined_bytes": lambda weight: f"{format_duration(weight * 1e6, digits=3)} per MB",
    "joined": lambda weight: f"{format_duration(weight, digits=3)} each",
}


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
        drawing = bars_chart(bars[:_SLOWEST], title=f"latency on {known.device.text}")
        body += figure(svg_from_drawing(drawing), "The teacher's slowest layers.")
    return Section(name="latency", title=title, body=body)


def calibration_section(known: ReportFacts) -> Section:
    """Return how well predictions hold for whole networks: the fit, and everything predicted that was timed."""
    title, predictor, store = "Predicted and measured", known.predictor, known.store
    if predictor is None or store is None or predictor.fitted is None:
        return Section(name="calibration", title=title, body="", missing=known.command("calibrate"))
    space = known.project.space.relay_digest(known.device.batch, precision=known.device.precision)
    fits = store.calibrations(predictor.table.environment.id, space)
    newest = [one for one in fits if one.features == predictor.feature_names][-1]
    networks = _timed_networks(known, predictor, store, newest)
    body = ""
    if networks:
        drawing = errors_chart(networks, device=known.device.text)
        caption = (
            f"Errors of predicted latencies with their central {_LEVEL:.0%} intervals, where they have one."
        )
        body += f"<p>{escape(_summary(networks))}</p>" + figure(svg_from_drawing(drawing), caption)
        body += _networks_table(networks)
    text = (
        f"Fitted to {len(newest.networks)} whole networks at {newest.time}: left out one by one, their latencies "
        f"scatter by {newest.residual_sd:.2%} around the prediction. A network's predicted latency is the sum of:"
    )
    rows = [
        (name, _SHARES[name](weight))
        for name, weight in zip(newest.features, newest.weights, strict=True)
        if name in _SHARES
    ]
    body += f"<p>{escape(text)}</p>" + facts((_FEATURES[name], text) for name, text in rows)
    return Section(name="calibration", title=title, body=body)


def _summary(networks: Sequence[TimedNetwork]) -> str:
    """Return the errors in words, one kind of networks after the other."""
    parts = []
    for kind, name in (
        ("calibration", "calibration networks, each left out"),
        ("verified", "verified networks"),
        ("selection", "selections"),
    ):
        own = [one for one in networks if one.kind == kind]
        if not own:
            continue
        middle = median(abs(one.error) for one in own)
        judged = [one.is_inside for one in own if one.is_inside is not None]
        inside = f", {sum(judged)} of {len(judged)} inside their interval" if judged else ""
        parts.append(f"{len(own)} {name}: median error {middle:.2%}{inside}")
    return "; ".join(parts) + "."


def _timed_networks(
    known: ReportFacts, predictor: Predictor, store: Store, newest: Calibration
) -> list[TimedNetwork]:
    """Return what was both predicted and timed: the calibration's own, those verified, the selections."""
    found = _calibration_networks(predictor, store, newest)
    found += find_verified(known.project, known.device, predictor.table.environment.id)
    for row in known.selections[-_SELECTIONS:]:
        if row.device == known.device.text and row.measured_s and row.predicted_s:
            found.append(
                TimedNetwork(
                    kind="selection",
                    name=f"selection {row.id[:12]}",
                    predicted_s=row.predicted_s,
                    measured_s=row.measured_s,
                    ci_low_s=row.ci_low_s,
                    ci_high_s=row.ci_high_s,
                )
            )
    return found


def _calibration_networks(predictor: Predictor, store: Store, newest: Calibration) -> list[TimedNetwork]:
    """Return the calibration's networks, each as predicted by a fit to the others.

    The database has their latencies; which networks they are follows from the space and the seed, as long as the
    table is the one they were drawn from.
    """
    if newest.table != table_digest(predictor.table, predictor.operators):
        return []
    timed = store.find_measurements(newest.networks, with_samples=False)
    drawn: dict[Choices, None] = {}
    for count in {len(newest.networks), _USUAL_NETWORKS}:
        drawn |= dict.fromkeys(calibration_networks(predictor, count, predictor.project.config.seed))
    keys = find_networks(predictor.project, predictor.device, store, drawn)
    by_key = {key: choices for choices, key in keys.items()}
    found: list[TimedNetwork] = []
    for record in timed.values():
        choices = by_key.get(record.operator)
        if choices is None or not record.latency_s:
            continue
        network = _left_out(predictor, choices, record.latency_s)
        name = "the teacher" if set(choices) == {TEACHER} else f"calibration network {len(found) + 1}"
        found.append(replace(network, name=name, ci_low_s=record.ci_low_s, ci_high_s=record.ci_high_s))
    return found


def _left_out(predictor: Predictor, choices: Choices, measured_s: float) -> TimedNetwork:
    """Return a network of the calibration as the fit to all others predicts it."""
    assert predictor.fitted is not None
    predicted_s = left_out(predictor.fitted, predictor.features(choices), measured_s)
    fitted = predictor.predict(choices, level=_LEVEL, common=False)
    half = (fitted.high_s - fitted.low_s) / 2 / fitted.latency_s
    return TimedNetwork(
        kind="calibration",
        name="",
        predicted_s=predicted_s,
        measured_s=measured_s,
        low_s=predicted_s * (1 - half),
        high_s=predicted_s * (1 + half),
    )


def _networks_table(networks: Sequence[TimedNetwork]) -> str:
    rows: list[list[Cell]] = []
    for one in networks:
        interval = DASH
        if one.low_s is not None and one.high_s is not None:
            interval = f"{format_duration(one.low_s)} to {format_duration(one.high_s)}"
        inside = {None: DASH, True: "yes", False: "no"}[one.is_inside]
        rows.append(
            [
                one.name,
                duration_cell(one.predicted_s, digits=4),
                (interval, one.low_s),
                duration_cell(one.measured_s, digits=4),
                (format_percent(one.error).replace("-", "−"), one.error),
                inside,
            ]
        )
    columns = ["network", "#predicted", f"#{_LEVEL:.0%} interval", "#measured", "#error", "inside"]
    label = f"All {len(rows)} networks in numbers"
    return details(label, table(columns, rows, label=label, sortable=True))
