"""SOURCE texts in a folder: which database is meant, which environments a device in it means, whose numbers count."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from lanaprof.config import PROJECT_FILE, Device, ProjectConfig, known_devices, parse_device, read_config
from lanaprof.errors import BackendUnavailable, BadInput, DeviceUnavailable
from lanaprof.lut import (
    Environment,
    EnvironmentChoice,
    RecordFilter,
    Source,
    Store,
    Viewpoint,
    choose_environment,
    parse_source,
)
from lanaprof.lut.engine import locate
from lanaprof.lut.policy import DEFAULT_POLICY
from lanaprof.profiler.environment import host_hash, is_device, local_environment

__all__ = [
    "choose_in_source",
    "database_text",
    "device_matcher",
    "devices_of_environment",
    "environment_text",
    "find_config",
    "find_environments",
    "known_here",
    "record_filter",
    "source_from",
    "viewpoint_of",
    "whole_database",
]


def find_config(folder: Path) -> ProjectConfig | None:
    """Return the folder's lanaprof.toml; None when it holds no project.

    Raises:
        BadProject: there is one, and it cannot be read.
    """
    return read_config(folder) if (folder / PROJECT_FILE).exists() else None


def source_from(
    text: str | None,
    database: str | None,
    folder: Path,
    *,
    device: str | None = None,
    environment: str | None = None,
    team: str | None = None,
    since: str | None = None,
    protocol: str | None = None,
) -> Source:
    """Return the SOURCE a command means.

    Args:
        text: the SOURCE on the command line; it comes before ``database``.
        database: a URL or path. Without both: LANAPROF_DATABASE, lanaprof.toml, else lanaprof.db.
        folder: where lanaprof.toml lies, if anywhere.
        device: an option, which comes before the same part of the text; likewise what follows.
        environment: a key or its beginning.
        team: whose records.
        since: from this UTC time or date on.
        protocol: such as ``relay/2``.

    Raises:
        BadInput: the text has unknown parts.
    """
    if text:
        source = parse_source(text)
    else:
        chosen = database or os.environ.get("LANAPROF_DATABASE")
        if not chosen:
            config = find_config(folder)
            chosen = (config.database if config is not None else "") or "lanaprof.db"
            if config is not None and "://" not in chosen:
                chosen = str(folder / chosen)
        source = Source(database=chosen)
    given = {
        "device": device,
        "environment": environment,
        "team": team,
        "since": since,
        "protocol": protocol,
    }
    if device and not environment:
        given["environment"] = ""  # an environment pinned in the text is of the device it named
    return replace(source, **{name: value for name, value in given.items() if value is not None})


def whole_database(text: str | None, database: str | None, folder: Path, *, what: str) -> str:
    """Return the database of a command that takes it whole.

    Raises:
        BadInput: the text chooses a part of it.
    """
    source = source_from(text, database, folder)
    if source != Source(database=source.database):
        raise BadInput(
            f"{what} takes a whole database, not the part {text!r} chooses",
            hint=f"leave out what follows the #: {source.database}",
        )
    return source.database


def database_text(database: str) -> str:
    """Return a path or URL for messages: without a password."""
    return locate(database).shown


def device_matcher(device: Device) -> Callable[[Environment], bool]:
    """Return what says whether an environment is this device."""

    def matches(found: Environment) -> bool:
        same = device.matches(
            backend=found.backend, cpu_model=found.cpu_model, gpu_model=found.gpu_model, threads=found.threads
        )
        return same and is_device(device, found)

    return matches


def devices_of_environment(environment: Environment, known: Iterable[Device]) -> tuple[str, ...]:
    """Return the texts of the devices that mean this environment, e.g. ``cpu,threads=2``."""
    texts = []
    for device in known:
        own = replace(device, threads=environment.threads)
        if device_matcher(own)(environment):
            suffix = f",threads={own.threads}" if own.threads != device.threads else ""
            texts.append(device.name + suffix)
    return tuple(texts)


def environment_text(environment: Environment) -> str:
    """Return an environment for people, its key's beginning first."""
    threads = f"{environment.threads} thread{'s' if environment.threads != 1 else ''}"
    hardware = environment.gpu_model or environment.cpu_model
    return (
        f"{environment.id[:12]} ({hardware}, {environment.backend} {environment.backend_version}, {threads})"
    )


def find_environments(store: Store, source: Source, folder: Path) -> tuple[Environment, ...] | None:
    """Return the environments a SOURCE names, by key or by device; None when it names none.

    Raises:
        BadInput: no environment is the device, or has the key; lists what is there.
        UnknownDevice: no devices.yaml has the device.
    """
    if source.environment:
        return (store.get_environment(source.environment),)
    if not source.device:
        return None
    device = parse_device(source.device, folder)
    there = store.environments()
    found = tuple(filter(device_matcher(device), there))
    if not found:
        listed = "; ".join(environment_text(each) for each in there) or "no environments"
        raise BadInput(
            f"nothing in {store.name} was measured on device {device.text!r}; it has {listed}",
            hint=f"lanaprof measure --device {device.text}, or name another device",
        )
    return found


def record_filter(store: Store, source: Source, folder: Path) -> RecordFilter:
    """Return which of a database's records a SOURCE chooses."""
    environments = find_environments(store, source, folder)
    keys = None if environments is None else tuple(each.id for each in environments)
    return RecordFilter(environments=keys, team=source.team, since=source.since, protocol=source.protocol)


def viewpoint_of(
    device: Device | None, *, team: str = "", wanted: Iterable[str] = (), policy: str = ""
) -> Viewpoint:
    """Return who asks: this machine, as the device where it can be one, and a team; without a policy own host first.

    Raises:
        BadInput: an unknown policy.
    """
    own = ""
    if device is not None:
        try:
            own = local_environment(device).id
        except (DeviceUnavailable, BackendUnavailable):
            own = ""  # this machine is another device: nothing here is its own
    chosen = policy or DEFAULT_POLICY
    return Viewpoint(host=host_hash(), team=team, environment=own, wanted=tuple(wanted), policy=chosen)


def choose_in_source(
    store: Store, source: Source, folder: Path, *, team: str = "", cache: str | None = None
) -> EnvironmentChoice:
    """Return the one environment a SOURCE means: the pinned, the device's best, or the only one measured.

    Raises:
        BadInput: none, or several and no device; lists them.
    """
    found = find_environments(store, source, folder)
    if source.environment and found:
        return EnvironmentChoice(found[0], "")
    device = parse_device(source.device, folder) if source.device else None
    if found is None:
        used = store.used_environments(team=source.team)
        found = tuple(each for each in store.environments() if each.id in used)
        if len(found) > 1:
            listed = "; ".join(environment_text(each) for each in found)
            raise BadInput(
                f"{store.name} has measurements of several environments: {listed}",
                hint=f"name a device or one of these: '{source.database}#environment={found[0].id[:12]}'",
            )
        if not found and source.team and (held := store.holdings()):
            teams = sorted({team for each in held for team in each.teams})
            raise BadInput(
                f"{store.name} has no such measurements of team {source.team!r}; teams there: {', '.join(teams)}",
                hint=f"name one of these: '{source.database}#team={teams[0]}'",
            )
    return choose_environment(store, found, viewpoint=viewpoint_of(device, team=team), cache=cache)


def known_here(folder: Path) -> tuple[Device, ...]:
    """Return the devices known in a folder."""
    return tuple(known_devices(folder).values())
