"""Campaigns: batches of operators whose sessions stay loaded, visited in rounds until their intervals are narrow."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lanaprof.errors import BackendError, OperatorTimeout
from lanaprof.lut.records import Measurement, utc_now
from lanaprof.profiler.batch import Batch, Target, interleaved
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import Clock, RawSample
from lanaprof.profiler.environment import find_load
from lanaprof.profiler.fitting import BATCH_OPERATORS, Room, fitting
from lanaprof.profiler.gpu.failures import OutOfDeviceMemory
from lanaprof.profiler.journal import Journal, JournalHeader, Round, open_journal, unfinished_journals
from lanaprof.profiler.outcome import CampaignResult, Progress, Provenance, said, status_of
from lanaprof.profiler.protocol import NETWORK, Protocol
from lanaprof.profiler.rig import Rig, TimedRun, WorkerDied
from lanaprof.profiler.sampling import PlannedVisit, plan_free_round, plan_relay_round
from lanaprof.profiler.statistics import CleanSamples, Interval, clean_samples, estimate

__all__ = ["BATCH_OPERATORS", "Campaign", "CampaignResult", "Progress", "Provenance", "Target"]

_CRASHES = 2  # of one batch without a finished round in between: then its operators are rows of failure
_ROUNDS_LEAST = 3  # fewer give no interval
_LOOK_EVERY = 4  # rounds from one look at the intervals to the next
_ENDED_TOGETHER = 0.9  # of those that end together so many must be narrow


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Measures operators in one environment under one protocol.

    Attributes:
        environment: key of the environment.
        threads: threads of one run.
        protocol: how to time; relay needs ``circuit``, ``space`` and targets with layers.
        provenance: goes into the records.
        journals: folder of the journals of unfinished batches.
        graph_of: operator key → canonical graph.
        new_rig: starts a rig.
        emit: takes each record when its operator ends; it is acknowledged when this returns.
        clock: for pauses and limits.
        report: told after every round.
        space: the relay context's digest.
        circuit: the wiring under relay.
        fillers: layer → operators that may stand there besides those measured; "" leaves the layer out.
        companions: whole networks visited in every round of the first batch, under the network protocol.
        beside: operators that campaigns beside this one measure; their journals are theirs.
        memory_share: of the free memory, that this campaign may take; less than 1 beside others.
        stopped: asked between rounds and builds; once true, the campaign ends as at its limit.
    """

    environment: str
    threads: int
    protocol: Protocol
    provenance: Provenance
    journals: Path
    graph_of: Callable[[str], Mapping[str, Any]]
    new_rig: Callable[[], Rig]
    emit: Callable[[Measurement], None]
    clock: Clock
    report: Callable[[Progress], None] = lambda _progress: None
    space: str = ""
    circuit: Circuit | None = None
    fillers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    companions: tuple[str, ...] = ()
    beside: frozenset[str] = frozenset()
    memory_share: float = 1.0
    stopped: Callable[[], bool] = lambda: False

    def run(
        self,
        targets: Iterable[Target],
        *,
        limit_s: float | None = None,
        still_wanted: Callable[[str], bool] | None = None,
    ) -> CampaignResult:
        """Measure the targets, resuming batches that an earlier run left unfinished.

        Args:
            targets: what to measure, each operator once.
            limit_s: stop after this time; what has enough rounds by then is recorded.
            still_wanted: asked at the start of each batch, for another process may have measured meanwhile.
        """
        result = CampaignResult()
        waiting = {target.key: target for target in targets}
        companions = self.companions
        total = len(waiting) + len(companions)
        end_s = None if limit_s is None else self.clock.now_s() + limit_s
        most = BATCH_OPERATORS
        rig: Rig | None = None
        try:
            while waiting or companions:
                if self._over(end_s):
                    result.incomplete = True
                    break
                # The rig holds the cores: what another process measured while we waited shows only now.
                rig = rig or self.new_rig()
                chosen = self._next_batch(waiting, companions, most, rig.device_bytes)
                for target in chosen:
                    waiting.pop(target.key, None)
                if still_wanted is not None:
                    chosen = tuple(each for each in chosen if each.copy or still_wanted(each.operator))
                companions = ()
                if not chosen:
                    continue
                batch = Batch.of(chosen)
                try:
                    rig = self._run_batch(rig, batch, result, total, len(waiting), end_s)
                except OutOfDeviceMemory:  # loaded, but without the room to run
                    most = max(1, len(batch.active) // 2)
                    batch.defer(list(batch.active))
                if result.incomplete:
                    break
                waiting = {target.key: target for target in batch.deferred} | waiting
                if waiting:  # a runtime keeps memory of what it dropped: the next batch gets a new process
                    rig.close()
                    rig = None
        finally:
            if rig is not None:
                rig.close()
        return result

    def _next_batch(
        self, waiting: Mapping[str, Target], companions: tuple[str, ...], most: int, device_bytes: int | None
    ) -> tuple[Target, ...]:
        headers = unfinished_journals(
            self.journals,
            environment=self.environment,
            protocol=self.protocol.text,
            space=self.space,
            wanted=[*waiting, *companions],
            beside=self.beside,
        )
        extra = [Target(key) for key in companions]
        if headers:
            keys = headers[0].operators
            return tuple(
                [waiting[key] for key in keys if key in waiting] + [t for t in extra if t.operator in keys]
            )
        room = Room.here(
            most, share=self.memory_share, networks=self.protocol.together, device_bytes=device_bytes
        )
        return tuple(fitting(interleaved(waiting.values()), self.graph_of, room) + extra)

    def _header(self, batch: Sequence[Target]) -> JournalHeader:
        keys = {target.key for target in batch}
        found = unfinished_journals(
            self.journals,
            environment=self.environment,
            protocol=self.protocol.text,
            space=self.space,
            wanted=keys,
            beside=None,
        )
        for header in found:
            if keys.issubset(header.operators):
                return header
        return JournalHeader(
            environment=self.environment,
            protocol=self.protocol.text,
            space=self.space,
            operators=tuple(target.key for target in batch),
        )

    def _run_batch(
        self,
        rig: Rig,
        batch: Batch,
        result: CampaignResult,
        total: int,
        waiting: int,
        end_s: float | None,
    ) -> Rig:
        with open_journal(self.journals, self._header(batch.targets)) as journal:
            for finished in journal.rounds:
                batch.absorb(finished)
            crashes = 0
            rig = self._build_all(rig, batch, result, seed=0, end_s=end_s)
            batch.began_s = self.clock.now_s()
            while batch.active and not result.incomplete:
                round_began_s = self.clock.now_s()
                try:
                    if batch.rounds and batch.rounds % self.protocol.rebuild_every == 0:
                        rig = self._build_all(
                            rig, batch, result, seed=batch.rounds // self.protocol.rebuild_every, end_s=end_s
                        )
                        if result.incomplete:
                            break
                    timed = rig.run(self._plan(batch))
                except OutOfDeviceMemory as error:
                    if len(batch.active) > 1:
                        journal.remove()  # its rounds are of a batch that there cannot be
                        raise
                    self._fail(batch, result, next(iter(batch.active)), error)
                    continue
                except WorkerDied as error:
                    crashes += 1
                    rig.close()
                    rig = self.new_rig()
                    if crashes >= _CRASHES:
                        for key in list(batch.active):
                            self._fail(batch, result, key, error)
                    else:
                        rig = self._build_all(rig, batch, result, seed=0, end_s=end_s)
                    continue
                crashes = 0
                self._record_round(journal, batch, timed)
                self._finish_ready(batch, result, rig)
                took_s = self.clock.now_s() - round_began_s
                self._report(batch, result, total, waiting, max(took_s, self._pace_s))
                if batch.active and self._over(end_s):
                    self._finish_ready(batch, result, rig, final=True)
                    result.incomplete = result.incomplete or bool(batch.active)
                    if batch.active:
                        return rig
                if batch.active and took_s < self._pace_s:
                    self.clock.sleep(self._pace_s - took_s)
            if result.incomplete:
                return rig
            journal.remove()
        rig.forget()
        return rig

    def _over(self, end_s: float | None) -> bool:
        """Say whether the campaign is to end here, whatever is left."""
        return self.stopped() or (end_s is not None and self.clock.now_s() >= end_s)

    @property
    def _pace_s(self) -> float:
        """Return the least time from one round's begin to the next."""
        return self.protocol.spread_s / self.protocol.rounds_max

    def _build_all(
        self, rig: Rig, batch: Batch, result: CampaignResult, *, seed: int, end_s: float | None
    ) -> Rig:
        """Build what the batch runs; failures become rows, a dead worker is replaced.

        What a GPU has no room for beside the others is deferred, and a row of failure where it is alone.
        """
        support = {key for keys in self.fillers.values() for key in keys if key}
        if self.circuit is not None:
            support.update(self.circuit.segments)
        pending = [*sorted(support - set(batch.active)), *batch.active]
        built: list[str] = []
        index, is_empty = 0, seed == 0
        while index < len(pending):
            if self._over(end_s):
                result.incomplete = True
                return rig
            key = pending[index]
            index += 1
            try:
                target = batch.active.get(key, Target(key, segment=True))
                rig.build(key, self.graph_of(target.operator), seed=seed + target.copy, inside=target.relayed)
                built.append(key)
            except OutOfDeviceMemory as error:
                if not is_empty:  # the earlier builds are still there
                    rig.forget()
                    index, built, is_empty = 0, [], True
                elif set(built) & set(batch.active):
                    batch.defer([each for each in batch.active if each not in built])
                    break
                elif key in batch.active:
                    self._fail(batch, result, key, error)
                else:
                    raise
            except BackendError as error:
                if key in batch.active:
                    self._fail(batch, result, key, error)
                elif not isinstance(error, WorkerDied | OperatorTimeout):
                    raise
                if isinstance(error, WorkerDied | OperatorTimeout):
                    rig.close()
                    rig = self.new_rig()
                    pending, index, built = [k for k in pending if k != key], 0, []
        return rig

    def _plan(self, batch: Batch) -> tuple[PlannedVisit, ...]:
        generator = random.Random(f"{self.environment} {self.space} {batch.rounds} {len(batch.active)}")
        if self.protocol.cache != "relay":
            return plan_free_round(batch.active, self.protocol, generator)
        assert self.circuit is not None
        places = {key: target.layers for key, target in batch.active.items() if target.layers}
        networks = [key for key, target in batch.active.items() if not target.relayed]
        visits = list(plan_free_round(networks, NETWORK, generator))
        if len(networks) < len(batch.active):
            visits.extend(plan_relay_round(self.circuit, places, self.fillers, self.protocol, generator))
        return tuple(visits)

    def _record_round(self, journal: Journal, batch: Batch, timed: Sequence[TimedRun]) -> None:
        samples: dict[str, list[RawSample]] = {}
        for run in timed:
            if run.operator in batch.active:
                samples.setdefault(run.operator, []).append(run.sample)
        finished = Round(batch.rounds, {key: tuple(found) for key, found in samples.items()})
        journal.append(finished)
        batch.absorb(finished)

    def _finish_ready(self, batch: Batch, result: CampaignResult, rig: Rig, *, final: bool = False) -> None:
        """Record the operators that have enough; ``final`` records all that have any interval."""
        protocol = self.protocol
        at_limit = final or batch.rounds >= protocol.rounds_max
        if batch.rounds < (_ROUNDS_LEAST if final else protocol.rounds_min):
            return
        took_s = self.clock.now_s() - batch.began_s
        at_limit = at_limit or took_s >= protocol.longest_s
        if not at_limit and (
            took_s < protocol.spread_s or (batch.rounds - protocol.rounds_min) % _LOOK_EVERY
        ):
            return
        drift = batch.drift(protocol.drift_window)
        result.drift = drift.spanning(result.drift)
        found: dict[str, tuple[CleanSamples, Interval]] = {}
        for key in batch.active:
            clean = clean_samples(batch.samples[key], threads=self.threads)
            if clean.seconds and not (final and len(set(clean.rounds)) < _ROUNDS_LEAST):
                seconds = drift.corrected(key, clean)
                found[key] = clean, estimate(seconds, clean.rounds, quantile=protocol.quantile)
        narrow = {key for key, (_, interval) in found.items() if interval.half_width <= protocol.tolerance}
        if protocol.together and len(narrow) >= _ENDED_TOGETHER * len(batch.active):
            at_limit = True
        for key in found if at_limit else () if protocol.together else narrow:
            clean, interval = found[key]
            self._record(batch, result, key, clean, interval, rig)

    def _record(
        self,
        batch: Batch,
        result: CampaignResult,
        key: str,
        clean: CleanSamples,
        interval: Interval,
        rig: Rig,
    ) -> None:
        """End a target: its estimate becomes a record, or a further build's latency."""
        target = batch.active.pop(key)
        result.clean += len(clean.seconds)
        result.rejected += clean.rejected
        if target.copy:
            result.copies[target.operator] = interval.latency_s
            return
        status = "noisy" if interval.half_width > self.protocol.noisy_above else "ok"
        if target.relayed or self.protocol.cache != "relay":
            interval = interval.widened(self.protocol.between)
        record = Measurement(
            **self._common(target),
            status=status,
            latency_s=interval.latency_s,
            ci_low_s=interval.ci_low_s,
            ci_high_s=interval.ci_high_s,
            samples=clean.seconds,
            rounds=clean.rounds,
            rejected=clean.rejected,
            load=find_load(),
            clock=clean.clock,
            priority=rig.conditions.get("priority", ""),
            message="; ".join([*rig.notes.get(key, ()), *said(rig.conditions)]),
        )
        self.emit(record)
        result.take(record)

    def _fail(self, batch: Batch, result: CampaignResult, key: str, error: BackendError) -> None:
        target = batch.active.pop(key)
        if target.copy:
            return
        record = Measurement(
            **self._common(target), status=status_of(error), load=find_load(), message=error.message[:500]
        )
        self.emit(record)
        result.take(record)

    def _common(self, target: Target) -> dict[str, Any]:
        relayed = self.protocol.cache == "relay" and target.relayed
        protocol = NETWORK if self.protocol.cache == "relay" and not relayed else self.protocol
        return {
            "operator": target.operator,
            "environment": self.environment,
            "cache": protocol.cache,
            "space": self.space if relayed else "",
            "protocol": protocol.text,
            "team": self.provenance.team,
            "host": self.provenance.host,
            "tool_version": self.provenance.tool_version,
            "time": utc_now(),
        }

    def _report(self, batch: Batch, result: CampaignResult, total: int, waiting: int, round_s: float) -> None:
        done = sum(result.counts.values())
        rounds_left = max(1, self.protocol.rounds_min - batch.rounds) if batch.active else 0
        batch_s = max(round_s * self.protocol.rounds_min, self.protocol.spread_s)
        left_s = max(round_s * rounds_left, batch.began_s + self.protocol.spread_s - self.clock.now_s())
        left_s += batch_s * waiting / max(1, len(batch.targets))
        self.report(Progress(done, total, left_s, f"{self.protocol.name}: round {batch.rounds}"))
