"""ONNX Runtime's CPU provider.

One thread: the session runs in the calling thread. Several: all sessions of the process share one pool, because
idle workers of private pools spin on the cores that are being measured.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.profiler.backends.base import (
    Array,
    Backend,
    Edges,
    Program,
    Settings,
    onnx_bytes,
    random_array,
    refuse_fp8,
)
from lanaprof.profiler.backends.edges import Port, add_stand_ins, cut_stand_ins

__all__ = ["OnnxRuntime"]

# Trained weights may hold some: 10× slower otherwise.
_FLUSH_DENORMALS = ("session.set_denormal_as_zero", "1")
# No kernel of this type; no operator of this name, in ONNX's domain and in others; a type it is not defined for.
_NO_KERNEL = (
    *("NOT_IMPLEMENTED", "No Op registered for", "not a registered function/op"),
    "Type Error: Type 'tensor(bfloat16)'",
)
_WIDEST_BLOCK = 16  # channels kept together in memory, on AVX-512; 8 elsewhere
_ALIGNMENT_BYTES = 64  # a cache line


class OnnxRuntime(Backend):
    """The CPU provider of ONNX Runtime, static shapes, bound inputs and outputs."""

    name = "onnxruntime"
    grid = "uint8"

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
        refuse_fp8(graph, "ONNX Runtime on a CPU")
        session = self._session(onnx_bytes(graph, seed=seed), self._options())
        return _Session(
            session,
            tuple(Port(f"x{index}", ()) for index in range(len(graph["inputs"]))),
            tuple(Port(f"y{index}", ()) for index in range(len(graph["outputs"]))),
        )

    def compile_inside(self, graph: Mapping[str, Any], *, seed: int, edges: Edges) -> Program:
        """Return a session that keeps the blocked layout at its edges and shares its working memory."""
        import onnx

        refuse_fp8(graph, "ONNX Runtime on a CPU")
        model = onnx.load_from_string(onnx_bytes(graph, seed=seed))
        inputs = [described["shape"] for described in graph["inputs"]]
        outputs = [[int(d.dim_value) for d in v.type.tensor_type.shape.dim] for v in model.graph.output]
        add_stand_ins(model, edges)
        cut = cut_stand_ins(self._optimised(model), edges, inputs, outputs)
        options = self._options()
        self._share_memory(options)
        if cut is None:  # nothing is left between the neighbours: both take part of its work
            whole = self._session(onnx_bytes(graph, seed=seed), options)
            return _Session(
                whole,
                tuple(Port(f"x{index}", tuple(shape)) for index, shape in enumerate(inputs)),
                tuple(Port(f"y{index}", tuple(shape)) for index, shape in enumerate(outputs)),
            )
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return _Session(self._session(cut.model.SerializeToString(), options), cut.inputs, cut.outputs)

    def edge_buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return memory that programs see each in its own layout; anything but float images is as usual."""
        if kind != "float32" or len(shape) != 4:
            return self.buffer(kind, shape, seed=seed)
        return _EdgeMemory(shape, seed)

    def _options(self) -> Any:
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
        return options

    def _share_memory(self, options: Any) -> None:
        """Let sessions take their working memory from one pool: what one gave back is still in the cache for the next.

        With a pool of its own every operator finds its intermediate results cold, which inside a network they are not.
        """
        _register_pool()
        options.add_session_config_entry("session.use_env_allocators", "1")

    def _optimised(self, model: Any) -> Any:
        """Return what the runtime makes of a model."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="lanaprof-") as folder:
            path = Path(folder) / "optimised.onnx"  # the runtime hands it out as a file only
            options = self._options()
            options.optimized_model_filepath = str(path)
            # Weights are packed for the kernels when a session is made; this one runs nothing.
            options.add_session_config_entry("session.disable_prepacking", "1")
            self._session(model.SerializeToString(), options)
            return onnx.load(path)

    def _session(self, model: bytes, options: Any) -> Any:
        try:
            return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # pybind raises one class per status code, all plain RuntimeErrors
            kind = UnsupportedOperator if any(words in str(error) for words in _NO_KERNEL) else BackendError
            raise kind(f"ONNX Runtime refused the operator: {error}") from error


@cache
def _register_pool() -> None:
    """Give the process the pool that sessions can share; the runtime allows one."""
    import onnxruntime as runtime

    memory = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    runtime.create_and_register_allocator(memory, None)


class _EdgeMemory:
    """Memory between two layers, with room for blocks of channels that are filled up.

    Args:
        shape: (batch, channels, height, width) as the network says it.
        seed: of the numbers in it.
    """

    def __init__(self, shape: Sequence[int], seed: int) -> None:
        channels = -(-shape[1] // _WIDEST_BLOCK) * _WIDEST_BLOCK
        size = math.prod((shape[0], channels, *shape[2:]))
        room = np.zeros(size + _ALIGNMENT_BYTES // 4, dtype=np.float32)
        offset = -(room.ctypes.data // 4) % (_ALIGNMENT_BYTES // 4)
        self.values = room[offset : offset + size]
        self.values[:] = random_array("float32", (size,), seed=seed)

    @property
    def pointer(self) -> int:
        """Return its address."""
        return int(self.values.ctypes.data)


class _Session(Program):
    def __init__(self, session: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._session = session
        self._inputs, self._outputs = inputs, outputs

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        binding = self._session.io_binding()
        for port, value in zip(self._inputs, inputs, strict=True):
            if isinstance(value, _EdgeMemory):
                binding.bind_input(port.name, "cpu", 0, np.float32, port.shape, value.pointer)
            else:
                binding.bind_ortvalue_input(port.name, value)
        for port, value in zip(self._outputs, outputs, strict=True):
            if isinstance(value, _EdgeMemory):
                binding.bind_output(port.name, "cpu", 0, np.float32, port.shape, value.pointer)
            else:
                binding.bind_ortvalue_output(port.name, value)
        run, keep = self._session.run_with_iobinding, (inputs, outputs)

        def once(run: Any = run, binding: Any = binding, _keep: Any = keep) -> None:
            run(binding)

        return once
