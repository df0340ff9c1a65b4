"""measure: fill the database for a project, for ONNX files, or for whatever it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lanaprof.errors import BadInput, UnsupportedOperator
from lanaprof.flows.bench import Bench
from lanaprof.flows.operators import (
    OperatorMap,
    export_networks,
    export_operators,
    find_networks,
    find_operators,
)
from lanaprof.flows.project import Project
from lanaprof.flows.tally import Tally
from lanaprof.lut import Measurement, Operator, utc_now
from lanaprof.ops import SKIP, TEACHER
from lanaprof.profiler.campaign import BATCH_OPERATORS, CampaignResult, Target
from lanaprof.profiler.protocol import HOT, NETWORK, RELAY, Protocol

__all__ = [
    "FileResult",
    "MeasurePlan",
    "MeasureReport",
    "Need",
    "fillers_of",
    "gaps",
    "measure_files",
    "measure_gaps",
    "measure_project",
    "needed",
    "planned",
]

_NO_LAYER = ""


@dataclass(slots=True)
class MeasureReport(Tally):
    """What ``measure`` did: operators by what became of them.

    Attributes:
        operators: of the project; those of the teacher around its layers are not among them.
        exported: of them in this run.
        seconds: that it took.
        incomplete: stopped before everything was measured.
        cache: state of the caches.
        workers, slowdown: how many measured at once, and by how much they slowed each other.
    """

    operators: int = 0
    exported: int = 0
    seconds: float = 0.0
    incomplete: bool = False
    cache: str = "hot"
    workers: int = 1
    slowdown: float | None = None

    def take(self, result: CampaignResult, keys: Iterable[str]) -> None:
        """Count a campaign's records of these operators."""
        self.workers, self.slowdown = result.workers, result.slowdown
        for key in keys:
            if (record := result.measurements.get(key)) is not None:
                self.count(record)
        self.incomplete = self.incomplete or result.incomplete


@dataclass(frozen=True, slots=True)
class Need:
    """What a project's space lacks on a bench.

    Attributes:
        operators: which operator is which candidate.
        protocol, space: how they are measured, and the relay context.
        good: operators with a latency; failures are done too, but nothing to reuse.
        wanted: candidates' operators without one; ``segments`` likewise.
        network_timed: whether the teacher as a whole was ever timed here.
    """

    operators: OperatorMap
    protocol: Protocol
    space: str
    good: frozenset[str]
    wanted: tuple[str, ...]
    segments: tuple[str, ...]
    network_timed: bool

    @property
    def relayed(self) -> bool:
        """Say whether the teacher could be cut, so that operators run in their context."""
        return self.protocol.cache == "relay"

    @property
    def anything(self) -> bool:
        """Say whether a campaign is needed at all."""
        return bool(self.wanted or self.segments or not self.network_timed)


def needed(project: Project, bench: Bench, *, retry: Sequence[str] = (), force: bool = False) -> Need:
    """Return what is to be measured of what is exported; arguments as for `measure_project`."""
    device, store = bench.device, bench.store
    operators = find_operators(project, device, store)
    circuit = operators.circuit
    relayed = circuit is not None and bool(circuit.steps) and not bench.gpu
    protocol = RELAY if relayed else HOT
    space = project.space.relay_digest(device.batch, precision=device.precision) if relayed else ""
    rows = store.measurements(environment=bench.environment.id, cache=protocol.cache, space=space or None)
    done = frozenset() if force else frozenset(row.operator for row in rows if row.status not in retry)
    good = frozenset(row.operator for row in rows if row.operator in done and row.status in ("ok", "noisy"))
    segments = circuit.segments if circuit is not None else ()
    return Need(
        operators,
        protocol,
        space,
        good,
        tuple(key for key in operators.keys if key not in done),
        tuple(key for key in dict.fromkeys(segments) if key not in done),
        _timed_network(project, bench) is not None,
    )


def measure_project(
    project: Project,
    bench: Bench,
    *,
    exporter: str = "torchscript",
    retry: Sequence[str] = (),
    force: bool = False,
    limit_s: float | None = None,
    plan_only: bool = False,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> MeasureReport:
    """Export and measure what the project's space lacks on a device.

    Args:
        project: whose space.
        bench: where to measure.
        exporter: ``torchscript`` or ``dynamo``.
        retry: states that are measured again, e.g. ``failed``.
        force: measure everything again.
        limit_s: for all of it, export included.
        plan_only: export, store and count; measure nothing.
        exporting: told (done, total) while operators are exported.
    """
    began_s = time.monotonic()
    exported = export_operators(
        project, bench.device, bench.store, exporter=exporter, progress=exporting, limit_s=limit_s
    )
    need = needed(project, bench, retry=retry, force=force)
    report = MeasureReport(exported=exported.operators, unsupported=need.operators.unexportable)
    report.operators = len(need.operators.keys)
    report.cache = need.protocol.cache
    report.reused = len(need.good.intersection(need.operators.keys))
    if need.anything and not plan_only:
        left_s = None if limit_s is None else max(0.0, limit_s - (time.monotonic() - began_s))
        result = _run_campaign(project, bench, need, retry=retry, force=force, limit_s=left_s)
        report.take(result, need.wanted)
        left = [key for key in need.wanted if key not in result.measurements]
        if left:  # another process measured them while this one waited for the cores
            report.reused += len(needed(project, bench).good.intersection(left))
        if not result.incomplete:
            bench.drop_journals(need.protocol, need.space)
    report.incomplete = report.incomplete or bool(need.operators.missing)
    report.seconds = time.monotonic() - began_s
    return report


def _run_campaign(
    project: Project, bench: Bench, need: Need, *, retry: Sequence[str], force: bool, limit_s: float | None
) -> CampaignResult:
    """Measure what is needed, the teacher as a whole beside it."""
    choices = (TEACHER,) * len(project.space.layers)
    network = export_networks(project, bench.device, bench.store, [choices])[choices]
    layers_of = need.operators.layers_of if need.relayed else lambda _key: ()
    targets = [Target(key, layers_of(key)) for key in need.wanted]
    targets += [Target(key, (), True) for key in need.segments]
    if need.segments:
        bench.notice(
            f"measuring {len(need.wanted)} operators, and of the teacher {len(need.segments)} pieces around its layers "
            f"and the whole: {len(targets) + 1} in all"
        )
    started, environment = utc_now(), bench.environment.id

    def still_wanted(key: str) -> bool:
        """Say whether nobody measured it while we waited for the cores."""
        find = bench.store.measurements
        if key == network:
            return not find(environment=environment, operators=[key], cache="hot", since=started)
        found = find(
            environment=environment, operators=[key], cache=need.protocol.cache, space=need.space or None
        )
        return force or all(row.status in retry for row in found)

    if need.relayed and targets:
        return bench.run(
            need.protocol,
            targets,
            limit_s=limit_s,
            still_wanted=still_wanted,
            companions=(network,),
            space=need.space,
            circuit=need.operators.circuit,
            fillers=fillers_of(project, need.operators),
        )
    if not need.relayed and not bench.gpu:
        bench.notice("the teacher cannot be cut at its layers: measuring hot, without its context")
    protocol = need.protocol if targets else NETWORK
    return bench.run(protocol, [*targets, Target(network)], limit_s=limit_s, still_wanted=still_wanted)


def _timed_network(project: Project, bench: Bench) -> str | None:
    """Return the teacher's operator when it has been timed in this environment."""
    choices = (TEACHER,) * len(project.space.layers)
    key = find_networks(project, bench.device, bench.store, [choices]).get(choices)
    rows = (
        bench.store.measurements(environment=bench.environment.id, operators=[key], cache="hot")
        if key
        else ()
    )
    return key if rows else None


def fillers_of(project: Project, operators: OperatorMap) -> dict[str, tuple[str, ...]]:
    """Return what may stand in a layer besides the measured: the teacher's own, or nothing where it can be skipped."""
    fillers = {}
    for layer in project.space.layers:
        own = operators.operator(layer.name, TEACHER)
        idle = (_NO_LAYER,) if SKIP in layer.candidates else ()
        fillers[layer.name] = ((own,) if own else ()) + idle
    return fillers


@dataclass(frozen=True, slots=True)
class FileResult:
    """The latency of a user's ONNX file."""

    file: str
    operator: str
    measurement: Measurement | None
    message: str = ""


def measure_files(
    files: Sequence[Path], bench: Bench, *, force: bool = False, limit_s: float | None = None
) -> tuple[tuple[FileResult, ...], MeasureReport]:
    """Time whole ONNX files, hot.

    Raises:
        BadInput: a file that is not there or no ONNX model.
    """
    import onnx

    from lanaprof.profiler.canonical import canonical_graph

    began_s = time.monotonic()
    keys: list[tuple[Path, str, str]] = []
    for path in files:
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except FileNotFoundError:
            raise BadInput(f"there is no file {path}") from None
        except Exception as error:  # protobuf's DecodeError, onnx's ValidationError, OSError
            first = str(error).strip().split("\n", 1)[0]
            raise BadInput(f"{path} is not an ONNX model that can be read: {first}") from error
        try:
            operator = Operator(graph=canonical_graph(model, batch=bench.device.batch))
        except UnsupportedOperator as error:
            keys.append((path, "", error.message))
            continue
        bench.store.add([operator])
        keys.append((path, operator.id, ""))
    report = MeasureReport(cache="hot")
    wanted = list(dict.fromkeys(key for _, key, _ in keys if key))
    known = {row.operator: row for row in _hot_rows(bench, wanted)} if not force else {}
    report.reused = len(known)
    missing = [key for key in wanted if key not in known]
    if missing:
        result = bench.run(NETWORK, [Target(key) for key in missing], limit_s=limit_s)
        report.take(result, missing)
        known.update(result.measurements)
    report.unsupported += sum(1 for _, key, _ in keys if not key)
    report.seconds = time.monotonic() - began_s
    return tuple(FileResult(str(path), key, known.get(key), why) for path, key, why in keys), report


def _hot_rows(bench: Bench, keys: Sequence[str]) -> tuple[Measurement, ...]:
    return bench.store.measurements(environment=bench.environment.id, operators=keys, cache="hot")


def gaps(bench: Bench, *, retry: Sequence[str] = (), force: bool = False) -> tuple[list[str], int]:
    """Return the operators to measure and how many there are."""
    rows = bench.store.measurements(environment=bench.environment.id)
    done = set() if force else {row.operator for row in rows if row.status not in retry}
    keys = bench.store.operator_keys()
    return [key for key in keys if key not in done], len(keys)


def measure_gaps(
    bench: Bench, *, retry: Sequence[str] = (), force: bool = False, limit_s: float | None = None
) -> MeasureReport:
    """Measure, hot, the database's operators that have no measurement in this environment; needs no torch."""
    began_s = time.monotonic()
    wanted, total = gaps(bench, retry=retry, force=force)
    report = MeasureReport(reused=total - len(wanted))
    if wanted:
        result = bench.run(HOT, [Target(key) for key in wanted], limit_s=limit_s)
        report.take(result, wanted)
    report.seconds = time.monotonic() - began_s
    return report


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """What a campaign would do."""

    operators: int
    missing: int
    seconds: float


_SECONDS_PER_OPERATOR = (
    0.2  # building, three passes in 16 rounds, writing; a guess until the first rounds are in
)


def planned(project: Project | None, bench: Bench) -> MeasurePlan:
    """Return how many operators are missing, with a rough time; without a project, of the whole database."""
    if project is None:
        wanted, total = gaps(bench)
        missing, protocol = len(wanted), HOT
    else:
        need = needed(project, bench)
        total = len(need.operators.keys)
        missing, protocol = len(need.wanted) + need.operators.missing, need.protocol
    batches = -(-missing // BATCH_OPERATORS)
    seconds = max(missing * _SECONDS_PER_OPERATOR, batches * protocol.spread_s) if missing else 0.0
    return MeasurePlan(total, missing, round(seconds, 1))
