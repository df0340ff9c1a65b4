"""The records of the latency database: frozen values, the same in memory, in SQL and in exported files.

::

    operator      what is timed: a canonical graph
    environment   where: hardware, backend, versions, options
    measurement   the latency of one operator in one environment under one protocol
    retraction    "do not use that measurement any more"
    score         how good a candidate is in its layer
    selection     an architecture chosen for budgets
    calibration   the fitted map from table entries to whole-network latency
    recipe        "this recipe exports to this operator"

A record's id is the digest of its canonical JSON without the id, so equal records are one record wherever
they were made, and a changed record is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from lanaprof.errors import BadInput
from lanaprof.lut.fields import LARGEST_ROUND, Record
from lanaprof.lut.keys import environment_key, operator_key, shown

__all__ = [
    "CACHES",
    "CLOCKS",
    "FRONTIER",
    "GOOD_STATUSES",
    "RECORD_TYPES",
    "STATUSES",
    "Calibration",
    "Environment",
    "Measurement",
    "Operator",
    "Recipe",
    "Record",
    "Retraction",
    "Score",
    "Selection",
    "Timing",
    "record_from_json",
    "utc_now",
]

CACHES = ("relay", "hot", "cold")
STATUSES = ("ok", "noisy", "failed", "unsupported", "timeout")
GOOD_STATUSES = ("ok", "noisy")  # those with a latency
CLOCKS = ("wall", "thread_cpu")
FRONTIER = "frontier"  # status of a selection that nobody chose: a point of a stored frontier
_LONGEST_NAME = (
    100  # characters: an entry of a server's index holds 2704 bytes, with four of these among them
)


def utc_now() -> str:
    """Return the time as records write it: UTC, ISO 8601 with Z, so fine that the newest of two is known."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator(Record):
    """An operation at concrete shapes, types and batch: its canonical graph. The id is the operator key."""

    record: ClassVar[str] = "operator"
    graph: Mapping[str, Any]

    def _check(self) -> None:
        object.__setattr__(self, "_id", operator_key(self.graph))

    def __hash__(self) -> int:
        return hash(self.id)

    def content_id(self) -> str:
        """Return the operator key: the digest of the graph alone."""
        return operator_key(self.graph)

    def is_whole(self) -> bool:
        """Return whether the graph gives the id; it is asked afresh, because a graph can be changed in place."""
        try:
            return self.content_id() == self._id
        except (TypeError, ValueError, AttributeError, BadInput):
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Record):
    """What really ran. This is the closed list behind the environment key; nothing else goes in.

    Attributes:
        backend: the runtime, e.g. ``onnxruntime-cpu``.
        isa: the widest vector instructions the CPU has, e.g. ``avx512``.
        cores: CPU cores used.
        smt: whether their hardware threads share cores.
        gpu_model: empty without a GPU; likewise ``driver``.
        threads: threads the backend computes with.
        options: the backend's session options that change what is timed.
    """

    record: ClassVar[str] = "environment"
    backend: str
    backend_version: str
    cpu_model: str
    isa: str
    cores: int
    smt: bool
    gpu_model: str = ""
    driver: str = ""
    threads: int
    options: tuple[tuple[str, str], ...] = ()

    def _check(self) -> None:
        self._demand(bool(self.backend), "backend is empty")

    def content_id(self) -> str:
        """Return the environment key."""
        return environment_key(self._fields_to_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Record):
    """The latency of one operator in one environment under one protocol, with its uncertainty.

    Attributes:
        operator: operator key.
        environment: environment key.
        cache: what the caches held: ``relay`` (as within a network), ``hot`` or ``cold``.
        space: digest of the space whose networks relayed; empty unless ``cache`` is relay.
        protocol: name and version of the way of timing, e.g. ``relay/1``.
        status: ok, noisy, failed, unsupported or timeout.
        latency_s: seconds; None unless ok or noisy, like its interval ``ci_low_s``, ``ci_high_s``.
        samples: the clean samples in seconds.
        rounds: the round each sample was taken in.
        rejected: samples that were disturbed, hence counted and not used.
        host: a hash; it tells machines apart and names none.
        time: UTC, ISO 8601 with Z.
        load: load average over one minute.
        clock: wall, or thread_cpu where wall time was disturbed throughout.
        message: the reason of a failure; else what the runtime says of its builds, each text once, e.g. a digest of the
            kernels they are made of; often empty.
    """

    record: ClassVar[str] = "measurement"
    operator: str
    environment: str
    cache: str
    space: str = ""
    protocol: str
    status: str
    latency_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    samples: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    rejected: int = 0
    team: str
    host: str
    time: str
    tool_version: str = ""
    load: float | None = None
    clock: str = "wall"
    priority: str = ""
    message: str = ""

    def _check(self) -> None:
        self._demand_digests("operator", "environment")
        if self.cache not in CACHES:
            self._refuse(f"cache is {self.cache!r}; known: {', '.join(CACHES)}")
        if (self.cache == "relay") != bool(self.space):
            self._refuse("space is named exactly when cache is relay")
        if not self.protocol:
            self._refuse("protocol is empty")
        for name in ("protocol", "space", "team", "host"):
            length = len(getattr(self, name))
            if length > _LONGEST_NAME:
                self._refuse(f"{name} has {length} characters, more than {_LONGEST_NAME}")
        if self.status not in STATUSES:
            self._refuse(f"status is {self.status!r}; known: {', '.join(STATUSES)}")
        if self.clock not in CLOCKS:
            self._refuse(f"clock is {self.clock!r}; known: {', '.join(CLOCKS)}")
        self._check_latency()
        self._demand(len(self.samples) == len(self.rounds), "samples and rounds differ in length")
        self._demand(min(self.samples, default=0.0) >= 0, "samples holds a negative time")
        self._demand(max(self.rounds, default=0) <= LARGEST_ROUND, f"rounds exceeds {LARGEST_ROUND}")
        self._demand(self.load is None or self.load >= 0, "load is negative")
        self._demand_provenance()

    def _check_latency(self) -> None:
        low, latency, high = self.ci_low_s, self.latency_s, self.ci_high_s
        if self.status not in GOOD_STATUSES:
            none = low is None and latency is None and high is None
            self._demand(none, f"status {self.status} can have no latency and no interval")
            return
        if low is None or latency is None or high is None:
            self._refuse(f"status {self.status} needs latency_s, ci_low_s and ci_high_s")
        if not latency > 0:
            self._refuse(f"latency_s is {latency}, expected more than 0")
        if not 0 <= low <= latency <= high:
            self._refuse(f"not 0 <= ci_low_s {low} <= latency_s {latency} <= ci_high_s {high}")


class Timing(NamedTuple):
    """What a policy looks at of a measurement, in fields of the same names: tables are made of thousands."""

    id: str
    operator: str
    cache: str
    space: str
    protocol: str
    status: str
    latency_s: float | None
    ci_low_s: float | None
    ci_high_s: float | None
    team: str
    host: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction(Record):
    """A measurement is not to be used any more; only its own team can say so. Never undone.

    Attributes:
        target: the measurement's id; it may not be in this database (yet).
    """

    record: ClassVar[str] = "retraction"
    target: str
    team: str
    reason: str
    time: str

    def _check(self) -> None:
        self._demand_digests("target")
        self._demand(bool(self.reason.strip()), "reason is empty")
        self._demand_provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Record):
    """How good a candidate is in its layer, from held-out data; higher is better.

    Attributes:
        teacher: digest of the teacher's weights.
        candidate: digest of the candidate's weights.
        data: digest of the data.
        images: how many held-out images the score is a mean of.
    """

    record: ClassVar[str] = "score"
    teacher: str
    candidate: str
    data: str
    layer: str
    operation: str
    metric: str
    score: float
    standard_error: float | None = None
    images: int
    team: str
    time: str

    def _check(self) -> None:
        self._demand(self.standard_error is None or self.standard_error >= 0, "standard_error is negative")
        self._demand_provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Record):
    """An architecture chosen for budgets; or a point of a stored frontier: the best for a budget of its own latency.

    Attributes:
        environment: environment key; empty when none was involved.
        budgets: cost → its bound, in the cost's own unit.
        choices: layer → operation.
        bound: no architecture within the budgets scores higher.
        status: verified, over_budget or unverified; frontier for a point of a frontier, all of which share one time.
        rounds: rounds of the proving loop.
        method: the solver that chose.
    """

    record: ClassVar[str] = "selection"
    teacher: str
    space: str
    device: str
    environment: str = ""
    budgets: tuple[tuple[str, float], ...]
    choices: tuple[tuple[str, str], ...]
    score: float | None = None
    bound: float | None = None
    proved: bool = False
    status: str
    predicted_s: float | None = None
    measured_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    rounds: int = 0
    method: str = ""
    team: str
    time: str

    def _check(self) -> None:
        self._demand_provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Record):
    """The fitted map from table entries to whole-network latency in one environment and space.

    Attributes:
        table: digest of the table it was fitted on.
        weights: one per feature.
        covariance: (F'F + ridge)⁻¹ of the fit, features × features.
        residual_sd: standard deviation of the relative residuals.
        degrees: degrees of freedom of that.
        networks: ids of the whole-network measurements used.
    """

    record: ClassVar[str] = "calibration"
    environment: str
    space: str
    table: str
    weights: tuple[float, ...]
    features: tuple[str, ...]
    covariance: tuple[tuple[float, ...], ...]
    residual_sd: float
    degrees: int
    networks: tuple[str, ...]
    team: str
    time: str

    def _check(self) -> None:
        self._demand_digests("environment")
        size = len(self.features)
        self._demand(len(self.weights) == size, "weights and features differ in length")
        square = len(self.covariance) == size and all(len(row) == size for row in self.covariance)
        self._demand(square, f"covariance is not {size} × {size}")
        self._demand(self.residual_sd >= 0, "residual_sd is negative")
        self._demand_provenance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """A cache entry: this recipe exports to this operator.

    Attributes:
        recipe: digest of family, parameters, shapes, types.
        operator: operator key.
        generator: what exported it, with versions.
    """

    record: ClassVar[str] = "recipe"
    recipe: str
    operator: str
    generator: str

    def _check(self) -> None:
        self._demand(bool(self.recipe), "recipe is empty")
        self._demand_digests("operator")


RECORD_TYPES: Mapping[str, type[Record]] = {
    cls.record: cls
    for cls in (Operator, Environment, Measurement, Retraction, Score, Selection, Calibration, Recipe)
}


def record_from_json(value: Any) -> Record:
    """Return the record in JSON values; ``record`` says which kind it is.

    Raises:
        BadInput: not a record, or not a sound one; the message says why.
    """
    if not isinstance(value, Mapping):
        raise BadInput(f"a record is a JSON object, not {shown(value)}")
    kind = value.get("record")
    if not isinstance(kind, str) or kind not in RECORD_TYPES:
        raise BadInput(f"record is {shown(kind)}; known: {', '.join(sorted(RECORD_TYPES))}")
    return RECORD_TYPES[kind].from_json(value)
