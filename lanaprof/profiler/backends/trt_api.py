"""TensorRT's Python API from 8.6 to 11: what differs between the versions, and nothing else of ours knows of it.

The module comes as a parameter: ``tensorrt``, or another with the same API. Which way to take follows from what the
module has, never from its version; LACKING says which versions have what, and the tests hold it against NVIDIA's own
bindings.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from lanaprof.errors import BackendUnavailable

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["KINDS", "LACKING", "Api", "Messages", "Module", "open_api"]

# Name, or method with its arguments → the versions that have it: from the first on, before the second. Everything else
# that lanaprof uses is there in every version from 8.6 to 11.
LACKING: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "BuilderFlag.FP16": ((8, 6), (11,)),
    "BuilderFlag.INT8": ((8, 6), (11,)),
    "ExecutionContextAllocationStrategy": ((10,), (99,)),
    "ExecutionContextAllocationStrategy.USER_MANAGED": ((10,), (99,)),
    "ICudaEngine.create_execution_context(strategy)": ((10,), (99,)),
    "ICudaEngine.create_execution_context_without_device_memory": ((8, 6), (11,)),
    "ICudaEngine.device_memory_size": ((8, 6), (11,)),
    "ICudaEngine.device_memory_size_v2": ((10, 1), (99,)),
    "IExecutionContext.set_device_memory": ((10, 1), (99,)),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": ((8, 6), (11,)),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": ((10,), (99,)),
    "ParserError.node_name": ((10,), (99,)),
    "ParserError.node_operator": ((10,), (99,)),
}

KINDS: Mapping[str, str] = {  # TensorRT's name of a type → NumPy's, as graphs write it
    "BF16": "bfloat16",
    "BOOL": "bool",
    "FLOAT": "float32",
    "FP8": "float8_e4m3fn",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
}

_KEPT_MESSAGES = 50


class Module(Protocol):
    """What lanaprof uses of the module ``tensorrt``; typings/tensorrt says what is in the classes."""

    __version__: str
    Builder: type[trt.Builder]
    BuilderFlag: type[trt.BuilderFlag]
    ExecutionContextAllocationStrategy: type[trt.ExecutionContextAllocationStrategy]
    ILogger: type[trt.ILogger]
    LayerInformationFormat: type[trt.LayerInformationFormat]
    MemoryPoolType: type[trt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[trt.NetworkDefinitionCreationFlag]
    OnnxParser: type[trt.OnnxParser]
    ProfilingVerbosity: type[trt.ProfilingVerbosity]
    Runtime: type[trt.Runtime]
    TensorFormat: type[trt.TensorFormat]
    TensorIOMode: type[trt.TensorIOMode]


@dataclass(slots=True)
class Messages:
    """The errors and warnings TensorRT logged last; it says there what its exceptions and None do not."""

    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_MESSAGES))
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_MESSAGES))

    def clear(self) -> None:
        """Forget them."""
        self.errors.clear()
        self.warnings.clear()

    @property
    def text(self) -> str:
        """Return the errors in one line; the first is the cause, the last often names the consequence alone."""
        return "; ".join(dict.fromkeys(" ".join(error.split()) for error in self.errors))


@dataclass(frozen=True, slots=True)
class Api:
    """The module, its one logger, and the ways that differ.

    Attributes:
        module: ``tensorrt``, or one with its API.
        logger: TensorRT keeps the first it is given for the whole process: there is one, and it stays.
        messages: what the logger was told.
    """

    module: Module
    logger: trt.ILogger
    messages: Messages

    def has(self, name: str) -> bool:
        """Say whether the module has a class, a member or an attribute, e.g. ``BuilderFlag.FP16``."""
        found: Any = self.module
        for part in name.split("."):
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True

    @property
    def is_strongly_typed(self) -> bool:
        """Say whether the types in the network are obeyed; else they are a wish, and builds are another experiment."""
        return self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")

    def network_flags(self) -> int:
        """Return how networks are made: explicit batch where that is to be said, strongly typed where it can be."""
        flags, known = 0, self.module.NetworkDefinitionCreationFlag
        if self.has("NetworkDefinitionCreationFlag.EXPLICIT_BATCH"):
            flags |= 1 << int(known.EXPLICIT_BATCH)
        if self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
            flags |= 1 << int(known.STRONGLY_TYPED)
        return flags

    def allow_types(self, config: trt.IBuilderConfig, kinds: frozenset[str]) -> None:
        """Let a weakly typed build use the types that are in the network; a strongly typed one takes no such flags."""
        if self.is_strongly_typed:
            return
        for kind, name in (("float16", "FP16"), ("int8", "INT8")):
            if kind in kinds and self.has(f"BuilderFlag.{name}"):
                config.set_flag(getattr(self.module.BuilderFlag, name))

    def scratch_bytes(self, engine: trt.ICudaEngine) -> int:
        """Return how much device memory an execution of the engine works in."""
        if self.has("ICudaEngine.device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def context_without_memory(self, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
        """Return an execution context that is given its memory by :meth:`give_memory`; None where it cannot be made."""
        if self.has("ExecutionContextAllocationStrategy.USER_MANAGED"):
            return engine.create_execution_context(
                self.module.ExecutionContextAllocationStrategy.USER_MANAGED
            )
        return engine.create_execution_context_without_device_memory()

    def give_memory(self, context: trt.IExecutionContext, address: int, size_bytes: int) -> None:
        """Let a context work in this memory."""
        if self.has("IExecutionContext.set_device_memory"):
            context.set_device_memory(address, size_bytes)
        else:
            context.device_memory = address

    def place_of(self, error: trt.ParserError) -> str:
        """Return where in the model a parser's error is, as far as the version says: operator, name, number."""
        number = f"node {error.node()}"
        if not self.has("ParserError.node_name"):
            return number
        return f"{error.node_operator() or 'node'} {error.node_name() or number!r}"


@cache
def open_api(name: str = "tensorrt") -> Api:
    """Return the API of a module; the same for the same name, since a process has one logger.

    Raises:
        BackendUnavailable: it cannot be imported.
    """
    try:
        module = cast(Module, importlib.import_module(name))
    except (ImportError, OSError) as error:  # OSError: a library of it is missing or broken
        raise BackendUnavailable(
            f"{name} cannot be imported: {error}",
            hint="install the TensorRT that `lanaprof doctor` names for this GPU",
        ) from error
    messages = Messages()
    return Api(module, _new_logger(module, messages), messages)


def _new_logger(module: Module, messages: Messages) -> trt.ILogger:
    """Return a logger that keeps errors and warnings; TensorRT's own prints."""
    severity = module.ILogger.Severity

    def start(self: Any) -> None:
        module.ILogger.__init__(self)  # pybind11 objects crash without it

    def log(_self: Any, level: Any, message: str) -> None:
        if level in (severity.ERROR, severity.INTERNAL_ERROR):
            messages.errors.append(message)
        elif level == severity.WARNING:
            messages.warnings.append(message)

    # A class statement would need the module when this file is imported.
    made = type("Logger", (module.ILogger,), {"__init__": start, "log": log})
    return cast("trt.ILogger", made())
