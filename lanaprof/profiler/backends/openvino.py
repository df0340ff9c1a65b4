"""OpenVINO's CPU plugin.

One thread: ``infer`` runs in the calling thread (its CPU time is the process's). Several: the caller and the workers
of one oneTBB pool, which all programs of the process share. Each compiled program brings two threads for
asynchronous calls; they sleep, and programs compiled later take over those of dropped ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.profiler.backends.base import (
    Array,
    Backend,
    Program,
    Settings,
    onnx_bytes,
    random_array,
    refuse_fp8,
)

__all__ = ["OpenVino"]

_TELEMETRY = "openvino_telemetry"
# The ONNX frontend's words, and the CPU plugin's.
_NO_KERNEL = ("No conversion rule found for operations", "Unsupported operation of type")


class OpenVino(Backend):
    """The CPU plugin of OpenVINO: static shapes, one stream, tensors that programs share."""

    name = "openvino"
    grid = "uint8"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._runtime = _import_runtime()
        self._core = self._runtime.Core()

    @classmethod
    def version(cls) -> str:
        """Return OpenVINO's version."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("openvino")
        except PackageNotFoundError:
            raise BackendUnavailable(
                "OpenVINO is not installed", hint="pip install 'lanaprof[openvino]'"
            ) from None

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the plugin's properties that change speed."""
        return (
            ("cache", "none"),
            ("denormals", "flushed"),
            ("hyper_threading", "allowed"),
            ("inference_precision", "f32"),
            ("performance_hint", "latency"),
            ("pinning", "process" if threads == 1 else "threads"),
            ("plugin", "CPU"),
            ("streams", "1"),
        )

    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return an ov.Tensor; OpenVINO allocates it, hence as aligned as its kernels like it."""
        values = random_array(kind, shape, seed=seed)
        tensor = self._runtime.Tensor(self._runtime.Type(values.dtype), list(values.shape))
        tensor.data[...] = values
        return tensor

    def read(self, buffer: Any) -> Array:
        """Return a copy of a tensor's values."""
        values: Array = buffer.data.copy()
        return values

    def write(self, buffer: Any, values: Array) -> None:
        """Put values into a tensor."""
        buffer.data[...] = values

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return the rebuilt operator, compiled."""
        refuse_fp8(graph, "OpenVINO on a CPU")
        model = onnx_bytes(graph, seed=seed)
        try:
            compiled = self._core.compile_model(self._core.read_model(model), "CPU", self._properties())
        except Exception as error:  # OpenVINO raises plain RuntimeErrors, whatever went wrong
            kind = UnsupportedOperator if any(words in str(error) for words in _NO_KERNEL) else BackendError
            raise kind(f"OpenVINO refused the operator: {error}") from error
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        if threads != self.settings.threads:
            # It takes no more than the cores it sees, without a word; the latency would be filed under a wrong number.
            raise BackendError(
                f"OpenVINO runs {threads} of the {self.settings.threads} threads asked for: it sees too few cores",
                hint="name as many cores as threads in devices.yaml",
            )
        return _Compiled(compiled, len(graph["inputs"]), len(graph["outputs"]))

    def _properties(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": self.settings.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # where the CPU has bf16, that is the default
            "CPU_DENORMALS_OPTIMIZATION": True,  # trained weights may hold some: 10× slower otherwise
            # The process is on its cores already. One thread has nothing left to choose; several keep to one each.
            "ENABLE_CPU_PINNING": self.settings.threads > 1,
            "ENABLE_HYPER_THREADING": True,  # which cores may be used was decided when the process was pinned
        }


def _import_runtime() -> Any:
    """Return the module openvino, imported without the part that reports its use.

    Its import starts a process that tells its makers over the network, on the very cores that are to be measured.
    Where the reporting package is missing, OpenVINO brings a stub of its own.
    """
    hidden = _TELEMETRY not in sys.modules and "openvino" not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # documented: the import then fails
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"OpenVINO cannot be imported: {error}", hint="pip install 'lanaprof[openvino]'"
        ) from error
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino


class _Compiled(Program):
    def __init__(self, compiled: Any, inputs: int, outputs: int) -> None:
        self._compiled = compiled
        self._inputs, self._outputs = inputs, outputs

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        request = self._compiled.create_infer_request()
        try:
            for index, tensor in enumerate(inputs):
                request.set_tensor(f"x{index}", tensor)
            for index, tensor in enumerate(outputs):
                request.set_tensor(f"y{index}", tensor)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot bind the buffers: {error}") from error
        # Without share_outputs every result is copied into a new array: a second pass over the output.
        return partial(request.infer, share_outputs=True)
