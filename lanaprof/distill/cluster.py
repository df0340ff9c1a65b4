"""Work in parts on the nodes of a Ray cluster: who is there, who sees the project, what is lost is done again.

Ray is known here and in :mod:`lanaprof.distill.joining` alone, and imported when a cluster is opened. Parts are
functions of lanaprof, called by their name on the nodes: lanaprof is installed there in the same version, and the
project's folder is reachable under the same path.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lanaprof import __version__
from lanaprof.distill.groups import Attempt, Part, Spread, Together
from lanaprof.distill.joining import QUIET, connect, head_of, import_ray
from lanaprof.distill.nodes import (
    Board,
    Slot,
    Word,
    answer_probe,
    find_trouble,
    last_line,
    slots_of,
)
from lanaprof.distill.runtime import Progress, ProgressCallback
from lanaprof.errors import LanaprofError, StoreError, UserError

__all__ = ["QUIET", "Cluster", "open_cluster"]

POLL_S = 0.25  # between two looks at what the nodes say
REPORT_S = 0.5  # between two reports of a part
PROBE_S = 120.0  # for a node's first answer: it starts a Python and imports lanaprof
CANCEL_S = 10.0  # for the nodes' workers to end after Ctrl-C
NODES_S = 60.0  # for another node once the last one is lost
MOST_ATTEMPTS = 5  # at one part: it may be the part that ends its nodes, for want of memory for instance

Work = Callable[[Any, Slot, ProgressCallback], Any]


@contextmanager
def open_cluster(address: str, folder: Path, *, tell: Callable[[str], None]) -> Iterator[Cluster]:
    """Give a cluster whose nodes were asked for all they need; leaving the block ends all that was started there.

    Args:
        address: ``HOST:PORT`` of its head, ``auto`` for the one this machine belongs to, ``local`` for one of
            this machine alone that ends with the block.
        folder: which all nodes must see under the same path, and write to.
        tell: called with what a person should know: a lost node, one that came later and cannot be used.

    Raises:
        BackendUnavailable: Ray is not installed.
        UserError: there is no such cluster, this machine is not part of it, or a node lacks something: the
            message names it.
    """
    ray = import_ray()
    connect(ray, address)
    # As Ray's own debugger does: else it prints how nodes end to standard output, where --json's document belongs.
    ray._private.worker._worker_logs_enabled = False
    nonce = secrets.token_hex(8)
    probe = folder / f"cluster-{nonce}"
    try:
        try:
            probe.write_text(nonce, encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write {probe}: {error}", hint="free some space, or its permissions"
            ) from error
        cluster = Cluster(ray, address, probe, tell)
        cluster.check()
        yield cluster
    finally:
        probe.unlink(missing_ok=True)
        ray.shutdown()


class Cluster:
    """A cluster this process is connected to; made by ``open_cluster``.

    Args:
        ray: the module.
        address: as the user gave it, for messages.
        probe: a file whose name ends with its content; nodes must be able to read it.
        tell: as for ``open_cluster``.
    """

    def __init__(self, ray: Any, address: str, probe: Path, tell: Callable[[str], None]) -> None:
        self._ray = ray
        self._address = address
        self._probe = probe
        self._tell = tell
        self._slots: dict[str, tuple[Slot, ...]] = {}  # by node, of those that can be used
        self._asked: dict[str, Any] = {}  # nodes whose answer is awaited
        self._useless: set[str] = set()
        self._hosts: dict[str, str] = {}

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Return where parts can run now."""
        return tuple(slot for slots in self._slots.values() for slot in slots)

    def check(self) -> None:
        """Ask all nodes whether they see the folder and run this lanaprof.

        Raises:
            UserError: a node does not, or no node has a core to compute on.
        """
        self.look()
        until_s = time.monotonic() + PROBE_S
        for node in list(self._asked):
            trouble = self._answer(node, timeout_s=max(0.0, until_s - time.monotonic()))
            if trouble is not None:
                raise trouble
        if not self._slots:
            raise UserError(
                f"no node of the cluster {self._address} has cores to compute on", hint=self.join_hint()
            )

    def look(self) -> None:
        """See which nodes are gone, and ask the new ones."""
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        for gone in set(self._slots) - set(alive):
            self.doubt(gone)
        for name, node in alive.items():
            new = name not in self._slots and name not in self._asked and name not in self._useless
            if new and node["Resources"].get("CPU", 0) >= 1:
                self._hosts[name] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                self._asked[name] = (
                    self._ray.remote(answer_probe)
                    .options(num_cpus=0, max_retries=0, scheduling_strategy=_only_on(name))
                    .remote(str(self._probe)),
                    slots_of(name, self._hosts[name], node["Resources"]),
                )

    def doubt(self, node: str) -> None:
        """Give a node nothing more before it has answered anew: Ray takes seconds to tell that one is gone."""
        self._slots.pop(node, None)

    def take_in(self) -> None:
        """Use those of the new nodes that have answered; tell of those that cannot be used."""
        for node in list(self._asked):
            if self._ray.wait([self._asked[node][0]], timeout=0)[0]:
                trouble = self._answer(node, timeout_s=0.0)
                if trouble is not None:
                    self._tell(f"{trouble.message}; it gets nothing to do ({trouble.hint})")

    def run(self, work: Work, parts: Sequence[Part], *, stage: str, progress: ProgressCallback) -> Spread:
        """Do all parts, one at a time in every slot, those with the most work first.

        What a lost node had begun begins again elsewhere; nodes that join later get their part.

        Args:
            work: a function of an importable module: (argument, slot, progress callback) → result, pickled.
            parts: what to do.
            stage: what is being done, for people.
            progress: called several times a second while something is heard of.

        Raises:
            LanaprofError: what the work raised, or it was lost too often, or no node is left.
        """
        if not parts:
            return Spread({}, ())
        return _Run(self, self._ray, work, parts, stage).finish(progress, self._tell)

    def join_hint(self) -> str:
        """Return what to type to give the cluster another node."""
        return f"on each machine: ray start --address {head_of(self._ray, self._address)}"

    def _answer(self, node: str, *, timeout_s: float) -> UserError | None:
        """Take a node's answer to the probe in; return why it cannot be used, if so."""
        asked, slots = self._asked.pop(node)
        host = self._hosts[node]
        errors = self._ray.exceptions
        trouble: UserError | None
        try:
            seen = self._ray.get(asked, timeout=timeout_s)
        except errors.GetTimeoutError:
            trouble = UserError(
                f"the node {host} does not answer within {PROBE_S:g} s", hint="look at it with: ray status"
            )
        except errors.RayTaskError as error:
            trouble = UserError(
                f"lanaprof does not run on the node {host}: {last_line(error)}",
                hint=f"install it there, version {__version__} with the extra [ray], in the Python that Ray runs in",
            )
        except errors.RayError:  # it died meanwhile: look() will not list it any more
            return None
        else:
            trouble = find_trouble(host, seen, self._probe)
            if trouble is None:
                self._slots[node] = slots
                own = version("torch")
                if seen["torch"] != own:
                    self._tell(
                        f"the node {host} has torch {seen['torch']}, this machine {own}: weights trained there "
                        "may differ in their last bits"
                    )
                return None
        self._useless.add(node)
        return trouble


@dataclass(slots=True)
class _Running:
    part: Part
    slot: Slot
    key: str  # of this attempt


class _Run:
    """One spreading of parts."""

    def __init__(self, cluster: Cluster, ray: Any, work: Work, parts: Sequence[Part], stage: str) -> None:
        self._cluster = cluster
        self._ray = ray
        self._work = work
        self._waiting = deque(sorted(parts, key=lambda part: -part.share.work))
        self._running: dict[Any, _Running] = {}
        self._together = Together({part.name: part.share for part in parts}, stage=stage)
        self._heard: dict[str, tuple[Word, Word]] = {}
        self._losses: dict[str, int] = {}
        self._results: dict[str, Any] = {}
        self._attempts: list[Attempt] = []
        here = ray.get_runtime_context().get_node_id()  # a board elsewhere could be lost with its node
        self._board = (
            ray.remote(Board)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_only_on(here))
            .remote()
        )
        self._task = ray.remote(_do_part)

    def finish(self, progress: ProgressCallback, tell: Callable[[str], None]) -> Spread:
        """Work until all is done."""
        alone_since_s = None
        try:
            while self._waiting or self._running:
                self._cluster.look()
                self._cluster.take_in()
                self._submit()
                if self._running:
                    alone_since_s = None
                    ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_S)
                    self._listen()
                    for reference in ended:
                        self._end(reference, tell)
                    if self._heard:
                        progress(self._together.progress())
                else:
                    alone_since_s = alone_since_s or time.monotonic()
                    if time.monotonic() - alone_since_s > NODES_S:
                        raise UserError(
                            f"no node of the cluster is left; {len(self._waiting)} groups are not done",
                            hint=f"{self._cluster.join_hint()}; then the same command again",
                        )
                    time.sleep(POLL_S)
        except BaseException:
            self._cancel()
            raise
        finally:
            self._ray.kill(self._board)
        return Spread(self._results, tuple(self._attempts))

    def _submit(self) -> None:
        busy = {running.slot for running in self._running.values()}
        for slot in self._cluster.slots:
            if slot in busy or not self._waiting:
                continue
            part = self._waiting.popleft()
            key = f"{part.name} {secrets.token_hex(4)}"
            reference = self._task.options(
                num_cpus=slot.threads,
                num_gpus=slot.gpus,
                max_retries=0,  # we do that, and say so
                name=part.name,
                scheduling_strategy=_only_on(slot.node),
            ).remote(self._work, part.argument, slot, self._board, key)
            self._running[reference] = _Running(part, slot, key)

    def _listen(self) -> None:
        parts = {running.key: running.part.name for running in self._running.values()}
        for key, (first, last) in self._ray.get(self._board.read.remote()).items():
            if key in parts and self._heard.get(key) != (first, last):
                self._heard[key] = first, last
                self._together.note(parts[key], Progress(parts[key], *last))

    def _end(self, reference: Any, tell: Callable[[str], None]) -> None:
        """Take in a result, or make the part wait for another slot."""
        running = self._running.pop(reference)
        errors = self._ray.exceptions
        name, host = running.part.name, running.slot.host
        finished = False
        try:
            self._results[name] = self._ray.get(reference)
            finished = True
        except errors.RayTaskError as error:
            if isinstance(error.cause, LanaprofError):
                raise error.cause from None
            raise LanaprofError(
                f"{name} failed on the node {host}: {last_line(error)}",
                hint="this is a fault of lanaprof; --debug shows where",
            ) from error
        except errors.RayError as error:
            self._losses[name] = self._losses.get(name, 0) + 1
            if self._losses[name] >= MOST_ATTEMPTS:
                raise UserError(
                    f"{name} was lost {MOST_ATTEMPTS} times, last on the node {host}: {last_line(error)}",
                    hint="does the machine have enough memory? What is done stays; the same command goes on",
                ) from error
            self._cluster.doubt(running.slot.node)
            tell(f"lost {name} on the node {host} ({type(error).__name__}); another goes on with it")
            self._waiting.appendleft(running.part)
        else:
            self._together.finish(name)
        first, last = (word and Progress(name, *word) for word in self._heard.get(running.key, (None, None)))
        self._attempts.append(
            Attempt(part=name, node=running.slot.node, first=first, last=last, finished=finished)
        )

    def _cancel(self) -> None:
        """End what runs; its files are whole or absent, so nobody needs to be asked."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=CANCEL_S)


def _do_part(work: Work, argument: Any, slot: Slot, board: Any, key: str) -> Any:
    """Do a part on a node; reports are thinned out but for the first and the last."""
    told_s = -REPORT_S
    last: Progress | None = None

    def report(progress: Progress) -> None:
        nonlocal told_s, last
        last = progress
        if time.monotonic() - told_s >= REPORT_S:
            told_s = time.monotonic()
            board.tell.remote(key, _word(progress))

    result = work(argument, slot, report)
    if last is not None:
        import ray  # runs on a node, where it is there

        ray.get(board.tell.remote(key, _word(last)))  # before the result is known, so that none comes late
    return result


def _word(progress: Progress) -> Word:
    return progress.done, progress.total, progress.seconds_left


def _only_on(node: str) -> Any:
    from ray.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
    )  # an extra, imported when it is used

    return NodeAffinitySchedulingStrategy(node, soft=False)
