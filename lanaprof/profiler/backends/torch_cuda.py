"""PyTorch on a GPU: its CUDA kernels eagerly, or those that ``torch.compile`` writes with Triton.

torch shares the GPU's primary context with our door to CUDA and works on a stream of ours, so that runs are recorded
into a graph and replayed as those of every other runtime are. What operators work in comes from one pool of memory,
which torch keeps for as long as the backend lives: a recording has addresses of it. As they run one at a time, all
share it, like the layers of a network; a replay may therefore overwrite the results of another operator's.

None of torch's CUDA part was run: tests have torch's CPU functions on a scripted GPU in their place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from lanaprof.errors import BackendError, BackendUnavailable
from lanaprof.profiler.backends.base import Array, Settings
from lanaprof.profiler.backends.choices import Choice, one_of
from lanaprof.profiler.backends.torch import Place, Torch
from lanaprof.profiler.backends.trt_cache import to_stderr
from lanaprof.profiler.clock import Clock
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.driver import Driver, Stream
from lanaprof.profiler.gpu.drivers import open_driver
from lanaprof.profiler.gpu.failures import OutOfDeviceMemory, error_from_code
from lanaprof.profiler.gpu.nvml import ClockWatch, find_nvml

__all__ = ["TorchCuda", "why_torch_cannot"]


class TorchCuda(Torch):
    """PyTorch on one GPU, one stream.

    Options: ``compile``: eager, or inductor, which asks for Triton and a C compiler; ``tf32``: off or on.

    Args:
        settings: ``gpu`` is a UUID; empty for the first GPU there is.
        driver: an open GPU, where there is one already; it stays its owner's.
    """

    name = "torch-cuda"
    on_gpu = True
    choices: ClassVar[Mapping[str, Choice]] = {**Torch.choices, "tf32": one_of("off", "on")}
    device: ClassVar[str] = "cuda"

    def __init__(self, settings: Settings, *, driver: Driver | None = None) -> None:
        # Before torch, which would make the context itself and wait for the GPU in its sleep.
        self._driver = driver if driver is not None else open_driver(settings.gpu or 0)
        short = dict(settings.options).get("tf32") == "on"
        if not short:
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read by cuBLAS and cuDNN when they are loaded
        super().__init__(settings)
        torch = self._torch
        if self.device == "cuda":
            why = why_torch_cannot(torch, self._driver.gpu.capability)
            if why:
                raise BackendUnavailable(
                    f"{self._driver.gpu.name}: {why}",
                    hint="install a torch that has it: pytorch.org/get-started",
                )
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = short
            torch.backends.cudnn.benchmark = True  # convolutions are searched at their first run
        self._stream = self._driver.stream()
        self._pool = self._new_pool()

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return what changes speed."""
        del threads  # the host enqueues from one
        return (("compile", "eager"), ("convolutions", "searched"), ("tf32", "off"))

    def free_bytes(self) -> int | None:
        """Return how much of the GPU's memory is free."""
        return self._driver.memory_bytes()[0]

    def clock(self) -> Clock:
        """Return the GPU's clock."""
        source = find_nvml(self._driver.gpu, to_stderr)
        return GpuClock(
            self._driver, watch=ClockWatch(source, default_sm_hz=self.settings.sm_clock_mhz * 1e6)
        )

    def _where(self) -> Any:
        return self._torch.device(self.device, self._driver.gpu.index if self.device == "cuda" else None)

    def _tensor(self, values: Array) -> Any:
        with self._refusing():
            return super()._tensor(values).to(self._where())

    def read(self, buffer: Any) -> Array:
        """Return a copy of a tensor's values, once everything enqueued is done."""
        self._driver.synchronize()
        with self._refusing():
            return super().read(buffer)

    def write(self, buffer: Any, values: Array) -> None:
        """Put values where the tensor lies: a recording knows the address."""
        self._driver.synchronize()
        with self._refusing():
            buffer.values.copy_(super()._tensor(values))

    def _module(self, graph: Mapping[str, Any], seed: int) -> Any:
        with self._refusing():
            return super()._module(graph, seed).to(self._where())

    def bound(self, module: Any, inputs: Sequence[Place], outputs: Sequence[Place]) -> Callable[[], object]:
        """Return a call of a module on the backend's stream alone."""
        own, no_gradients = self._stream, self._torch.no_grad
        sources, targets = tuple(inputs), tuple(outputs)

        def enqueue(stream: Stream) -> None:
            if stream is not own:
                raise BackendError("torch runs on the stream its memory belongs to")
            with self._refusing(), no_gradients():
                for place in targets:
                    place.values = None  # its memory is what this run's results go into
                results = module(*[place.values for place in sources])
            for place, values in zip(targets, results, strict=True):
                place.values = values

        return GpuCall(own, enqueue, keep=(module, sources, targets), around=self._surroundings())

    def _new_pool(self) -> Any:
        return self._torch.cuda.MemPool()

    def _surroundings(self) -> Callable[[], contextlib.AbstractContextManager[object]]:
        """Return what puts torch's work onto our stream, and its memory into our pool.

        torch enters a pool only where nothing is recorded, or it records itself.
        """
        cuda, pool = self._torch.cuda, self._pool
        stream = cuda.ExternalStream(self._stream.handle, device=self._where())

        @contextlib.contextmanager
        def surrounded() -> Any:
            with cuda.stream(stream), cuda.use_mem_pool(pool):
                yield

        return surrounded

    @contextlib.contextmanager
    def _refusing(self) -> Any:
        """Turn what torch raises into what it means for a campaign."""
        try:
            yield
        except BackendError:
            raise
        except Exception as error:  # as on the CPU
            raise self.refusal(error) from error

    def refusal(self, error: Exception) -> BackendError:
        """Return what an error of torch's means: the GPU may be full, or lost."""
        if isinstance(error, self._torch.OutOfMemoryError):
            return OutOfDeviceMemory(f"torch: {str(error).splitlines()[0]}")
        code = getattr(error, "error_code", None)  # of AcceleratorError, which is CUDA's own
        if isinstance(code, int):
            return error_from_code(code, call="torch", name=str(error).splitlines()[0])
        return super().refusal(error)


def why_torch_cannot(torch: Any, capability: tuple[int, int]) -> str:
    """Return why a torch does not run on a GPU; empty when it does.

    Args:
        torch: the module.
        capability: of the GPU.
    """
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not hasattr(torch.cuda, "use_mem_pool"):
        return f"torch {torch.__version__} knows no pools of memory; 2.6 and newer do"
    built_for = torch.cuda.get_arch_list()
    major, minor = capability
    if built_for and not any(_runs(name, major, minor) for name in built_for):
        return f"torch {torch.__version__} has code for {', '.join(built_for)}, not for {major}.{minor}"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU; its CUDA is {torch.version.cuda}"
    return ""


def _runs(name: str, major: int, minor: int) -> bool:
    """Say whether code runs on a GPU: ``sm_80`` on 8.0 and 8.6, not on 9.0; ``compute_80``, which is PTX, on all three.

    ``sm_90a`` uses what only 9.0 has, ``sm_100f`` what others of the tenth generation have as well.
    """
    kind, _, number = name.partition("_")
    digits = number.rstrip("af")
    built = (int(digits[:-1]), int(digits[-1]))
    if number.endswith("a"):
        return built == (major, minor)
    if kind == "compute":
        return built <= (major, minor)
    return built[0] == major and built[1] <= minor
