"""From the table to whole networks: features, predictions, and every candidate's costs. Needs no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.config import Device
from lanaprof.errors import MissingMeasurement, UserError
from lanaprof.flows.joining import JOINED_FEATURES, Joints, joints_of
from lanaprof.flows.operators import Choices, OperatorMap, find_networks, find_operators
from lanaprof.flows.project import Project
from lanaprof.flows.sources import device_matcher, viewpoint_of
from lanaprof.lut import (
    Calibration,
    Estimate,
    GraphStatistics,
    Store,
    Table,
    open_table,
)
from lanaprof.ops import SKIP, TEACHER
from lanaprof.profiler.calibration import FEATURES, FitResult, Prediction, predict
from lanaprof.space import place_ends

__all__ = ["Predictor", "find_pulled", "open_predictor", "table_for"]

_UNCALIBRATED = 0.15  # half-width of the interval before any calibration: naive sums are off by up to this
_GOOD = ("ok", "noisy")
_LEAST_SHARE = (
    0.5  # of the sum of its operators: far below all calibration networks the fitted line may turn negative
)


@dataclass(frozen=True, slots=True)
class Predictor:
    """Predicts whole networks of one project in one environment.

    Attributes:
        project, device: whose networks, and where.
        operators: which operator is which candidate.
        table: their latencies.
        statistics: their sizes.
        fitted: the calibration, or None before ``calibrate``.
        teacher_s: the teacher's measured latency, None when nobody timed it.
        warnings: what the user should know about where the numbers come from.
        joints: what neighbours of one lower precision spare each other; None where there are none.
    """

    project: Project
    device: Device
    operators: OperatorMap
    table: Table
    statistics: Mapping[str, GraphStatistics]
    fitted: FitResult | None
    teacher_s: float | None
    warnings: tuple[str, ...]
    joints: Joints | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return what :meth:`features` gives, by name."""
        return FEATURES if self.joints is None else (*FEATURES, *JOINED_FEATURES)

    @property
    def cost_name(self) -> str:
        """Return the name of the latency cost, e.g. ``latency_s@cpu``."""
        return f"latency_s@{self.device.text}"

    def find_estimate(self, layer: str, operation: str) -> Estimate | None:
        """Return a candidate's entry; None when there is no usable one."""
        key = self.operators.operator(layer, operation)
        estimate = self.table.find(key) if key else None
        return estimate if estimate is not None and estimate.status in _GOOD else None

    def features(self, choices: Choices) -> tuple[float, ...]:
        """Return a network's features: latency sum, activation bytes at layer edges, operators, weight bytes, 1.

        Behind them stands what is joined between neighbours of one lower precision, in spaces that have such.

        Raises:
            MissingMeasurement: an operator has no latency; names it and what to type.
        """
        total = list(self._fixed_features)
        for layer, operation in self.project.space.parts(choices):
            for index, value in enumerate(self.candidate_features(layer.name, operation)):
                total[index] += value
        return (*total, 1.0, *self._joined(choices))

    def _joined(self, choices: Choices) -> tuple[float, ...]:
        if self.joints is None:
            return ()
        chosen = {
            name: self.operators.operator(name, op) or "" for name, op in self.project.space.named(choices)
        }
        return self.joints.features(chosen)

    def candidate_features(self, layer: str, operation: str) -> tuple[float, float, float, float]:
        """Return what one candidate adds to a network's features."""
        if operation == SKIP:
            return (0.0, 0.0, 0.0, 0.0)
        estimate = self.find_estimate(layer, operation)
        if estimate is None:
            raise self._missing(layer, operation)
        assert estimate.latency_s is not None
        sizes = self.statistics[estimate.operator]
        edge_bytes = float(sizes.input_bytes + sizes.output_bytes)
        return (estimate.latency_s, edge_bytes, 1.0, float(sizes.weight_bytes))

    def _missing(self, layer: str, operation: str) -> MissingMeasurement:
        key = self.operators.operator(layer, operation)
        found = self.table.find(key) if key else None
        command = f"lanaprof measure --device {self.device.text}"
        if key is None:
            state, hint = "was not exported yet, so nobody could measure it", command
        elif found is None:
            state, hint = f"(operator {key}) is not measured", command
        else:
            state = f"(operator {key}) has no latency: its measurement {found.status}"
            hint = f"{command} --retry {found.status}, or choose another operation"
        return MissingMeasurement(
            f"{operation!r} in layer {layer!r} {state} on device {self.device.text!r}", hint=hint
        )

    @property
    def _segments(self) -> tuple[Estimate, ...]:
        circuit = self.operators.circuit
        found = [self.table.find(key) for key in (circuit.segments if circuit is not None else ())]
        return tuple(e for e in found if e is not None and e.status in _GOOD)

    @property
    def _fixed_features(self) -> tuple[float, float, float, float]:
        segments = self._segments
        weight_bytes = sum(self.statistics[e.operator].weight_bytes for e in segments)
        return (sum(e.latency_s or 0.0 for e in segments), 0.0, float(len(segments)), float(weight_bytes))

    @property
    def fixed_s(self) -> float:
        """Return the latency that no choice changes: before calibration the teacher's minus the sum of its layers."""
        if self.fitted is not None:
            row = (*self._fixed_features, 1.0)
            return sum(w * x for w, x in zip(self.fitted.weights, row, strict=False))  # nothing is joined
        if self.teacher_s is not None:
            layers = [self.candidate_features(layer.name, TEACHER)[0] for layer in self.project.space.layers]
            return self.teacher_s - sum(layers)
        return self._fixed_features[0]

    def candidate_cost_s(self, layer: str, operation: str) -> float:
        """Return what one candidate adds to a network's predicted latency; may be negative after a calibration."""
        row = self.candidate_features(layer, operation)
        if self.fitted is None:
            return row[0]
        return sum(w * x for w, x in zip(self.fitted.weights, row, strict=False))

    def joined_costs_s(self, names: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Return what neighbours spare each other, as ``pairs`` of a selection problem; nothing before a calibration.

        Args:
            names: the candidates of every layer.
        """
        if self.joints is None or self.fitted is None:
            return []
        weights = self.fitted.weights[len(FEATURES) :]
        layers = [layer.name for layer in self.project.space.layers]
        keys = [
            [self.operators.operator(layer, operation) or "" for operation in row]
            for layer, row in zip(layers, names, strict=True)
        ]
        found = []
        for place, pair in enumerate(itertools.pairwise(layers)):
            borders = self.joints.borders(keys[place], keys[place + 1], pair)
            terms = [
                [
                    names[place][border.first],
                    names[place + 1][border.second],
                    sum(w * x for w, x in zip(weights, border.features, strict=True)),
                ]
                for border in borders
            ]
            if terms:
                found.append({"layers": list(pair), "cost": self.cost_name, "terms": terms})
        return found

    def predict(self, choices: Choices, *, level: float = 0.9, common: bool = True) -> Prediction:
        """Return a network's latency with its central interval.

        Args:
            choices: one operation per layer.
            level: of the interval.
            common: whether it covers the factor that all latencies share at another time, too.
        """
        total_s = self.features(choices)[0]
        if self.fitted is not None:
            prediction = predict(self.fitted, self.features(choices), level=level, common=common)
        else:
            latency_s = self.fixed_s + sum(
                self.candidate_cost_s(layer.name, operation)
                for layer, operation in self.project.space.parts(choices)
            )
            half_s = _UNCALIBRATED * max(latency_s, total_s)
            prediction = Prediction(
                latency_s, latency_s - half_s, latency_s + half_s, level, calibrated=False
            )
        return _floored(prediction, _LEAST_SHARE * total_s)

    def measured_candidates(self) -> dict[str, list[str]]:
        """Return, per layer and run of layers, the candidates whose latency is known; ``skip`` needs none."""
        return {
            layer.name: [
                operation
                for operation in layer.candidates
                if operation == SKIP or self.find_estimate(layer.name, operation) is not None
            ]
            for layer in self.project.space.places
        }

    def cheapest(self) -> Choices:
        """Return the architecture with the fastest measured candidates, spans included."""
        space = self.project.space
        fastest: dict[str, tuple[float, str]] = {}
        for name, operations in self.measured_candidates().items():
            latencies = {operation: self.candidate_features(name, operation)[0] for operation in operations}
            if latencies:
                chosen = min(latencies, key=latencies.__getitem__)
                fastest[name] = latencies[chosen], chosen
        reached: list[tuple[float, Choices]] = [(0.0, ())]  # the least latency of the layers so far
        places = {layer.name: number for number, layer in enumerate(space.layers)}
        for layer in space.layers:
            ends = [each for each in space.places if place_ends(each.name)[1] == layer.name]
            ways = []
            for place in (each for each in ends if each.name in fastest):
                latency_s, operation = fastest[place.name]
                before_s, before = reached[places[place_ends(place.name)[0]]]
                covered = ("",) * (places[layer.name] - len(before))
                ways.append((before_s + latency_s, (*before, operation, *covered)))
            reached.append(min(ways, key=lambda way: way[0]))
        return reached[-1][1]

    def expect_teacher(self) -> None:
        """Check that the teacher's own layers are measured: without them nothing can be predicted.

        Raises:
            MissingMeasurement: one is not.
        """
        for layer in self.project.space.layers:
            if self.find_estimate(layer.name, TEACHER) is None:
                raise self._missing(layer.name, TEACHER)


def _floored(prediction: Prediction, least_s: float) -> Prediction:
    """Return the prediction, or where it is implausibly small, the least with an interval that says how vague it is."""
    if prediction.latency_s >= least_s:
        return prediction
    high_s = max(prediction.high_s, least_s * 2)
    low_s = max(0.0, min(prediction.low_s, least_s / 2))
    return Prediction(least_s, low_s, high_s, prediction.level, prediction.calibrated)


def table_for(
    store: Store,
    device: Device,
    *,
    team: str,
    space: str,
    wanted: Sequence[str],
    environment: str | None = None,
    policy: str = "",
) -> Table:
    """Return the device's table: this machine's own environment if measured, else the newest with full coverage."""
    return open_table(
        store,
        device=device.text,
        environment=environment,
        space=space,
        matches=device_matcher(device),
        viewpoint=viewpoint_of(device, team=team, wanted=wanted, policy=policy),
    )


def find_pulled(project: Project, store: Store | None, device: Device, *, team: str) -> Table | None:
    """Return the table of a project that exported nothing here yet, as after a pull; None where there is none."""
    operators = find_operators(project, device, store)
    if store is None or operators.circuit is not None or not store.has_measurements(operators.keys):
        return None
    space = project.space.relay_digest(device.batch, precision=device.precision)
    policy = project.config.policy
    try:
        return table_for(store, device, team=team, space=space, wanted=operators.keys, policy=policy)
    except UserError:  # measured, and not on this device
        return None


def open_predictor(
    project: Project, device: Device, store: Store, *, team: str, environment: str | None = None
) -> Predictor:
    """Return the predictor of a project on a device.

    Raises:
        MissingMeasurement: nothing is measured there; names the command.
        BadInput: an environment that is not in the database.
    """
    operators = find_operators(project, device, store)
    space = project.space.relay_digest(device.batch, precision=device.precision)
    measured = store.has_measurements(operators.keys)
    if measured and operators.circuit is None:  # as after a pull
        raise MissingMeasurement(
            f"how the layers of this project are joined is not exported here yet: what {store.name} has of its "
            f"operators predicts no network on device {device.text!r}",
            hint=f"lanaprof measure --device {device.text} (reuses what is measured)",
        )
    if not measured:
        raise MissingMeasurement(
            f"no operator of this project is measured on device {device.text!r} in {store.name}",
            hint=f"lanaprof measure --device {device.text}",
        )
    table = table_for(
        store,
        device,
        team=team,
        space=space,
        wanted=operators.keys,
        environment=environment,
        policy=project.config.policy,
    )
    warnings = [table.warning] if table.warning else []
    joints = _joints(operators, store)
    features = FEATURES if joints is None else (*FEATURES, *JOINED_FEATURES)
    found = [c for c in store.calibrations(table.environment.id, space) if c.features == features]
    fitted = None
    if found:
        state = table_digest(table, operators)  # each policy has its own, and so may have its own calibration
        best = next((c for c in reversed(found) if c.table == state), found[-1])
        fitted = _fit_from(best)
        if best.table != state:
            warnings.append(
                "the calibration was fitted on another state of the table; refresh it: "
                f"lanaprof calibrate --device {device.text}{_policy_words(project)}"
            )
    keys = [*operators.keys, *(operators.circuit.segments if operators.circuit is not None else ())]
    teacher = (TEACHER,) * len(project.space.layers)
    network = find_networks(project, device, store, [teacher]).get(teacher)
    estimate = table.find(network) if network else None
    teacher_s = estimate.latency_s if estimate is not None else None
    statistics = store.operator_statistics(keys)
    return Predictor(
        project, device, operators, table, statistics, fitted, teacher_s, tuple(warnings), joints
    )


def _joints(operators: OperatorMap, store: Store) -> Joints | None:
    """Return what may be joined; only operations that name a precision can have such ends."""
    narrow = {key for (_, operation), key in operators.candidates.items() if key and "@" in operation}
    graphs = ((one.id, one.graph) for one in store.iter_operators(narrow)) if narrow else ()
    return joints_of(operators.circuit, graphs)


def _policy_words(project: Project) -> str:
    return f" --policy {project.config.policy}" if project.config.policy else ""


def table_digest(table: Table, operators: OperatorMap) -> str:
    """Return the digest of the entries a project's predictions rest on."""
    from lanaprof.digest import digest

    keys = sorted({*operators.keys, *(operators.circuit.segments if operators.circuit is not None else ())})
    found = [table.find(key) for key in keys]
    return digest([[e.operator, *e.measurements] for e in found if e is not None])


def _fit_from(record: Calibration) -> FitResult:
    return FitResult(record.weights, record.covariance, record.residual_sd, record.degrees)
