"""A plan → an engine bound to buffers of the GPU: static shapes, named inputs and outputs, one stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanaprof.digest import digest
from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.profiler.backends.base import Program
from lanaprof.profiler.backends.trt_api import KINDS, Api
from lanaprof.profiler.gpu.clock import GpuCall
from lanaprof.profiler.gpu.driver import Driver, Memory, Stream
from lanaprof.profiler.gpu.failures import CaptureRefused, OutOfDeviceMemory

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["DeviceArray", "Engine", "Port", "Scratch", "tactics_from_json"]

_LONGEST_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A tensor in the GPU's memory, plain and contiguous unless an edge lies in it.

    Attributes:
        memory: at least as large as the tensor.
        kind: NumPy's name of the type.
        shape: as the network says it.
    """

    memory: Memory
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an operator."""

    name: str
    kind: str
    shape: tuple[int, ...]


class Scratch:
    """The memory engines work in: they run one at a time, so all can share one piece, as the layers of a network do.

    With a piece each, hundreds of loaded engines would fill the GPU, and each would find its own cold.

    Args:
        driver: allocates it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory: Memory | None = None

    def room(self, size_bytes: int) -> Memory:
        """Return memory of at least this size; whoever keeps it keeps it alive when a larger piece takes its place.

        Raises:
            OutOfDeviceMemory: there is no room.
        """
        if self._memory is None or self._memory.size_bytes < size_bytes:
            # Powers of two: all pieces that were outgrown together are no larger than the last.
            self._memory = self._driver.allocate(1 << max(20, (size_bytes - 1).bit_length()))
        return self._memory


class Engine(Program):
    """An engine that can be bound to buffers, several times.

    Args:
        api: TensorRT.
        engine: deserialized.
        ports: inputs and outputs of the operator.
        stream: where plain calls run.
        scratch: what executions work in.

    Raises:
        UnsupportedOperator: the engine's inputs and outputs are others. TensorRT 8 reads int32 where a model says
            int64, for one: it would read buffers wrongly.
    """

    def __init__(
        self,
        api: Api,
        engine: trt.ICudaEngine,
        *,
        ports: tuple[Sequence[Port], Sequence[Port]],
        stream: Stream,
        scratch: Scratch,
    ) -> None:
        self._api, self._engine, self._stream, self._scratch = api, engine, stream, scratch
        self._names = tuple(port.name for side in ports for port in side)
        self._demand(*ports)

    def _demand(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        engine = self._engine
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if found != set(self._names):
            raise UnsupportedOperator(
                f"TensorRT's engine has {', '.join(sorted(found))}; the operator {', '.join(sorted(self._names))}"
            )
        for way, ports in (("INPUT", inputs), ("OUTPUT", outputs)):
            for port in ports:
                kind = engine.get_tensor_dtype(port.name).name
                kind = KINDS.get(kind, kind)
                dims = engine.get_tensor_shape(port.name)
                shape = tuple(int(dims[axis]) for axis in range(len(dims)))
                here = engine.get_tensor_mode(port.name).name
                if (here, kind, shape) != (way, port.kind, port.shape):
                    raise UnsupportedOperator(
                        f"TensorRT has {here.lower()} {port.name} as {kind} {_shown(shape)}; "
                        f"the operator has {way.lower()} {port.name} as {port.kind} {_shown(port.shape)}"
                    )

    def tactics(self) -> tuple[str, ...]:
        """Return the kernels the engine is made of, a line each; empty where TensorRT does not say."""
        inspector = self._engine.create_engine_inspector()
        return tactics_from_json(
            inspector.get_engine_information(self._api.module.LayerInformationFormat.JSON)
        )

    @property
    def note(self) -> str:
        """Return 12 hexadecimal digits that are equal for engines of the same kernels in the same order."""
        tactics = self.tactics()
        return f"tactics {digest(list(tactics))[:12]}" if tactics else ""

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> GpuCall:
        """Return a call on these buffers; each has an execution context of its own, and all share their scratch.

        Raises:
            OutOfDeviceMemory: there is no room for a context.
            BackendError: TensorRT refused a buffer.
        """
        api = self._api
        api.messages.clear()
        context = api.context_without_memory(self._engine)
        if context is None:
            raise self._error("made no execution context")
        size_bytes = api.scratch_bytes(self._engine)
        room = self._scratch.room(size_bytes)
        api.give_memory(context, room.pointer, size_bytes)
        for name, buffer in zip(self._names, [*inputs, *outputs], strict=True):
            if not context.set_tensor_address(name, buffer.memory.pointer):
                raise self._error(f"refused the buffer of {name}")
        execute, error = context.execute_async_v3, self._error

        def enqueue(stream: Stream) -> None:
            if not execute(stream.handle):
                raise error("did not run the operator")

        return GpuCall(self._stream, enqueue, keep=(context, self._engine, room, inputs, outputs))

    def _error(self, otherwise: str) -> BackendError:
        """Return the error that the log tells of."""
        text = self._api.messages.text
        message = f"TensorRT {otherwise}" + (f": {text[:_LONGEST_MESSAGE]}" if text else "")
        if "captur" in text:  # operation not permitted when stream is capturing
            return CaptureRefused(message)
        if "out of memory" in text or "OutOfMemory" in text:
            return OutOfDeviceMemory(message)
        return BackendError(message)


def tactics_from_json(text: str) -> tuple[str, ...]:
    """Return the kernels in the text of TensorRT's engine inspector, a line each; empty where it names none.

    Layers' names are left out: equal engines built from models with other names give equal lines.

    >>> tactics_from_json('{"Layers": [{"LayerType": "CudaPooling", "TacticValue": "0xfffffffffffffffe"}]}')
    ('CudaPooling 0xfffffffffffffffe',)
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_kernel(layer) for layer in layers if isinstance(layer, Mapping))


def _kernel(layer: Mapping[str, Any]) -> str:
    kernel = layer.get("TacticName") or layer.get("TacticValue") or ""
    sides = [[_format(tensor) for tensor in layer.get(side, [])] for side in ("Inputs", "Outputs")]
    formats = " -> ".join(", ".join(side) for side in sides) if any(sides) else ""
    return " ".join(part for part in (str(layer.get("LayerType", "")), str(kernel), formats) if part)


def _format(tensor: Any) -> str:
    """Return a tensor's layout and type: one field up to TensorRT 10, two from 11 on."""
    if not isinstance(tensor, Mapping):
        return str(tensor)
    whole = tensor.get("Format/Datatype")
    if whole is not None:
        return str(whole)
    parts = (tensor.get("Format", ""), tensor.get("DataType", tensor.get("Datatype", "")))
    return " ".join(str(part) for part in parts if part)


def _shown(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape) or "scalar"
