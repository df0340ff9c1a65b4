"""Devices: names for hardware with a backend and defaults, from devices.yaml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lanaprof.errors import BadInput, UnknownDevice

__all__ = ["PRECISIONS", "Device", "known_devices", "parse_device"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
_MATCH_FIELDS = ("cpu_model", "gpu_name", "compute_capability")
_SLICE = " MIG "  # in the names that CUDA gives to slices of GPUs: "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
_FIELDS = ("backend", "match", "threads", "batch", "precision", "cores", "options", "lock_clocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        name: the name in devices.yaml.
        text: how it was asked for, canonical: the name and what differs from its defaults.
        backend: the runtime that measures it.
        match: (field, pattern) pairs an environment must satisfy.
        threads, batch, precision: of the measurement.
        cores: the cores to pin to; empty leaves the choice to the profiler.
        options: (name, text) pairs of what the backend lets choose, as written.
        lock_clocks: a GPU's clock is fixed at so many MHz while it is measured, 0 for its default one; None leaves it.
    """

    name: str
    text: str
    backend: str
    match: tuple[tuple[str, str], ...] = ()
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    cores: tuple[int, ...] = field(default=())
    options: tuple[tuple[str, str], ...] = field(default=())
    lock_clocks: int | None = None

    def matches(self, *, backend: str, cpu_model: str, gpu_model: str, threads: int) -> bool:
        """Say whether an environment with these fields is this device.

        A slice of a GPU (MIG) is no such GPU: it belongs to devices whose pattern says MIG, and to no others.
        """
        if backend != self.backend or threads != self.threads:
            return False
        if _SLICE in gpu_model and _SLICE.strip() not in dict(self.match).get("gpu_name", ""):
            return False
        values = {"cpu_model": cpu_model, "gpu_name": gpu_model}
        return all(re.search(pattern, values[name]) for name, pattern in self.match if name in values)


def known_devices(folder: Path | None = None) -> dict[str, Device]:
    """Return the devices by name: those known out of the box, and the folder's own devices.yaml.

    Raises:
        BadInput: a devices.yaml that cannot be read.
    """
    shipped = resources.files("lanaprof").joinpath("devices.yaml").read_text(encoding="utf-8")
    found = _devices_from_yaml(shipped, "the shipped devices.yaml")
    own = (folder or Path.cwd()) / "devices.yaml"
    if own.is_file():
        try:
            text = own.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{own} cannot be read: {error}") from error
        found.update(_devices_from_yaml(text, str(own)))
    return found


def _devices_from_yaml(text: str, origin: str) -> dict[str, Device]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{origin} is not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise BadInput(f"{origin} must map names to devices")
    return {str(name): _device(str(name), entry, origin) for name, entry in document.items()}


def _device(name: str, entry: Any, origin: str) -> Device:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("backend"), str):
        raise BadInput(f"{origin}: device {name!r} names no backend", hint="backend: onnxruntime")
    unknown = sorted(set(entry) - set(_FIELDS))
    if unknown:
        raise BadInput(
            f"{origin}: device {name!r} has the unknown field {unknown[0]!r}; known: {', '.join(_FIELDS)}"
        )
    match = entry.get("match") or {}
    if not isinstance(match, Mapping) or set(match) - set(_MATCH_FIELDS):
        raise BadInput(f"{origin}: device {name!r} may match {', '.join(_MATCH_FIELDS)}, not {match!r}")
    capability = match.get("compute_capability", "0.0")
    if not re.fullmatch(r"\d+\.\d+", str(capability)):
        raise BadInput(f'{origin}: device {name!r}: compute_capability is written "7.0", not {capability!r}')
    cores = entry.get("cores") or []
    if not isinstance(cores, list) or not all(isinstance(core, int) and core >= 0 for core in cores):
        raise BadInput(f"{origin}: device {name!r}: cores must be a list of core numbers, not {cores!r}")
    return Device(
        name=name,
        text=name,
        backend=entry["backend"],
        match=tuple(sorted((str(k), str(v)) for k, v in match.items())),
        threads=_positive(entry.get("threads", max(1, len(cores))), f"{origin}: device {name!r}: threads"),
        batch=_positive(entry.get("batch", 1), f"{origin}: device {name!r}: batch"),
        precision=_precision(entry.get("precision", "fp32"), f"{origin}: device {name!r}"),
        cores=tuple(cores),
        options=_options(entry.get("options") or {}, f"{origin}: device {name!r}"),
        lock_clocks=_clock(entry.get("lock_clocks", False), f"{origin}: device {name!r}: lock_clocks"),
    )


def _clock(given: Any, where: str) -> int | None:
    if isinstance(given, bool):
        return 0 if given else None
    return _positive(given, f"{where} (true for the default clock, or MHz)")


def _options(given: Any, where: str) -> tuple[tuple[str, str], ...]:
    """Return options as texts; YAML reads ``on`` and ``off`` as truth values.

    Raises:
        BadInput: they are no names with a word or number each.
    """
    if not isinstance(given, Mapping):
        raise BadInput(
            f"{where}: options must map names to values, not {given!r}", hint="options: {tf32: on}"
        )
    found = []
    for name, value in given.items():
        if not isinstance(value, str | int | float):
            raise BadInput(f"{where}: the option {name!r} is a word or a number, not {value!r}")
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        found.append((str(name), text))
    return tuple(sorted(found))


def _positive(value: Any, where: str) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise BadInput(f"{where} must be a whole number from 1 on, not {value!r}")
    return number


def _precision(value: Any, where: str) -> str:
    if value not in PRECISIONS:
        raise BadInput(f"{where}: unknown precision {value!r}; known: {', '.join(PRECISIONS)}")
    return str(value)


def parse_device(text: str, folder: Path | None = None) -> Device:
    """Return the device a text such as ``cpu,threads=2,batch=8`` asks for.

    Raises:
        UnknownDevice: no devices.yaml has the name; lists those there are.
        BadInput: an option that devices do not have, or a bad value.
    """
    name, *settings = [part.strip() for part in text.split(",")]
    devices = known_devices(folder)
    if name not in devices:
        close = difflib.get_close_matches(name, devices, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownDevice(
            f"unknown device {name!r}; known: {', '.join(devices)}{guess}",
            hint="add it to ./devices.yaml (lanaprof devices --detect prints an entry)",
        )
    base = devices[name]
    device = base
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in ("threads", "batch", "precision"):
            raise BadInput(f"device option {setting!r} is unknown; known: threads=N, batch=N, precision=NAME")
        if key == "threads":
            device = replace(device, threads=_positive(value, "threads"))
        elif key == "batch":
            device = replace(device, batch=_positive(value, "batch"))
        else:
            device = replace(device, precision=_precision(value, f"device {name!r}"))
    if device.threads != base.threads and device.cores:
        device = replace(device, cores=())  # the named cores were meant for another number of threads
    changed = [f"{key}={getattr(device, key)}" for key in ("threads", "batch", "precision")
               if getattr(device, key) != getattr(base, key)]  # fmt: skip
    return replace(device, text=",".join([name, *changed]))
