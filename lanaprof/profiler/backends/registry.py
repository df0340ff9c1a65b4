"""Backends by name: ours, and those of other packages by the entry point group ``lanaprof.backends``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.backends.base import Backend

__all__ = ["BACKENDS", "ENTRY_POINT_GROUP", "backend_class", "backend_names"]

ENTRY_POINT_GROUP = "lanaprof.backends"

BACKENDS: Mapping[str, str] = {
    "onnxruntime": "lanaprof.profiler.backends.onnxruntime:OnnxRuntime",
    "onnxruntime-cuda": "lanaprof.profiler.backends.onnxruntime_gpu:OnnxRuntimeCuda",
    "onnxruntime-tensorrt": "lanaprof.profiler.backends.onnxruntime_gpu:OnnxRuntimeTensorRt",
    "openvino": "lanaprof.profiler.backends.openvino:OpenVino",
    "tensorrt": "lanaprof.profiler.backends.tensorrt:TensorRt",
    "torch": "lanaprof.profiler.backends.torch:Torch",
    "torch-cuda": "lanaprof.profiler.backends.torch_cuda:TorchCuda",
}
_FOR_TESTS: Mapping[str, str] = {"scripted": "lanaprof.profiler.testing:ScriptedBackend"}
_OURS = {**BACKENDS, **_FOR_TESTS}


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, those of installed packages included."""
    return tuple(sorted({*BACKENDS, *_plugged()}))


def backend_class(name: str) -> type[Backend]:
    """Return a backend by name; its runtime is not imported.

    Raises:
        BackendUnavailable: nobody registered this name, several packages did, or it cannot be imported.
    """
    # Ours come first and need no look at the installed packages: nobody measures as "onnxruntime" but ONNX Runtime.
    targets = (_OURS[name],) if name in _OURS else _plugged().get(name, ())
    if not targets:
        raise BackendUnavailable(
            f"there is no backend {name!r}; known: {', '.join(backend_names())}",
            hint=f"correct `backend` in devices.yaml, or install the package that brings it ({ENTRY_POINT_GROUP})",
        )
    if len(targets) > 1:
        raise BackendUnavailable(
            f"several packages bring a backend {name!r}: {', '.join(targets)}", hint="uninstall all but one"
        )
    module, _, attribute = targets[0].partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(
            f"the backend {name!r} cannot be imported from {targets[0]!r}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise BackendUnavailable(f"{targets[0]!r} is no lanaprof.profiler.backends.Backend")
    if found.name != name:
        raise BackendUnavailable(
            f"{targets[0]!r} calls itself {found.name!r}, but is registered as {name!r}",
            hint="its environments would be filed under another backend than devices ask for",
        )
    return found


def _plugged() -> dict[str, tuple[str, ...]]:
    """Return name → distinct targets; names of ours are left out."""
    from importlib.metadata import entry_points  # reads every installed package's metadata: only when needed

    found: dict[str, tuple[str, ...]] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.value):
        if point.name not in _OURS and point.value not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point.value)
    return found
