"""PyTorch, as people run networks who deploy nothing: its eager functions, or what ``torch.compile`` makes of them.

A cross-check of other runtimes, and the baseline that a runtime for deployment is to beat. Operators are translated
from ONNX by :mod:`.torch_ops`; rounding to int8 is computed in floating point, as torch's own users simulate it.

Results are not copied: a call puts the tensors that torch returns into the places of its outputs, whatever their
layout, where the next operator finds them, as the next layer of a network would.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.profiler.backends.base import Array, Backend, Program, Settings, random_array
from lanaprof.profiler.backends.choices import Choice, one_of

__all__ = ["Place", "Torch", "TorchProgram"]

# What torch says of a type for which it has no kernel.
_NO_KERNEL = ("not implemented for", "Could not run", "no kernel found", "Got unsupported ScalarType")
_INDUCTOR = "inductor"
_LONGEST_MESSAGE = 400


class Place:
    """Where a tensor is to be: what operators read and write.

    Attributes:
        values: the tensor; programs put theirs in its stead.
    """

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        self.values = values


class Torch(Backend):
    """PyTorch on the CPU.

    Options: ``compile``: eager, or inductor, which asks for a C++ compiler.
    """

    name = "torch"
    choices: ClassVar[Mapping[str, Choice]] = {"compile": one_of("eager", _INDUCTOR)}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._compiles = self.chosen.get("compile", "eager") == _INDUCTOR
        if self._compiles:
            _demand_compiler()
            # A pool of compiling processes would go on beside what is measured.
            os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        import torch

        self._torch: Any = torch
        torch.set_num_threads(settings.threads)

    @classmethod
    def version(cls) -> str:
        """Return torch's version."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("torch")
        except PackageNotFoundError:
            raise BackendUnavailable("PyTorch is not installed", hint="pip install torch") from None

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return what changes speed."""
        del threads  # one pool, of the calling thread and others
        return (("compile", "eager"), ("denormals", "flushed"))

    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a place with a tensor."""
        return Place(self._tensor(random_array(kind, shape, seed=seed)))

    def _tensor(self, values: Array) -> Any:
        from lanaprof.profiler.backends.torch_graph import tensor_of  # imports torch

        return tensor_of(values)

    def read(self, buffer: Any) -> Array:
        """Return a copy of a tensor's values."""
        from lanaprof.profiler.backends.torch_graph import array_of

        return array_of(buffer.values)

    def write(self, buffer: Any, values: Array) -> None:
        """Put a tensor of these values into its place."""
        buffer.values = self._tensor(values)

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return the operator as a torch module; compiled, where that is chosen, at its first run."""
        return TorchProgram(self, self._module(graph, seed), len(graph["inputs"]), len(graph["outputs"]))

    def _module(self, graph: Mapping[str, Any], seed: int) -> Any:
        from lanaprof.profiler.backends.torch_graph import module_from_graph

        module: Any = module_from_graph(graph, seed=seed)
        if self._compiles:
            module = self._torch.compile(module, backend=_INDUCTOR, fullgraph=True, dynamic=False)
        return module

    def bound(self, module: Any, inputs: Sequence[Place], outputs: Sequence[Place]) -> Callable[[], object]:
        """Return a call of a module that reads and fills these places."""
        no_gradients, refusal, flush = self._torch.no_grad, self.refusal, self._torch.set_flush_denormal
        sources, targets = tuple(inputs), tuple(outputs)

        def once() -> None:
            flush(True)  # of this thread, and of those that torch starts from it
            try:
                with no_gradients():
                    results = module(*[place.values for place in sources])
            except Exception as error:  # torch raises RuntimeErrors, its compiler a tree of its own
                raise refusal(error) from error
            finally:
                flush(False)
            for place, values in zip(targets, results, strict=True):
                place.values = values

        return once

    def refusal(self, error: Exception) -> BackendError:
        """Return what an error of torch's means for a campaign."""
        text = " ".join(str(error).split())
        kind = UnsupportedOperator if any(words in text for words in _NO_KERNEL) else BackendError
        return kind(f"torch does not run the operator: {text[:_LONGEST_MESSAGE]}")


class TorchProgram(Program):
    """A module, to be bound."""

    def __init__(self, backend: Torch, module: Any, inputs: int, outputs: int) -> None:
        self._backend, self._module = backend, module
        self._inputs, self._outputs = inputs, outputs

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        """Return a call that reads and fills these places."""
        if (len(inputs), len(outputs)) != (self._inputs, self._outputs):
            raise BackendError(f"the operator has {self._inputs} inputs and {self._outputs} outputs")
        return self._backend.bound(self._module, inputs, outputs)


def _demand_compiler() -> None:
    """Refuse to compile where nothing here can.

    Raises:
        BackendUnavailable: there is no C++ compiler.
    """
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in wanted):
        raise BackendUnavailable(
            f"torch's inductor needs a C++ compiler; looked for {', '.join(wanted)}",
            hint="install g++, or choose `compile: eager` in devices.yaml",
        )
