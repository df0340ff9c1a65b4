"""What the user configures: devices.yaml and lanaprof.toml."""

from __future__ import annotations

from lanaprof.config.devices import Device, known_devices, parse_device
from lanaprof.config.project import (
    PRETRAINED,
    PROJECT_FILE,
    ProjectConfig,
    input_shape_from_text,
    read_config,
    write_config,
)

__all__ = [
    "PRETRAINED",
    "PROJECT_FILE",
    "Device",
    "ProjectConfig",
    "input_shape_from_text",
    "known_devices",
    "parse_device",
    "read_config",
    "write_config",
]
