"""Opening a project with its database on a device, for the commands that measure or read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lanaprof.cli.base import meter, notice

if TYPE_CHECKING:
    from lanaprof.config import Device
    from lanaprof.flows.bench import Bench
    from lanaprof.flows.project import Project
    from lanaprof.lut import Store

__all__ = ["project_bench", "project_store"]


@contextmanager
def project_bench(
    device: str | None,
    database: str | None,
    team: str | None,
    *,
    create: bool = False,
    policy: str | None = None,
) -> Iterator[tuple[Project, Bench, Callable[[int, int], None]]]:
    """Give the project, this machine as the device, and a progress line for exports.

    Without a device: the one in lanaprof.toml, else the only one measured.
    """
    from lanaprof.flows.bench import open_bench
    from lanaprof.flows.devicing import default_device
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.lut import open_store
    from lanaprof.profiler.environment import local_environment

    project = load_project().under(policy)
    if device is not None or project.config.devices:
        local_environment(project.device(device))  # fail before any work when this machine is not the device
    with (
        open_store(project.database(database), create=create) as store,
        meter("timing networks, some built twice") as bar,
        meter("exporting networks") as exporting,
    ):
        bench = open_bench(
            default_device(project, store, device),
            store,
            team=default_team(team, project.config),
            state=project.state,
            report=lambda p: bar(p.done, p.total, p.left_s, p.text),
            notice=notice,
        )
        yield project, bench, exporting


@contextmanager
def project_store(
    device: str | None, database: str | None, *, policy: str | None = None
) -> Iterator[tuple[Project, Device, Store]]:
    """Give the project, the device by name, and the database; measures nothing.

    Without a device: the one in lanaprof.toml, else the only one measured.
    """
    from lanaprof.flows.devicing import default_device
    from lanaprof.flows.project import load_project
    from lanaprof.lut import open_store

    project = load_project().under(policy)
    with open_store(project.database(database)) as store:
        yield project, default_device(project, store, device), store
