"""What the user configures: devices.yaml and lanaprof.toml."""

from __future__ import annotations

from lanaprof.config.devices import Device, known_devices, parse_device

__all__ = ["Device", "known_devices", "parse_device"]
