"""Builds canonical graphs with TensorRT-RTX by our build code, and prints what came of it; runs in a child process.

Reads ``{"graphs": {name: graph}, "edges": bool}``; prints ``{name: {"bytes", "warnings"} | {"error", "message"}}``.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from lanaprof.errors import LanaprofError
from lanaprof.profiler.backends.base import Edges
from lanaprof.profiler.backends.trt_api import open_api
from lanaprof.profiler.backends.trt_build import BuildOptions, Timings, build_plan
from lanaprof.profiler.backends.trt_model import kinds_of, model_for


def main() -> None:
    """Build them all; a refusal is a row, as in a campaign."""
    warnings.simplefilter("ignore")  # NVIDIA's own: its timing caches do nothing here
    asked = json.load(sys.stdin)
    api = open_api("tensorrt_rtx")
    found: dict[str, Any] = {}
    for name, graph in asked["graphs"].items():
        edges = Edges((True,) * len(graph["inputs"]), (True,) * len(graph["outputs"]))
        try:
            # Its version counts anew; its API is that of TensorRT 11.
            model = b"xx" if name == "no model" else model_for(graph, seed=0, tensorrt_version="11.4")
            built = build_plan(
                api, model, options=BuildOptions(), kinds=kinds_of(graph),
                edges=edges if asked["edges"] else None, timings=Timings(keep=True),
            )  # fmt: skip
            found[name] = {"bytes": len(built.plan), "warnings": list(built.warnings)}
        except LanaprofError as error:
            found[name] = {"error": type(error).__name__, "message": error.message}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
