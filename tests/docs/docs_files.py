"""Files that pages show, read by the readers that lanaprof has for them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from lanaprof.config import known_devices
from lanaprof.config.imports import load_attribute
from lanaprof.flows.project import load_project
from lanaprof.flows.report.baselines import find_baselines
from lanaprof.lut import Operator, import_files, open_store
from lanaprof.ops import Family
from lanaprof.ops.catalogue import read_operations
from lanaprof.ops.registry import ENTRY_POINT_GROUP as OPERATIONS
from lanaprof.ops.spans import read_spans
from lanaprof.profiler.backends.registry import ENTRY_POINT_GROUP as BACKENDS
from lanaprof.solver.registry import ENTRY_POINT_GROUP as SELECTORS


def read_yaml(text: str, folder: Path) -> None:
    """Devices are known under their names, in a folder of theirs."""
    place = folder / "devices"
    place.mkdir(exist_ok=True)
    (place / "devices.yaml").write_text(text, encoding="utf-8")
    names = [line.removesuffix(":") for line in text.splitlines() if line and not line.startswith(" ")]

    assert names
    assert set(names) <= set(known_devices(place))


def read_toml(text: str, folder: Path) -> None:
    """Entry points are of a kind that lanaprof looks for; a family among them is one."""
    groups = tomllib.loads(text)["project"]["entry-points"]

    assert set(groups) <= {OPERATIONS, BACKENDS, SELECTORS}
    for name in groups.get(OPERATIONS, {}).values():
        assert isinstance(load_attribute(name, search_path=folder), Family)


def read_json(text: str, folder: Path) -> None:
    """A document is accepted by what reads documents of its format."""
    document: Any = json.loads(text)
    if isinstance(document, list):  # what report --baselines takes
        path = folder / "baselines.json"
        path.write_text(text, encoding="utf-8")
        assert len(document) == len(find_baselines(load_project(folder), path))
        return
    if document["format"] == "lanaprof-graph/1":
        assert Operator(graph=document).id
        return
    assert document["format"] == "lanaprof-lut/1"
    path = folder / "manifest.jsonl"
    path.write_text(text, encoding="utf-8")
    with open_store(folder / "manifest.db", create=True) as store:
        assert not import_files(store, [path]).refused


def read_operations_file(path: Path) -> None:
    """Every line is an operation, or one for several layers."""
    assert len(read_operations(path)) + len(read_spans(path)) > 0


READERS = {"yaml": read_yaml, "toml": read_toml, "json": read_json}
