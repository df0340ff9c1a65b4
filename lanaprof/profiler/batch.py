"""A batch: operators whose sessions stay loaded together, and the samples they have so far."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.journal import Round
from lanaprof.profiler.statistics import CleanSamples, Visit, drift_factors

__all__ = ["Batch", "Drift", "Target", "dealt", "interleaved"]


@dataclass(frozen=True, slots=True)
class Target:
    """An operator to measure.

    Attributes:
        operator: its key.
        layers: those it may stand in, under relay.
        segment: whether it is a fixed piece of the circuit, which every visit runs.
        copy: number of a further build of the same operator, timed to see how well builds repeat; 0 is the
            measurement itself.
    """

    operator: str
    layers: tuple[str, ...] = ()
    segment: bool = False
    copy: int = 0

    @property
    def key(self) -> str:
        """Return what tells it from all others of a batch."""
        return f"{self.operator}#{self.copy}" if self.copy else self.operator

    @property
    def relayed(self) -> bool:
        """Say whether it runs inside a circuit."""
        return bool(self.layers) or self.segment


@dataclass(slots=True)
class Batch:
    """The state of one batch.

    Attributes:
        targets: what it began with.
        active: what has no record yet, by the target's key.
        samples: per target, (round, sample) pairs.
        rounds: how many are finished.
        began_s: when the first of this process began, on the campaign's clock.
        deferred: what did not fit beside the others, and is measured later.
    """

    targets: tuple[Target, ...]
    active: dict[str, Target]
    samples: dict[str, list[tuple[int, RawSample]]]
    rounds: int = 0
    began_s: float = 0.0
    deferred: list[Target] = field(default_factory=list)

    @classmethod
    def of(cls, targets: tuple[Target, ...]) -> Batch:
        """Return a batch that has not begun."""
        return cls(targets, {t.key: t for t in targets}, {t.key: [] for t in targets})

    def defer(self, keys: Iterable[str]) -> None:
        """Leave targets for later."""
        for key in keys:
            self.deferred.append(self.active.pop(key))
            self.samples.pop(key)

    def absorb(self, finished: Round) -> None:
        """Take the samples of a finished round."""
        for key, samples in finished.samples.items():
            if key in self.samples:
                self.samples[key].extend((finished.number, sample) for sample in samples)
        self.rounds = finished.number + 1

    def drift(self, window: int) -> Drift:
        """Return the drift that all operators of the batch share, visit by visit.

        Args:
            window: how many visits around each count.
        """
        visits: list[tuple[int, int, Visit]] = []
        for key, rows in self.samples.items():
            by_round: dict[int, list[RawSample]] = {}
            for number, sample in rows:
                by_round.setdefault(number, []).append(sample)
            for number, samples in by_round.items():
                fastest = min(sample.wall_ns for sample in samples) / 1e9
                start_ns = samples[0].start_ns
                visits.append((number, start_ns, Visit(key, start_ns / 1e9, max(fastest, 1e-9))))
        visits.sort(key=lambda entry: entry[:2])
        factors = drift_factors([visit for _, _, visit in visits], window=window)
        return Drift(
            {(v.operator, number): float(f) for (number, _, v), f in zip(visits, factors, strict=True)}
        )


@dataclass(frozen=True, slots=True)
class Drift:
    """How much slower than its calm the machine was at each visit: (target, round) → factor."""

    factors: Mapping[tuple[str, int], float]

    def spanning(self, earlier: tuple[float, float]) -> tuple[float, float]:
        """Return the 5 % and 95 % points of the factors, widened to cover those of earlier batches."""
        ordered = sorted(self.factors.values()) or [1.0]
        last = len(ordered) - 1
        return min(earlier[0], ordered[round(0.05 * last)]), max(earlier[1], ordered[round(0.95 * last)])

    def corrected(self, key: str, clean: CleanSamples) -> tuple[float, ...]:
        """Return a target's clean samples with the drift divided out."""
        return tuple(
            s / self.factors[key, number] for s, number in zip(clean.seconds, clean.rounds, strict=True)
        )


def interleaved(targets: Iterable[Target]) -> list[Target]:
    """Return the targets so that neighbours stand in different layers: a batch has a few of every layer."""
    queues: dict[str, list[Target]] = {}
    for target in targets:
        queues.setdefault(target.layers[0] if target.layers else "", []).append(target)
    mixed: list[Target] = []
    rows = list(queues.values())
    for number in range(max((len(row) for row in rows), default=0)):
        mixed.extend(row[number] for row in rows if number < len(row))
    return mixed


def dealt(
    targets: Iterable[Target], shares: int, *, kept_together: Sequence[Collection[str]] = ()
) -> tuple[tuple[Target, ...], ...]:
    """Return the targets in so many shares of about equal size, each with its part of every layer's.

    Args:
        targets: what to deal.
        shares: how many; some stay empty where there are fewer targets.
        kept_together: keys of targets that have to come into one share, the first group into the first.
    """
    made: list[list[Target]] = [[] for _ in range(shares)]
    left = {target.key: target for target in targets}
    for group in kept_together:
        smallest = min(made, key=len)
        smallest.extend(left.pop(key) for key in group if key in left)
    queues: dict[str, list[Target]] = {}
    for target in left.values():
        queues.setdefault(target.layers[0] if target.layers else "", []).append(target)
    turn = 0  # goes on from layer to layer, or the first share would get every odd one
    for queue in queues.values():
        for target in queue:
            made[turn % shares].append(target)
            turn += 1
    return tuple(tuple(share) for share in made)
