"""The door to a runtime: what every backend does, and nothing of what any one of them is.

Order of calls: ``open`` once, then ``compile`` for each operator, ``bind`` for each place it runs at, ``run`` as
often as one likes; programs are released by dropping them. One thread, one process. ``compile`` and ``run`` may
raise UnsupportedOperator or BackendError; a runtime that crashes takes its process along, which is why
campaigns run backends in a child process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from lanaprof.errors import BackendUnavailable

__all__ = ["BACKENDS", "Backend", "Program", "Settings", "backend_class"]

BACKENDS: Mapping[str, str] = {
    "onnxruntime": "lanaprof.profiler.backends.onnxruntime:OnnxRuntime",
}
_FOR_TESTS: Mapping[str, str] = {"scripted": "lanaprof.profiler.testing:ScriptedBackend"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend runs.

    Attributes:
        threads: how many threads one run may use.
        cores: the cores the process is pinned to; empty leaves it where it is.
        options: further options of the runtime, part of the environment's key.
    """

    threads: int = 1
    cores: tuple[int, ...] = ()
    options: tuple[tuple[str, str], ...] = field(default=())


class Program(ABC):
    """One compiled operator."""

    @abstractmethod
    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        """Return a call without arguments that runs the program on these buffers, in order."""


class Backend(ABC):
    """A runtime that compiles canonical graphs and runs them."""

    name: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the runtime's version without loading more than needed.

        Raises:
            BackendUnavailable: the runtime is not installed; says what to install.
        """

    @classmethod
    @abstractmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the options that change speed, as they go into the environment's key."""

    @abstractmethod
    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a buffer of the runtime, filled with seeded random numbers (zeros for integers)."""

    @abstractmethod
    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return the compiled operator with seeded random weights."""


def backend_class(name: str) -> type[Backend]:
    """Return a backend by name.

    Raises:
        BackendUnavailable: nobody registered this name.
    """
    home = BACKENDS.get(name) or _FOR_TESTS.get(name)
    if home is None:
        known = ", ".join(sorted(BACKENDS))
        raise BackendUnavailable(f"backend {name!r} is not part of this version; known: {known}")
    module, _, attribute = home.partition(":")
    found: type[Backend] = getattr(import_module(module), attribute)
    return found
