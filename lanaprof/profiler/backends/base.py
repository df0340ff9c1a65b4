"""The door to a runtime: what every backend does, and nothing of what any one of them is.

Order of calls: construct once, then ``compile`` for each operator, ``bind`` for each place it runs at, and call what
``bind`` returned as often as one likes; programs are released by dropping them and their calls. One thread, one
process. ``compile`` and the calls may raise UnsupportedOperator or BackendError; a runtime that crashes takes its
process along, which is why campaigns run backends in a child process.

What the numbers rest on, beyond the methods:

- The process is pinned to ``settings.cores`` before the backend is constructed; a backend adds no cores to them.
- With one thread the calling thread does all the work: samples are judged by its CPU time and context switches. With
  several, the switches of all threads of the process are counted, and idle threads must not spin on while other
  programs run.
- A call runs the program once, on the bound buffers themselves, and returns when it is done. Nothing is allocated or
  copied that the runtime's own users would not pay for. Inputs are left as they were.
- Precision is what the graph says; a runtime that would choose a lower one is told not to. Denormals are flushed.

``tests/profiler/test_profiler_backends*.py`` hold every registered backend to this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.profiler.backends.choices import Choice, Pairs, chosen_pairs
from lanaprof.profiler.clock import Clock, SystemClock
from lanaprof.profiler.prepare import is_fp8
from lanaprof.profiler.rebuild import model_from_graph

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Array",
    "Backend",
    "Edges",
    "Program",
    "Settings",
    "onnx_bytes",
    "onnx_model",
    "random_array",
    "refuse_fp8",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend runs.

    Attributes:
        threads: how many threads one run may use.
        cores: the cores the process is pinned to; empty leaves it where it is.
        gpu: the UUID of the GPU to run on; empty on a CPU.
        sm_clock_mhz: the GPU's clock is fixed at this; 0 where it is not.
        options: name and text of what devices.yaml chose of the runtime's options.
    """

    threads: int = 1
    cores: tuple[int, ...] = ()
    gpu: str = ""
    sm_clock_mhz: int = 0
    options: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Edges:
    """Which inputs and outputs of an operator lie between it and a neighbour, when it runs inside a network."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


class Program(ABC):
    """One compiled operator."""

    @property
    def note(self) -> str:
        """Return what is to be kept beside its measurements, in a few words; empty for nothing.

        Builds of one operator may differ, by the kernels a runtime chose: equal notes say that they do not.
        """
        return ""

    @abstractmethod
    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        """Return a call without arguments that runs the program on these buffers, in order.

        The same program may be bound several times; each call keeps what it needs alive.
        """


class Backend(ABC):
    """A runtime that compiles canonical graphs and runs them.

    Attributes:
        name: in devices.yaml and in environments.
        on_gpu: it runs on the GPU that its settings name, which its clock times; operators are timed alone there (hot),
            for a launch of several in a row would time the gaps between them.
        grid: of activations in int8, one of ``lanaprof.ops.quantising.GRIDS``: what the runtime computes fastest.
        choices: which of its options devices.yaml may choose, by name.
        chosen: those that were, as the environment's key names and writes them.
    """

    name: ClassVar[str]
    on_gpu: ClassVar[bool] = False
    grid: ClassVar[str] = "int8"
    choices: ClassVar[Mapping[str, Choice]] = {}

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.chosen = dict(chosen_pairs(self.name, self.choices, settings.options)[0])

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the runtime's version without importing the runtime.

        Raises:
            BackendUnavailable: the runtime is not installed; says what to install.
        """

    @classmethod
    @abstractmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the options that change speed, sorted, as they go into the environment's key."""

    @classmethod
    def options_with(cls, threads: int, chosen: Sequence[tuple[str, str]]) -> Pairs:
        """Return :meth:`options` with those in the place of its defaults that devices.yaml chose.

        Raises:
            BadInput: the backend has no such option, or not of this value.
        """
        _, told = chosen_pairs(cls.name, cls.choices, chosen)
        return tuple(sorted({**dict(cls.options(threads)), **dict(told)}.items()))

    def clock(self) -> Clock:
        """Return what times the backend's calls: the machine's clocks, unless the runtime has its own on a GPU."""
        return SystemClock(every_thread=self.settings.threads > 1)

    def free_bytes(self) -> int | None:
        """Return how much of its GPU's memory is free; None where programs live in the host's."""
        return None

    @abstractmethod
    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a buffer of the runtime holding :func:`random_array`; programs may share it."""

    @abstractmethod
    def read(self, buffer: Any) -> Array:
        """Return a copy of what a buffer holds."""

    @abstractmethod
    def write(self, buffer: Any, values: Array) -> None:
        """Put values into a buffer; every program bound to it sees them."""

    @abstractmethod
    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return the compiled operator with seeded random weights.

        Raises:
            UnsupportedOperator: the runtime knows no kernel for it.
            BackendError: the runtime refused it for another reason.
        """

    def compile_inside(self, graph: Mapping[str, Any], *, seed: int, edges: Edges) -> Program:
        """Return the operator as it runs between its neighbours in a network.

        A runtime that keeps data in a layout of its own from layer to layer should read and write that layout at the
        edges, and take working memory from a pool that all operators share, as one network does. What cannot be had
        stays as it is alone; this default is that.

        Args:
            graph: as for :meth:`compile`, which raises the same.
            seed: of the weights.
            edges: where the neighbours are; their buffers come from :meth:`edge_buffer`.
        """
        del edges
        return self.compile(graph, seed=seed)

    def edge_buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a buffer between layers, with room for whatever layout programs of :meth:`compile_inside` use."""
        return self.buffer(kind, shape, seed=seed)


def random_array(kind: str, shape: Sequence[int], *, seed: int) -> Array:
    """Return seeded standard normal numbers of a type; zeros for what is no floating-point type.

    Integers index tables and axes, where zero is always allowed.
    """
    dtype = np.dtype(kind)
    if not np.issubdtype(dtype, np.floating):
        return np.zeros(tuple(shape), dtype=dtype)
    return np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32).astype(dtype)


def onnx_model(graph: Mapping[str, Any], *, seed: int) -> onnx.ModelProto:
    """Return a canonical graph as an ONNX model: inputs ``x0, x1, …``, outputs ``y0, y1, …``.

    Raises:
        BackendError: the graph is none, e.g. a node reads what no node writes.
    """
    try:
        return model_from_graph(graph, seed=seed)
    except (LookupError, TypeError, ValueError) as error:
        raise BackendError(f"the graph cannot be rebuilt: {type(error).__name__}: {error}") from error


def onnx_bytes(graph: Mapping[str, Any], *, seed: int) -> bytes:
    """Return :func:`onnx_model` serialized."""
    serialized: bytes = onnx_model(graph, seed=seed).SerializeToString()
    return serialized


def refuse_fp8(graph: Mapping[str, Any], runtime: str) -> None:
    """Refuse what is computed in floats of 8 bits, for a runtime that has no kernels for them.

    Such runtimes take some operators and not others, and not the networks that are made of those they take: nothing
    that was measured so would be of use.

    Raises:
        UnsupportedOperator: a value of the canonical graph is in such floats.
    """
    kinds = {value["type"] for node in graph["nodes"] for value in node["outputs"]}
    found = sorted(filter(is_fp8, kinds))
    if found:
        raise UnsupportedOperator(f"{runtime} has no kernels in {found[0]}")
