"""Prints, as JSON, what NVIDIA's bindings of TensorRT have of the names given on stdin; runs in a child process.

Reads ``{"classes": {class: {"methods": {name: [argument…]}, "others": [name…]}}}``.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import Any

from lanaprof.errors import BackendError
from lanaprof.profiler.backends.trt_api import KINDS, LACKING, open_api
from lanaprof.profiler.backends.trt_build import BuildOptions, build_plan

_MODULE = "tensorrt_bindings"


def arguments_of(method: Any) -> list[list[str]]:
    """Return the arguments of each overload, as pybind11 writes them into the docstring."""
    found = []
    for line in (method.__doc__ or "").splitlines():
        match = re.match(r"(?:\d+\. )?\w+\(self: [\w.:]+(?:, )?(.*)\) -> ", line)
        if match:
            found.append(re.findall(r"(\w+): ", match[1]))
    return found


def main() -> None:
    """Look at every name."""
    warnings.simplefilter("ignore")  # NVIDIA's own, of what it deprecates
    asked = json.load(sys.stdin)["classes"]
    api = open_api(_MODULE)
    missing: list[str] = []
    wrong: list[str] = []
    for path, described in asked.items():
        names = [f"{path}.{name}" for name in (*described["methods"], *described["others"])]
        missing.extend(name for name in (path, *names) if not api.has(name))
        for name, arguments in described["methods"].items():
            method: Any = api.module
            for part in [*path.split("."), name]:
                method = getattr(method, part, None)
            overloads = arguments_of(method)
            if method is not None and not any(one[: len(arguments)] == arguments for one in overloads):
                wrong.append(f"{path}.{name}({', '.join(arguments)})")
    api.logger.log(api.module.ILogger.Severity.WARNING, "a warning")
    api.logger.log(api.module.ILogger.Severity.ERROR, "an\n error")
    logged = [list(api.messages.warnings), api.messages.text]
    try:
        build_plan(api, b"xx", options=BuildOptions())
        refused = ""
    except BackendError as error:
        refused = error.message
    kinds = {name for name in KINDS if hasattr(api.module.DataType, name)}  # type: ignore[attr-defined]
    flags = {
        name: 1 << int(getattr(api.module.NetworkDefinitionCreationFlag, name))
        for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")
        if api.has(f"NetworkDefinitionCreationFlag.{name}")
    }
    sys.stdout.write(json.dumps({
        "version": api.module.__version__,
        "missing": sorted(missing),
        "wrong": wrong,
        "guarded": {name: api.has(name) for name in LACKING if "(" not in name},
        "logged": logged,
        "refused": refused,
        "kinds": sorted(kinds),
        "flags": flags,
        "network_flags": api.network_flags(),
        "strongly_typed": api.is_strongly_typed,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
