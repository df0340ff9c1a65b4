"""Which device a command means, and what is here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lanaprof.config import Device, ProjectConfig, known_devices, parse_device
from lanaprof.errors import BackendUnavailable, BadInput, DeviceUnavailable, UnknownDevice
from lanaprof.flows.project import Project
from lanaprof.lut import Environment, Store
from lanaprof.profiler.environment import is_device, local_environment

__all__ = ["DeviceState", "default_device", "device_states", "device_to_measure", "devices_of"]


def devices_of(environments: Iterable[Environment], devices: Iterable[Device]) -> tuple[Device, ...]:
    """Return the devices that have an environment among these."""
    found = []
    for device in devices:
        for e in environments:
            if is_device(device, e):
                found.append(device)
                break
    return tuple(found)


def default_device(project: Project, store: Store, text: str | None) -> Device:
    """Return the device asked for, else the one in lanaprof.toml, else the only one measured.

    Raises:
        UnknownDevice: none of these; lists those that are measured.
    """
    if text is not None or project.config.devices:
        return project.device(text)
    used = store.used_environments()
    there = [environment for environment in store.environments() if environment.id in used]
    measured = devices_of(there, known_devices(project.folder).values())
    if len(measured) == 1:
        threads = sorted({environment.threads for environment in there})
        name = measured[0].name
        return parse_device(
            name if threads == [measured[0].threads] else f"{name},threads={threads[0]}", project.folder
        )
    listed = ", ".join(device.name for device in measured) or "none"
    raise UnknownDevice(
        f"no device was named, lanaprof.toml names none, and {store.name} has measurements of {listed}",
        hint="add --device cpu",
    )


def device_to_measure(text: str | None, config: ProjectConfig | None, folder: Path) -> Device:
    """Return what is measured, for whoever measures, enqueues, or listens to a queue.

    The device asked for, else the first in lanaprof.toml; ``cpu`` outside a project.

    Raises:
        UnknownDevice: there is no such device, or a project names none.
    """
    if text is None and config is None:
        text = "cpu"
    if text is None and config is not None and config.devices:
        text = config.devices[0]
    if text is None:
        raise UnknownDevice(
            f"no device was named, and lanaprof.toml names none; known: {', '.join(known_devices(folder))}",
            hint="add --device cpu",
        )
    return parse_device(text, folder)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A known device, and why it cannot be measured here; an empty reason means it can."""

    device: Device
    problem: str
    hint: str


def device_states(devices: Iterable[Device]) -> tuple[DeviceState, ...]:
    """Return which devices can be measured on this machine."""
    states = []
    for device in devices:
        try:
            local_environment(device)
        except (BadInput, DeviceUnavailable, BackendUnavailable) as error:
            states.append(DeviceState(device, error.message, error.hint))
        else:
            states.append(DeviceState(device, "", ""))
    return tuple(states)
