"""ONNX Runtime's CPU provider.

One thread: the session runs in the calling thread. Several: all sessions of the process share one pool, because
idle workers of private pools spin on the cores that are being measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.profiler.backends.base import (
    Array,
    Backend,
    Program,
    Settings,
    onnx_bytes,
    random_array,
)

__all__ = ["OnnxRuntime"]

# Trained weights may hold some: 10× slower otherwise.
_FLUSH_DENORMALS = ("session.set_denormal_as_zero", "1")
# No kernel of this type; no operator of this name, in ONNX's domain and in others.
_NO_KERNEL = ("NOT_IMPLEMENTED", "No Op registered for", "not a registered function/op")


class OnnxRuntime(Backend):
    """The CPU provider of ONNX Runtime, static shapes, bound inputs and outputs."""

    name = "onnxruntime"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        import onnxruntime

        self._runtime = onnxruntime
        onnxruntime.set_default_logger_severity(4)  # errors come back as exceptions
        if settings.threads > 1:
            onnxruntime.set_global_thread_pool_sizes(settings.threads, 1)

    @classmethod
    def version(cls) -> str:
        """Return ONNX Runtime's version."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("onnxruntime")
        except PackageNotFoundError:
            raise BackendUnavailable(
                "ONNX Runtime is not installed", hint="pip install onnxruntime"
            ) from None

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the session options that change speed."""
        return (
            ("denormals", "flushed"),
            ("execution", "sequential"),
            ("graph_optimization", "all"),
            ("provider", "CPUExecutionProvider"),
            ("thread_pool", "caller" if threads == 1 else "shared"),
        )

    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return an OrtValue; ONNX Runtime allocates it."""
        return self._runtime.OrtValue.ortvalue_from_numpy(random_array(kind, shape, seed=seed))

    def read(self, buffer: Any) -> Array:
        """Return a copy of an OrtValue's values."""
        values: Array = buffer.numpy().copy()
        return values

    def write(self, buffer: Any, values: Array) -> None:
        """Put values into an OrtValue."""
        buffer.update_inplace(values)

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return a session of the rebuilt operator."""
        runtime = self._runtime
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry(*_FLUSH_DENORMALS)
        if self.settings.threads > 1:
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
        model = onnx_bytes(graph, seed=seed)
        try:
            session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # pybind raises one class per status code, all plain RuntimeErrors
            kind = UnsupportedOperator if any(words in str(error) for words in _NO_KERNEL) else BackendError
            raise kind(f"ONNX Runtime refused the operator: {error}") from error
        return _Session(session, len(graph["inputs"]), len(graph["outputs"]))


class _Session(Program):
    def __init__(self, session: Any, inputs: int, outputs: int) -> None:
        self._session = session
        self._inputs, self._outputs = inputs, outputs

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for index, value in enumerate(inputs):
            binding.bind_ortvalue_input(f"x{index}", value)
        for index, value in enumerate(outputs):
            binding.bind_ortvalue_output(f"y{index}", value)
        run, keep = self._session.run_with_iobinding, (inputs, outputs)

        def once(run: Any = run, binding: Any = binding, _keep: Any = keep) -> None:
            run(binding)

        return once
