"""A TensorRT for tests, in this process: what runs on the scripted GPU is computed by onnx's reference evaluator.

The names and arguments are those of typings/tensorrt, which a test holds against NVIDIA's bindings; another test holds
these classes against it. ``scripted_module`` leaves out what a version lacks.
"""

from __future__ import annotations

import ctypes
import enum
import types
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from lanaprof.profiler.backends.trt_api import KINDS, LACKING, Api, Messages, Module
from lanaprof.profiler.gpu.driver import Stream
from lanaprof.profiler.gpu.support import version_of
from lanaprof.profiler.gpu.testing import ScriptedDriver
from lanaprof.profiler.testing import FakeClock

__all__ = ["RUN_S", "Gpu", "Script", "scripted_api", "scripted_module"]

RUN_S = 20e-6  # of every engine


class Gpu(ScriptedDriver):
    """The scripted GPU; knows its streams by handle and its memory by address, as libraries do.

    Attributes:
        blocks: address → size of what is allocated now.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(clock or FakeClock())
        self.streams: dict[int, Stream] = {}
        self.blocks: dict[int, int] = {}

    def stream(self) -> Stream:
        """Return a new stream."""
        stream = super().stream()
        self.streams[stream.handle] = stream
        return stream

    def _allocate(self, size_bytes: int) -> tuple[Any, int]:
        native, pointer = super()._allocate(size_bytes)
        self.blocks[pointer] = size_bytes
        return native, pointer

    def _free(self, memory: Any) -> None:
        super()._free(memory)
        del self.blocks[int(memory.content.ctypes.data)]

    def load(self, pointer: int, size_bytes: int) -> bytes:
        """Return bytes at an address."""
        assert self.blocks[pointer] >= size_bytes
        return ctypes.string_at(pointer, size_bytes)

    def store(self, pointer: int, content: bytes) -> None:
        """Put bytes at an address."""
        assert self.blocks[pointer] >= len(content)
        ctypes.memmove(pointer, content, len(content))


class Script:
    """What the scripted TensorRT is to do, and what was done with it.

    Attributes:
        gpu: on which engines run.
        build_error, run_error: logged instead of building or running.
        broken_plans: plans that are not loaded.
        reads_int64_as: TensorRT's name of the type that engines have where the model says int64.
        scratch_bytes: what an execution works in.
        builds: models that were built; ``configs`` and ``networks`` how; ``contexts`` made so far.
    """

    def __init__(self, gpu: Gpu | None = None) -> None:
        self.gpu = gpu or Gpu()
        self.build_error = self.run_error = ""
        self.broken_plans: set[bytes] = set()
        self.reads_int64_as = "INT64"
        self.scratch_bytes = 1000
        self.builds: list[bytes] = []
        self.configs: list[Any] = []
        self.networks: list[Any] = []
        self.contexts: list[Any] = []


class _Memory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class _Cache:
    """Timings are names of operators, a line each."""

    def __init__(self, content: bytes) -> None:
        self.names = set(content.removeprefix(b"timings\n").split())

    def serialize(self) -> _Memory:
        return _Memory(b"timings\n" + b"\n".join(sorted(self.names)))

    def combine(self, input_cache: _Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.names |= input_cache.names
        return True


class _Config:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.cache: _Cache | None = None
        self.workspace_bytes = 0

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool.name == "WORKSPACE"
        self.workspace_bytes = pool_size

    def create_timing_cache(self, serialized_timing_cache: Any) -> _Cache | None:
        content = bytes(serialized_timing_cache)
        return _Cache(content) if not content or content.startswith(b"timings\n") else None

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        if b"elsewhere" in cache.names and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> _Cache | None:
        return self.cache


class _Tensor:
    def __init__(self, info: Any, reads_int64_as: str = "INT64") -> None:
        tensor = info.type.tensor_type
        kind = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        names = {numpy: ours for ours, numpy in KINDS.items()}
        name = reads_int64_as if kind == "int64" else names[kind]
        self.name, self.kind = info.name, kind
        self.dtype = types.SimpleNamespace(name=name)
        self.shape = tuple(d.dim_value for d in tensor.shape.dim)
        self.allowed_formats = 1


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model, self.content = flags, onnx.ModelProto(), b""

    @property
    def num_layers(self) -> int:
        return len(self.model.graph.node)

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self.model.graph.output)

    def parsed(self, content: bytes) -> None:
        self.content, self.model = content, onnx.load_from_string(content)
        self.tensors = [
            [_Tensor(i) for i in side] for side in (self.model.graph.input, self.model.graph.output)
        ]

    def get_input(self, index: int) -> _Tensor:
        return self.tensors[0][index]

    def get_output(self, index: int) -> _Tensor:
        return self.tensors[1][index]


def scripted_api(script: Script, version: str = "11.0.0") -> Api:
    """Return a TensorRT of a version, without what that version lacks."""
    messages = Messages()
    module = scripted_module(script, messages, version)
    return Api(cast(Module, module), module.ILogger(), messages)


def scripted_module(script: Script, messages: Messages, version: str) -> Any:
    """Return the module."""

    class ILogger:
        pass

    class OnnxParser:
        def __init__(self, network: _Network, logger: Any) -> None:
            del logger
            self._network = network

        num_errors = 0

        def parse(self, model: Any) -> bool:
            self._network.parsed(bytes(model))
            return True

    class Builder:
        def __init__(self, logger: Any) -> None:
            del logger

        def create_network(self, flags: int = 0) -> _Network:
            script.networks.append(_Network(flags))
            return cast(_Network, script.networks[-1])

        def create_builder_config(self) -> _Config:
            return _Config()

        def build_serialized_network(self, network: _Network, config: _Config) -> _Memory | None:
            if script.build_error:
                messages.errors.append(script.build_error)
                return None
            script.builds.append(network.content)
            script.configs.append(config)
            if config.cache is not None:
                config.cache.names |= {node.op_type.encode() for node in network.model.graph.node}
            return _Memory(network.content)

    class EngineInspector:
        def __init__(self, model: Any) -> None:
            self._model = model

        def get_engine_information(self, format: Any) -> str:
            assert format.name == "JSON"
            layers = [f'{{"LayerType": "{node.op_type}"}}' for node in self._model.graph.node]
            return f'{{"Layers": [{", ".join(layers)}]}}'

    class IExecutionContext:
        def __init__(self, model: Any) -> None:
            self._evaluator, self._model = ReferenceEvaluator(model), model
            self.addresses: dict[str, int] = {}
            self.device_memory = 0
            script.contexts.append(self)

        def set_device_memory(self, memory: int, size: int) -> None:
            assert script.gpu.blocks[memory] >= size
            self.device_memory = memory

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self.addresses[name] = memory
            return memory in script.gpu.blocks

        def execute_async_v3(self, stream_handle: int) -> bool:
            if script.run_error:
                messages.errors.append(script.run_error)
                return False
            script.gpu.work(script.gpu.streams[stream_handle], RUN_S, self._compute)
            return True

        def _compute(self) -> None:
            gpu = script.gpu
            assert gpu.blocks[self.device_memory] >= script.scratch_bytes
            feeds = {}
            for tensor in map(_Tensor, self._model.graph.input):
                size_bytes = np.dtype(tensor.kind).itemsize * int(np.prod(tensor.shape))
                raw = gpu.load(self.addresses[tensor.name], size_bytes)
                feeds[tensor.name] = np.frombuffer(raw, tensor.kind).reshape(tensor.shape)
            results = self._evaluator.run(None, feeds)
            for tensor, values in zip(map(_Tensor, self._model.graph.output), results, strict=True):
                gpu.store(self.addresses[tensor.name], np.asarray(values).astype(tensor.kind).tobytes())

    class ICudaEngine:
        def __init__(self, model: Any) -> None:
            self._model = model
            sides = ((model.graph.input, "INPUT"), (model.graph.output, "OUTPUT"))
            self._tensors = {
                info.name: (_Tensor(info, script.reads_int64_as), way) for side, way in sides for info in side
            }

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        @property
        def device_memory_size(self) -> int:
            return script.scratch_bytes

        device_memory_size_v2 = device_memory_size

        def get_tensor_name(self, index: int) -> str:
            return str(list(self._tensors)[index])

        def get_tensor_mode(self, name: str) -> Any:
            return types.SimpleNamespace(name=self._tensors[name][1])

        def get_tensor_dtype(self, name: str) -> Any:
            return self._tensors[name][0].dtype

        def get_tensor_shape(self, name: str) -> Sequence[int]:
            return self._tensors[name][0].shape

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self._model)

        def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
            assert strategy.name == "USER_MANAGED"
            return IExecutionContext(self._model)

        def create_execution_context_without_device_memory(self) -> IExecutionContext:
            return IExecutionContext(self._model)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            del logger

        def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
            plan = bytes(serialized_engine)
            return None if plan in script.broken_plans else ICudaEngine(onnx.load_from_string(plan))

    module = types.SimpleNamespace(
        __version__=version, Builder=Builder, ICudaEngine=ICudaEngine, IExecutionContext=IExecutionContext,
        EngineInspector=EngineInspector, ILogger=ILogger, OnnxParser=OnnxParser, Runtime=Runtime,
        ParserError=type("ParserError", (), {"node_name": None, "node_operator": None}),
        BuilderFlag=enum.IntEnum("BuilderFlag", {"FP16": 0, "INT8": 2, "TF32": 7}),
        ExecutionContextAllocationStrategy=enum.Enum("Strategy", ["USER_MANAGED"]),
        LayerInformationFormat=enum.Enum("LayerInformationFormat", ["JSON"]),
        MemoryPoolType=enum.Enum("MemoryPoolType", ["WORKSPACE"]),
        NetworkDefinitionCreationFlag=enum.IntEnum("Flag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}),
        ProfilingVerbosity=enum.Enum("ProfilingVerbosity", ["DETAILED"]),
        TensorFormat=enum.IntEnum("TensorFormat", {"LINEAR": 0, "HWC8": 2, "CHW4": 3, "CHW32": 5}),
        ITimingCache=_Cache, IBuilderConfig=_Config, INetworkDefinition=_Network, ITensor=_Tensor, IHostMemory=_Memory,
    )  # fmt: skip
    for name, (first, before) in LACKING.items():
        if "(" not in name and not first <= version_of(version) < before:
            _leave_out(module, name)
    return module


def _leave_out(module: Any, name: str) -> None:
    owner, _, member = name.partition(".")
    found = getattr(module, owner, None)
    if found is None:
        return
    if not member:
        delattr(module, owner)
    elif isinstance(found, enum.EnumMeta):
        kept = {one.name: one.value for one in found if one.name != member}  # type: ignore[var-annotated]
        setattr(module, owner, enum.IntEnum(owner, kept) if kept else types.SimpleNamespace())
    elif member in vars(found):
        delattr(found, member)
