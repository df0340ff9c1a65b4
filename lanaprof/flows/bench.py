"""The bench: this machine as a device, where campaigns run, and what disturbed them is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lanaprof.config import Device
from lanaprof.errors import BadInput
from lanaprof.flows.project import STATE_FOLDER
from lanaprof.lut import Environment, Measurement, Store
from lanaprof.profiler.campaign import Campaign, CampaignResult, Progress, Provenance, Target
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import SystemClock
from lanaprof.profiler.conditions import take_snapshot
from lanaprof.profiler.disturbances import judge
from lanaprof.profiler.environment import choose_cores, host_hash, local_environment
from lanaprof.profiler.protocol import Protocol
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import Rig

__all__ = ["Bench", "open_bench"]

_GRAPHS_KEPT = 512  # parsed graphs: a batch and what fills it


@dataclass(frozen=True, slots=True)
class Bench:
    """This machine as the device: where operators are timed and whose name goes into the records."""

    device: Device
    environment: Environment
    provenance: Provenance
    store: Store
    journals: Path
    report: Callable[[Progress], None] = lambda _progress: None
    notice: Callable[[str], None] = lambda _text: None

    def run(
        self,
        protocol: Protocol,
        targets: Sequence[Target],
        *,
        limit_s: float | None = None,
        still_wanted: Callable[[str], bool] | None = None,
        **relay: Any,
    ) -> CampaignResult:
        """Run a campaign and say what disturbed it; ``relay`` holds space, circuit, fillers and companions."""
        cores = choose_cores(self.device)
        before = take_snapshot(cores)
        result = self.campaign(protocol, **relay).run(targets, limit_s=limit_s, still_wanted=still_wanted)
        for found in judge(
            before,
            take_snapshot(cores),
            clean=result.clean,
            rejected=result.rejected,
            drift=result.drift,
            threads=self.device.threads,
        ):
            self.notice(f"{found.message}: {found.hint}")
        return result

    def campaign(self, protocol: Protocol, **relay: Any) -> Campaign:
        """Return a campaign on this bench; ``relay`` holds space, circuit, fillers and companions."""
        circuit: Circuit | None = relay.get("circuit")

        @lru_cache(_GRAPHS_KEPT)
        def graph_of(key: str) -> Mapping[str, Any]:
            return self.store.get_operator(key).graph

        def new_rig() -> Rig:
            settings = WorkerSettings(self.device.backend, self.device.threads, choose_cores(self.device))
            return RemoteRig(settings, circuit, lambda holder: self.notice(f"waiting: {holder} is measuring"))

        return Campaign(
            environment=self.environment.id,
            threads=self.device.threads,
            protocol=_spread(protocol),
            provenance=self.provenance,
            journals=self.journals,
            graph_of=graph_of,
            new_rig=new_rig,
            emit=lambda record: _added(self.store, record),
            clock=SystemClock(),
            report=self.report,
            **relay,
        )


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
    return replace(protocol, spread_s=seconds)


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
) -> Bench:
    """Return this machine as the device, its environment recorded in the database.

    Raises:
        DeviceUnavailable, BackendUnavailable: it is not that device; says what it needs.
    """
    from lanaprof import __version__

    environment = local_environment(device)
    store.add([environment])
    provenance = Provenance(team=team, host=host_hash(), tool_version=__version__)
    journals = (state or Path.cwd() / STATE_FOLDER) / "journals"
    return Bench(device, environment, provenance, store, journals, report, notice)
