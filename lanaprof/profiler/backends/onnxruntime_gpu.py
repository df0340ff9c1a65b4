"""ONNX Runtime on a GPU: its CUDA provider, and TensorRT behind it. Cross-checks of what TensorRT alone measures.

Both run on our stream and on buffers of our own. A session returns from a run before the GPU is done, so that runs can
be recorded into a graph; where ONNX Runtime does not allow that, they are enqueued one by one at the host's pace, which
the clock's report says.

A node that only the CPU could run makes an operator unsupported: its time would be that of copies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.profiler.backends.base import Array, Backend, Program, Settings, onnx_bytes, random_array
from lanaprof.profiler.backends.choices import Choice, count, mebibytes, one_of
from lanaprof.profiler.backends.trt_cache import to_stderr
from lanaprof.profiler.clock import Clock
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.driver import Driver, Memory, Stream
from lanaprof.profiler.gpu.drivers import open_driver
from lanaprof.profiler.gpu.nvml import ClockWatch, find_nvml

__all__ = ["OnnxRuntimeCuda", "OnnxRuntimeTensorRt"]

_PACKAGE = "onnxruntime-gpu"
# No kernel of this type; no operator of this name; only the CPU has it.
_NO_KERNEL = (
    *("NOT_IMPLEMENTED", "No Op registered for", "not a registered function/op", "CPU EP"),
    "Type Error: Type 'tensor(float8e4m3fn)'",
)
# How cuDNN's convolutions are chosen, in the provider's words.
_SEARCHES: Mapping[str, str] = {"searched": "EXHAUSTIVE", "heuristic": "HEURISTIC", "default": "DEFAULT"}
_NO_CPU = ("session.disable_cpu_ep_fallback", "1")
_NO_WAITING = ("disable_synchronize_execution_providers", "1")


class _Tensor:
    """A tensor in the GPU's memory."""

    __slots__ = ("kind", "memory", "shape")

    def __init__(self, memory: Memory, kind: str, shape: Sequence[int]) -> None:
        self.memory, self.kind, self.shape = memory, kind, tuple(shape)


class OnnxRuntimeCuda(Backend):
    """ONNX Runtime's CUDA provider, static shapes, bound inputs and outputs.

    Args:
        settings: ``gpu`` is a UUID; empty for the first GPU there is.
        driver: an open GPU, where there is one already; it stays its owner's.
    """

    name = "onnxruntime-cuda"
    on_gpu = True
    providers: ClassVar[tuple[str, ...]] = ("CUDAExecutionProvider",)
    place: ClassVar[str] = "cuda"
    choices: ClassVar[Mapping[str, Choice]] = {
        "convolutions": one_of(*_SEARCHES),
        "layout": one_of("nchw", "nhwc"),
        "tf32": one_of("off", "on"),
    }

    def __init__(self, settings: Settings, *, driver: Driver | None = None) -> None:
        super().__init__(settings)
        # Precision is what the graph says: cuBLAS, cuDNN and TensorRT read this when they are loaded.
        if self.chosen.get("tf32") != "on":
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        import onnxruntime

        self._runtime: Any = onnxruntime
        onnxruntime.set_default_logger_severity(4)  # errors come back as exceptions
        missing = set(self.providers) - set(onnxruntime.get_available_providers())
        if missing:
            raise BackendUnavailable(
                f"this ONNX Runtime has no {', '.join(sorted(missing))}",
                hint=f"pip uninstall onnxruntime; pip install --force-reinstall {_PACKAGE}",
            )
        self._driver = driver if driver is not None else open_driver(settings.gpu or 0)
        self._stream = self._driver.stream()

    @classmethod
    def version(cls) -> str:
        """Return the version of ONNX Runtime's build for GPUs."""
        from importlib import metadata

        try:
            return metadata.version(_PACKAGE)
        except metadata.PackageNotFoundError:
            raise BackendUnavailable(
                "ONNX Runtime for GPUs is not installed",
                hint=f"pip install {_PACKAGE} (it takes the place of onnxruntime: pip uninstall that first)",
            ) from None

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the session options that change speed."""
        del threads  # the host enqueues from one
        return (
            ("convolutions", "searched"),
            ("graph_optimization", "all"),
            ("layout", "nchw"),
            ("provider", cls.providers[0]),
            ("tf32", "off"),
        )

    def free_bytes(self) -> int | None:
        """Return how much of the GPU's memory is free."""
        return self._driver.memory_bytes()[0]

    def clock(self) -> Clock:
        """Return the GPU's clock."""
        source = find_nvml(self._driver.gpu, to_stderr)
        return GpuClock(
            self._driver, watch=ClockWatch(source, default_sm_hz=self.settings.sm_clock_mhz * 1e6)
        )

    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a tensor on the GPU."""
        values = random_array(kind, shape, seed=seed)
        memory = self._driver.allocate(values.nbytes)
        self._driver.write(memory, values)
        return _Tensor(memory, kind, shape)

    def read(self, buffer: Any) -> Array:
        """Return a copy of a tensor's values."""
        return self._driver.read(buffer.memory, buffer.kind, buffer.shape)

    def write(self, buffer: Any, values: Array) -> None:
        """Put values into a tensor."""
        self._driver.write(buffer.memory, np.asarray(values, dtype=buffer.kind).reshape(buffer.shape))

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return a session of the rebuilt operator, all of it on the GPU."""
        runtime = self._runtime
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        if self.place != "cpu":
            options.add_session_config_entry(*_NO_CPU)
        providers = [(name, self._provider_options(name, graph)) for name in self.providers]
        model = onnx_bytes(graph, seed=seed)
        try:
            session = runtime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # pybind raises one class per status code, all plain RuntimeErrors
            kind = UnsupportedOperator if any(words in str(error) for words in _NO_KERNEL) else BackendError
            raise kind(f"ONNX Runtime refused the operator: {error}") from error
        if session.get_providers()[0] != self.providers[0]:  # it falls back without an error
            raise BackendError(f"ONNX Runtime cannot load {self.providers[0]}: its libraries are missing")
        return _Session(self, session, len(graph["inputs"]), len(graph["outputs"]))

    def _provider_options(self, name: str, graph: Mapping[str, Any]) -> dict[str, str]:
        common = {"device_id": str(self._driver.gpu.index), "user_compute_stream": str(self._stream.handle)}
        if name == "CUDAExecutionProvider":
            return {
                **common,
                "use_tf32": "1" if self.chosen.get("tf32") == "on" else "0",
                "cudnn_conv_algo_search": _SEARCHES[self.chosen.get("convolutions", "searched")],
                "prefer_nhwc": "1" if self.chosen.get("layout") == "nhwc" else "0",
            }
        del graph
        return common

    def bound(self, session: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> GpuCall:
        """Return a call of a session on these tensors, which runs on the backend's stream alone."""
        runtime, index = self._runtime, self._driver.gpu.index
        place_index = index if self.place == "cuda" else 0
        binding = session.io_binding()
        for bind, letter, tensors in ((binding.bind_input, "x", inputs), (binding.bind_output, "y", outputs)):
            for number, tensor in enumerate(tensors):
                dtype, address = np.dtype(tensor.kind).type, tensor.memory.pointer
                bind(f"{letter}{number}", self.place, place_index, dtype, tensor.shape, address)
        how = runtime.RunOptions()
        how.add_run_config_entry(*_NO_WAITING)
        run, own = session.run_with_iobinding, self._stream

        def enqueue(stream: Stream) -> None:
            if stream is not own:
                raise BackendError("ONNX Runtime runs on the stream its session was made with")
            try:
                run(binding, how)
            except Exception as error:  # as above
                raise BackendError(f"ONNX Runtime did not run the operator: {error}") from error

        return GpuCall(own, enqueue, keep=(session, inputs, outputs))


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """ONNX Runtime's TensorRT provider; what TensorRT does not take runs on the CUDA provider.

    It types networks weakly: types below float32 are allowed where the graph has them, never demanded.
    """

    name = "onnxruntime-tensorrt"
    providers: ClassVar[tuple[str, ...]] = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    choices: ClassVar[Mapping[str, Choice]] = {
        **OnnxRuntimeCuda.choices,
        "optimization_level": count(0, 5),
        "workspace": mebibytes("workspace_mib"),
    }

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the session options that change speed."""
        return tuple(sorted({**dict(super().options(threads)), "typing": "weak"}.items()))

    def _provider_options(self, name: str, graph: Mapping[str, Any]) -> dict[str, str]:
        options = super()._provider_options(name, graph)
        if name == "TensorrtExecutionProvider":
            tensors = [*graph["inputs"], *graph["constants"]]
            kinds = {tensor["type"] for tensor in tensors}
            operations = {node["op"] for node in graph["nodes"]}
            options["trt_fp16_enable"] = "1" if "float16" in kinds else "0"
            options["trt_int8_enable"] = "1" if "QuantizeLinear" in operations else "0"
            if "optimization_level" in self.chosen:
                options["trt_builder_optimization_level"] = self.chosen["optimization_level"]
            if "workspace_mib" in self.chosen:
                options["trt_max_workspace_size"] = str(int(self.chosen["workspace_mib"]) << 20)
        return options


class _Session(Program):
    def __init__(self, backend: OnnxRuntimeCuda, session: Any, inputs: int, outputs: int) -> None:
        self._backend, self._session = backend, session
        self._inputs, self._outputs = inputs, outputs

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        if (len(inputs), len(outputs)) != (self._inputs, self._outputs):
            raise BackendError(f"the operator has {self._inputs} inputs and {self._outputs} outputs")
        return self._backend.bound(self._session, inputs, outputs)
