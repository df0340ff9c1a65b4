"""The bench: this machine as a device, where campaigns run, and what disturbed them is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lanaprof.config import Device
from lanaprof.errors import BackendError, BadInput
from lanaprof.flows.parallel import Share, run_together
from lanaprof.flows.probing import describe_interference, probe_plan, probe_workers
from lanaprof.flows.project import STATE_FOLDER
from lanaprof.lut import Environment, Measurement, Store
from lanaprof.profiler.batch import dealt
from lanaprof.profiler.campaign import Campaign, CampaignResult, Progress, Provenance, Target
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import SystemClock
from lanaprof.profiler.conditions import Snapshot, take_snapshot
from lanaprof.profiler.corelock import CoreLocks
from lanaprof.profiler.coresets import choose_core_sets
from lanaprof.profiler.disturbances import judge
from lanaprof.profiler.environment import choose_cores, host_hash, local_environment, runs_on_gpu
from lanaprof.profiler.gpu.fixing import ClockPlan, planned_clock
from lanaprof.profiler.journal import unfinished_journals
from lanaprof.profiler.protocol import Protocol
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import Rig
from lanaprof.version import VERSION

__all__ = ["Bench", "open_bench"]

_GRAPHS_KEPT = 512  # parsed graphs: a batch and what fills it
_SHARE_LEAST = 64  # operators: of fewer, the rounds are spread over the same time and nothing is gained


@dataclass(frozen=True, slots=True)
class Bench:
    """This machine as the device: where operators are timed and whose name goes into the records.

    Attributes:
        device, environment, provenance, store: what goes into the records, and where they go.
        journals: folder of unfinished batches.
        report, notice: told how far it is, and what the user should know.
        core_sets: where so many workers may measure at once; none for one worker on the device's choice.
        share_least: a worker more is worth it for so many operators.
        gpu: UUID of the GPU that the device is here; empty for a CPU.
        sm_clock_mhz: at which its clock is fixed meanwhile; 0 leaves it alone.
        remarked: kinds of disturbance that were told of: in a loop of campaigns each is said once.
    """

    device: Device
    environment: Environment
    provenance: Provenance
    store: Store
    journals: Path
    report: Callable[[Progress], None] = lambda _progress: None
    notice: Callable[[str], None] = lambda _text: None
    core_sets: tuple[tuple[int, ...], ...] = ()
    share_least: int = 1
    gpu: str = ""
    sm_clock_mhz: int = 0
    remarked: set[str] = field(default_factory=set, compare=False)

    def run(
        self,
        protocol: Protocol,
        targets: Sequence[Target],
        *,
        limit_s: float | None = None,
        still_wanted: Callable[[str], bool] | None = None,
        **relay: Any,
    ) -> CampaignResult:
        """Run a campaign and say what disturbed it.

        ``relay`` holds space, circuit, fillers and companions, and whatever else a campaign takes.

        With several core sets, as many workers share the targets as do not slow each other.
        """
        count = min(len(self.core_sets), len(targets) // self.share_least)
        if count > 1:
            return self._run_with(count, protocol, targets, limit_s, still_wanted, relay)
        cores = self.core_sets[0] if self.core_sets else choose_cores(self.device)
        before = take_snapshot(cores)
        campaign = self.campaign(protocol, cores=cores, **relay)
        result = campaign.run(targets, limit_s=limit_s, still_wanted=still_wanted)
        self._tell_disturbances(before, result)
        return result

    def _run_with(
        self,
        count: int,
        protocol: Protocol,
        targets: Sequence[Target],
        limit_s: float | None,
        still_wanted: Callable[[str], bool] | None,
        relay: Mapping[str, Any],
    ) -> CampaignResult:
        """Share the targets among at most so many workers, and fewer where these disturb each other."""
        clock = SystemClock()
        began_s = clock.now_s()
        sets = self.core_sets[:count]
        with CoreLocks(sets, self._waiting) as locks:
            sets, slowdown = self._undisturbed(sets, protocol, targets, relay)
            locks.keep_only(sets)
            shares = self._shares(protocol, targets, sets, relay)
            before = take_snapshot(sorted(core for share in shares for core in share.cores))
            left_s = None if limit_s is None else max(0.0, limit_s - (clock.now_s() - began_s))
            result = run_together(shares, limit_s=left_s, still_wanted=still_wanted)
        result.slowdown = slowdown
        self._tell_disturbances(before, result)
        return result

    def _undisturbed(
        self,
        sets: tuple[tuple[int, ...], ...],
        protocol: Protocol,
        targets: Sequence[Target],
        relay: Mapping[str, Any],
    ) -> tuple[tuple[tuple[int, ...], ...], float | None]:
        """Return as many of the core sets as may measure at once, and by how much these slow each other."""
        circuit, graph_of = relay.get("circuit"), self._graph_of()
        plan = probe_plan(protocol, targets, graph_of, circuit=circuit, fillers=relay.get("fillers"))

        def new_rig(cores: tuple[int, ...]) -> Rig:
            return RemoteRig(self._settings(cores, locked=True), plan.circuit)

        try:
            found = probe_workers(plan, sets, new_rig, graph_of, threads=self.device.threads)
        except BackendError as error:
            self.notice(
                f"how much workers disturb each other cannot be told ({error.message}): measuring with one"
            )
            return sets[:1], None
        for each in found:
            self.notice(describe_interference(each, each.workers // 2))
        if found[-1].tolerable:
            return sets[: found[-1].workers], found[-1].slowdown
        return sets[:1], None

    def _shares(
        self,
        protocol: Protocol,
        targets: Sequence[Target],
        sets: Sequence[tuple[int, ...]],
        relay: Mapping[str, Any],
    ) -> tuple[Share, ...]:
        """Return who measures what: whole batches where an earlier run left some, the teacher by the first."""
        companions = tuple(relay.get("companions", ()))
        unfinished = unfinished_journals(
            self.journals,
            environment=self.environment.id,
            protocol=protocol.text,
            space=relay.get("space", ""),
            wanted=[*(target.key for target in targets), *companions],
        )
        batches = sorted(
            (header.operators for header in unfinished), key=lambda keys: not set(companions) & set(keys)
        )
        parts = [part for part in dealt(targets, len(sets), kept_together=batches) if part]
        everything = frozenset(target.key for target in targets) | frozenset(companions)
        shares = []
        for place, (part, cores) in enumerate(zip(parts, sets, strict=False)):
            own = {**relay, "companions": companions if place == 0 else ()}
            campaign = self.campaign(
                protocol, cores=cores, locked=True, beside=everything, memory_share=1 / len(parts), **own
            )
            shares.append(Share(campaign, part, cores))
        return tuple(shares)

    def _tell_disturbances(self, before: Snapshot, result: CampaignResult) -> None:
        for found in judge(
            before,
            take_snapshot(before.cores),
            clean=result.clean,
            rejected=result.rejected,
            drift=result.drift,
            threads=self.device.threads * result.workers,
        ):
            if found.name not in self.remarked:
                self.remarked.add(found.name)
                self.notice(f"{found.message}: {found.hint}")

    def drop_journals(self, protocol: Protocol, space: str) -> None:
        """Delete what cut-off batches left behind whose operators have all been measured since."""
        unfinished_journals(
            self.journals, environment=self.environment.id, protocol=protocol.text, space=space, wanted=()
        )

    def campaign(
        self, protocol: Protocol, *, cores: tuple[int, ...] = (), locked: bool = False, **settings: Any
    ) -> Campaign:
        """Return a campaign on this bench.

        Args:
            protocol: how to time.
            cores: where; the device's choice where not given.
            locked: whether the cores' locks are held already.
            settings: space, circuit, fillers, companions and what else a campaign takes.
        """
        circuit: Circuit | None = settings.get("circuit")

        def new_rig() -> Rig:
            return RemoteRig(
                self._settings(cores or choose_cores(self.device), locked=locked), circuit, self._waiting
            )

        return Campaign(
            environment=self.environment.id,
            threads=self.device.threads,
            protocol=_built_as_chosen(_spread(protocol), self.device),
            provenance=self.provenance,
            journals=self.journals,
            graph_of=self._graph_of(),
            new_rig=new_rig,
            clock=SystemClock(),
            report=self.report,
            **{"emit": lambda record: _added(self.store, record), **settings},
        )

    def _graph_of(self) -> Callable[[str], Mapping[str, Any]]:
        @lru_cache(_GRAPHS_KEPT)
        def graph_of(key: str) -> Mapping[str, Any]:
            return self.store.get_operator(key).graph

        return graph_of

    def _settings(self, cores: tuple[int, ...], *, locked: bool) -> WorkerSettings:
        settings = WorkerSettings(
            self.device.backend,
            self.device.threads,
            cores,
            gpu=self.gpu,
            options=self.device.options,
            sm_clock_mhz=self.sm_clock_mhz,
        )
        return replace(settings, locks=None) if locked else settings

    def _waiting(self, holder: str) -> None:
        self.notice(f"waiting: {holder} is measuring")


def _built_as_chosen(protocol: Protocol, device: Device) -> Protocol:
    """Return the protocol with as many builds of an operator as the device chose, over all of its rounds."""
    builds = dict(device.options).get("builds")
    if builds is None:
        return protocol
    return replace(protocol, rebuild_every=-(-protocol.rounds_max // int(builds)))


def _spread(protocol: Protocol) -> Protocol:
    """Return the protocol, its rounds spread over LANAPROF_SPREAD_S seconds where that is set.

    Raises:
        BadInput: it is no number of seconds.
    """
    text = os.environ.get("LANAPROF_SPREAD_S")
    if not text:
        return protocol
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadInput(f"LANAPROF_SPREAD_S={text!r} is not a number of seconds", hint="LANAPROF_SPREAD_S=5")
    return replace(protocol, spread_s=seconds, longest_s=max(seconds, protocol.longest_s))


def _added(store: Store, record: Measurement) -> None:
    store.add([record])


def open_bench(
    device: Device,
    store: Store,
    *,
    team: str,
    state: Path | None = None,
    report: Callable[[Progress], None] = lambda _progress: None,
    notice: Callable[[str], None] = lambda _text: None,
    workers: int | None = 1,
) -> Bench:
    """Return this machine as the device, its environment recorded in the database.

    Args:
        device: which.
        store: the database.
        team: whose measurements.
        state: the project's folder of state.
        report: told how far a campaign is.
        notice: told what the user should know.
        workers: how many measure at once at most, on cores of their own; None for as many as is worth it.

    Raises:
        DeviceUnavailable, BackendUnavailable: it is not that device, or has fewer cores; says what it needs.
    """
    on_gpu = runs_on_gpu(device)
    sets = choose_core_sets(device, workers) if workers != 1 and not on_gpu else ()
    environment = local_environment(device)
    gpu, clock = "", ClockPlan()
    if on_gpu:
        from lanaprof.profiler.gpu.environment import choose_gpu  # only where a GPU is asked for
        from lanaprof.profiler.gpu.probe import find_gpus

        gpu = choose_gpu(device, find_gpus()).uuid
        clock = planned_clock(gpu, device.lock_clocks)
        if clock.why_not:
            notice(clock.why_not)
    elif device.lock_clocks is not None:
        notice(f"device {device.name!r} is a CPU, whose clock lanaprof does not fix")
    store.add([environment])
    provenance = Provenance(team=team, host=host_hash(), tool_version=VERSION)
    journals = (state or Path.cwd() / STATE_FOLDER) / "journals"
    least = _SHARE_LEAST if workers is None else 1
    return Bench(
        device, environment, provenance, store, journals, report, notice, sets, least, gpu, clock.sm_clock_mhz
    )
