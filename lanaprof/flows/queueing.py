"""measure --queue: put what a device lacks on its queue, for workers on other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lanaprof.config import Device
from lanaprof.digest import digest
from lanaprof.flows.bench import Bench
from lanaprof.flows.farming import queue_of
from lanaprof.flows.measuring import Need, fillers_of, gaps, needed
from lanaprof.flows.operators import export_networks, export_operators
from lanaprof.flows.project import Project
from lanaprof.flows.sources import device_matcher, viewpoint_of
from lanaprof.lut import Environment, Store, choose_environment, utc_now
from lanaprof.lut.jobs import EnqueueReport, Job
from lanaprof.lut.queue import Queue
from lanaprof.ops import TEACHER
from lanaprof.profiler.campaign import Provenance
from lanaprof.profiler.environment import host_hash, runs_on_gpu
from lanaprof.profiler.protocol import HOT, NETWORK
from lanaprof.version import VERSION

__all__ = ["Again", "Enqueued", "enqueue_gaps", "enqueue_project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What is measured again: rows in the states ``retry``, or with ``force`` everything."""

    retry: tuple[str, ...] = ()
    force: bool = False

    @property
    def since(self) -> str:
        """Return the time from which on rows are new enough; empty where any row is."""
        return utc_now() if self.retry or self.force else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """What ``measure --queue`` did.

    Attributes:
        queue: the device's.
        report: jobs that are new, that waited already, and that ran already.
        reused, operators: how many operators are measured, and how many there are; the pieces of the teacher around
            its layers, which are jobs, too, are not among them.
        cache: how the others will be: ``relay`` or ``hot``.
        exported: operators that were exported for it; ``unexportable`` ones could not be.
        environment: whose measurements were counted; empty where the device was never measured.
        workers: how many listen.
    """

    queue: str
    report: EnqueueReport
    reused: int
    operators: int
    cache: str
    exported: int
    unexportable: int
    environment: str
    workers: int


def enqueue_project(
    project: Project,
    device: Device,
    store: Store,
    queue: Queue,
    *,
    team: str,
    again: Again | None = None,
    exporter: str = "torchscript",
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> Enqueued:
    """Export what the project's space lacks on a device, and enqueue it; arguments as for ``measure_project``.

    Under relay the workers get the circuit of the teacher as canonical graphs: they need neither torch nor teacher.
    """
    exported = export_operators(project, device, store, exporter=exporter, progress=exporting)
    bench = _bench(device, store, queue, team, project.folder)
    again = again or Again()
    need = needed(project, bench, retry=again.retry, force=again.force)
    context, contexts = "", dict[str, Any]()
    if need.relayed and need.operators.circuit is not None:
        content = {
            "space": need.space,
            "circuit": need.operators.circuit.to_json(),
            "fillers": fillers_of(project, need.operators),
        }
        context = digest(content)
        contexts[context] = content
    elif not bench.gpu:
        bench.notice("the teacher cannot be cut at its layers: measuring hot, without its context")
    jobs = _jobs(project, device, store, need, context, again.since)
    report = queue.enqueue(queue_of(device), jobs, contexts)
    reused = len(need.good.intersection(need.operators.keys))
    return _enqueued(
        queue, device, bench, report, reused, operators=len(need.operators.keys), cache=need.protocol.cache,
        exported=exported.operators, unexportable=need.operators.unexportable,
    )  # fmt: skip


def _jobs(project: Project, device: Device, store: Store, need: Need, context: str, since: str) -> list[Job]:
    """Return a job per operator, segment and, where it was never timed, the teacher as a whole."""
    protocol = need.protocol.text
    layers_of = need.operators.layers_of if need.relayed else lambda _key: ()
    jobs = [
        Job(operator=key, protocol=protocol, layers=tuple(layers_of(key)), context=context, since=since)
        for key in need.wanted
    ]
    jobs += [
        Job(operator=key, protocol=protocol, kind="segment", context=context, since=since)
        for key in need.segments
    ]
    if jobs or not need.network_timed:
        choices = (TEACHER,) * len(project.space.layers)
        network = export_networks(project, device, store, [choices])[choices]
        # In the circuit's own campaign, where there is one: what the layers leave of the whole is a difference.
        job = Job(operator=network, protocol=protocol, kind="network", context=context, since=utc_now())
        jobs.append(job if context else replace(job, protocol=NETWORK.text))
    return jobs


def enqueue_gaps(
    device: Device,
    store: Store,
    queue: Queue,
    *,
    team: str,
    again: Again | None = None,
) -> Enqueued:
    """Enqueue, hot, the database's operators that the device has no measurement of; needs no torch."""
    bench = _bench(device, store, queue, team, Path.cwd())
    again = again or Again()
    wanted, total = gaps(bench, retry=again.retry, force=again.force)
    jobs = [Job(operator=key, protocol=HOT.text, since=again.since) for key in wanted]
    report = queue.enqueue(queue_of(device), jobs)
    return _enqueued(
        queue,
        device,
        bench,
        report,
        total - len(wanted),
        operators=total,
        cache="hot",
        exported=0,
        unexportable=0,
    )


def _enqueued(
    queue: Queue, device: Device, bench: Bench, report: EnqueueReport, reused: int, **counts: Any
) -> Enqueued:
    named = queue_of(device)
    listening = [each for each in queue.overview().workers if each.queue == named and not each.stalled]
    return Enqueued(
        queue=named, report=report, reused=reused, workers=len(listening),
        environment=bench.environment.id if bench.environment.cpu_model else "", **counts,
    )  # fmt: skip


def _bench(device: Device, store: Store, queue: Queue, team: str, folder: Path) -> Bench:
    """Return a bench that measures nothing: it says what the device has, as its workers or its rows tell."""
    provenance = Provenance(team=team, host=host_hash(), tool_version=VERSION)
    environment = _environment(device, store, queue, team)
    gpu = "elsewhere" if runs_on_gpu(device) else ""
    return Bench(device, environment, provenance, store, folder, gpu=gpu)


def _environment(device: Device, store: Store, queue: Queue, team: str) -> Environment:
    """Return the environment whose measurements count: the listening workers', else the one predictions are made of."""
    candidates = [each for each in store.environments() if device_matcher(device)(each)]
    listening = {each.environment for each in queue.overview().workers if each.queue == queue_of(device)}
    for each in candidates:
        if each.id in listening:
            return each
    if store.measured_operators(each.id for each in candidates):
        return choose_environment(store, candidates, viewpoint=viewpoint_of(device, team=team)).environment
    # Nobody measured it yet: an environment of which there is nothing.
    return Environment(
        backend=device.backend, backend_version="", cpu_model="", isa="", cores=device.threads, smt=False,
        threads=device.threads,
    )  # fmt: skip
