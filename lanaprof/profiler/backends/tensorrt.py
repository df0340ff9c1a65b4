"""NVIDIA's TensorRT, 8.6 to 11: a plan per operator, run on the GPU through our own door to CUDA.

Types are what the graph says: networks are strongly typed where TensorRT knows that (10 on). 8.6 does not: it is
allowed the types in the graph and may still take float32 kernels; its environments say ``typing=weak``.

The first build of an operator, and every whole network, share the kernel timings of the environment, so that a network
is made of the kernels its operators were measured with. Builds with another seed start afresh: how much the choice of
kernels varies shows between them.

What devices.yaml may choose is ``TensorRt.choices``; ``plans: reuse`` changes no number and is in no key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lanaprof.digest import digest
from lanaprof.errors import BackendError, BackendUnavailable
from lanaprof.profiler.backends.base import Array, Backend, Edges, Program, Settings, random_array
from lanaprof.profiler.backends.choices import Choice, count, mebibytes, one_of
from lanaprof.profiler.backends.trt_api import Api, open_api
from lanaprof.profiler.backends.trt_build import (
    BuildOptions,
    Timings,
    build_plan,
    edge_bytes,
    merged_timings,
)
from lanaprof.profiler.backends.trt_cache import BlobFile, plan_file, timing_file, to_stderr
from lanaprof.profiler.backends.trt_model import kinds_of, model_for
from lanaprof.profiler.backends.trt_run import DeviceArray, Engine, Port, Scratch
from lanaprof.profiler.clock import Clock
from lanaprof.profiler.gpu.clock import GpuClock
from lanaprof.profiler.gpu.driver import Driver
from lanaprof.profiler.gpu.drivers import driver_class
from lanaprof.profiler.gpu.nvml import ClockWatch, find_nvml
from lanaprof.profiler.gpu.probe import Gpu, driver_version, get_gpu
from lanaprof.profiler.gpu.support import cuda_of_package, find_conflict, version_of

__all__ = ["TensorRt", "installed_package"]

# Distributions that bring the module, the one with CUDA's version in its name first.
_PACKAGES = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11", "tensorrt")
_STRONGLY_TYPED_FROM = (10,)


class TensorRt(Backend):
    """TensorRT on one GPU: static shapes, one stream, one piece of working memory.

    Args:
        settings: ``gpu`` is a UUID; empty for the first GPU there is.
        driver: an open GPU, where there is one already; it stays its owner's.
        api: TensorRT, where it is not the module ``tensorrt``.

    Attributes:
        environment: what the files that builds leave are valid for.
    """

    name = "tensorrt"
    on_gpu = True
    grid = "int8"  # of activations; it reads no other
    choices: ClassVar[Mapping[str, Choice]] = {
        "aux_streams": count(0, 8),
        "optimization_level": count(0, 5),
        "plans": one_of("off", "reuse", changes=False),
        "tf32": one_of("off", "on"),
        "timing_cache": one_of("shared", "off"),
        "timing_iterations": count(1, 1000),
        "workspace": mebibytes("workspace_mib"),
    }

    def __init__(self, settings: Settings, *, driver: Driver | None = None, api: Api | None = None) -> None:
        super().__init__(settings)
        self._build_options = BuildOptions().changed(self.chosen)
        # Before TensorRT is imported: without a GPU its runtime ends the process at the first call.
        gpu = driver.gpu if driver is not None else get_gpu(settings.gpu or 0)
        if api is None:
            _demand_support(gpu)
        self._driver = driver if driver is not None else driver_class()(gpu)
        self._api = api if api is not None else open_api()
        self._runtime = self._api.module.Runtime(self._api.logger)
        self._stream, self._scratch = self._driver.stream(), Scratch(self._driver)
        self._not_kept: set[str] = set()
        self.environment = {
            "capability": ".".join(map(str, gpu.capability)),
            "driver": ".".join(map(str, driver_version() or ())),
            "gpu": gpu.name,
            "tensorrt": self._api.module.__version__,
            **self._build_options.texts(),
        }

    @classmethod
    def version(cls) -> str:
        """Return TensorRT's version."""
        found = installed_package()
        if found is None:
            raise BackendUnavailable(
                "TensorRT is not installed",
                hint="pip install 'lanaprof[tensorrt]' and the TensorRT that `lanaprof doctor` names for this GPU",
            )
        return found[1]

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return the options of builds."""
        del threads  # the host enqueues from one; the GPU's are its own affair
        found = installed_package()
        is_weak = found is not None and version_of(found[1]) < _STRONGLY_TYPED_FROM
        texts = {
            **BuildOptions().texts(),
            "timing_cache": "shared",
            "typing": "weak" if is_weak else "strong",
        }
        return tuple(sorted(texts.items()))

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
        return DeviceArray(memory, kind, tuple(shape))

    def edge_buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return a tensor with room for the formats an edge may have, all of it filled."""
        size_bytes = edge_bytes(kind, shape)
        values = random_array(kind, (size_bytes // np.dtype(kind).itemsize,), seed=seed)
        memory = self._driver.allocate(values.nbytes)
        self._driver.write(memory, values)
        return DeviceArray(memory, kind, tuple(shape))

    def read(self, buffer: Any) -> Array:
        """Return a copy of a tensor's values."""
        return self._driver.read(buffer.memory, buffer.kind, buffer.shape)

    def write(self, buffer: Any, values: Array) -> None:
        """Put values into a tensor."""
        self._driver.write(buffer.memory, np.asarray(values, dtype=buffer.kind).reshape(buffer.shape))

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return an engine that reads and writes plain tensors."""
        return self._engine(graph, seed, None)

    def compile_inside(self, graph: Mapping[str, Any], *, seed: int, edges: Edges) -> Program:
        """Return an engine that may read and write other formats where a neighbour would hand them over."""
        return self._engine(graph, seed, edges)

    def _engine(self, graph: Mapping[str, Any], seed: int, edges: Edges | None) -> Engine:
        kept = self._kept_plan(graph, seed, edges)
        plan = b"" if kept is None else kept.read()
        engine = self._runtime.deserialize_cuda_engine(plan) if plan else None
        if kept is not None and plan and engine is None:
            kept.set_aside("TensorRT cannot load it")
        if engine is None:
            plan = self._build(graph, seed, edges)
            if kept is not None:
                self._keep("plans", partial(kept.write, plan))
            engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = self._api.messages.text or "no reason given"
            raise BackendError(f"TensorRT cannot load the plan it built: {reason}")
        return Engine(self._api, engine, ports=_ports_of(graph), stream=self._stream, scratch=self._scratch)

    def _kept_plan(self, graph: Mapping[str, Any], seed: int, edges: Edges | None) -> BlobFile | None:
        if self.chosen.get("plans") != "reuse":
            return None
        inside = None if edges is None else [list(edges.inputs), list(edges.outputs)]
        return plan_file(self.environment, digest([dict(graph), seed, inside]))

    def _build(self, graph: Mapping[str, Any], seed: int, edges: Edges | None) -> bytes:
        """Return a new plan; the first of an operator takes and leaves the environment's kernel timings."""
        api = self._api
        is_shared = seed == 0 and self.chosen.get("timing_cache", "shared") == "shared"
        shared = timing_file(self.environment) if is_shared else None
        before = b"" if shared is None else shared.read()
        built = build_plan(
            api,
            model_for(graph, seed=seed, tensorrt_version=api.module.__version__),
            options=self._build_options,
            kinds=kinds_of(graph),
            edges=edges,
            timings=None if shared is None else Timings(before, keep=True),
        )
        if shared is not None and built.timings:
            if built.stale:
                shared.set_aside("TensorRT says it is of another version or GPU")

            def change(now: bytes) -> bytes:
                # What the build started with is in what it left; only what others left meanwhile is to be added.
                return built.timings if now in (b"", before) else merged_timings(api, now, built.timings)

            self._keep("kernel timings", partial(shared.update, change))
        return built.plan

    def _keep(self, what: str, write: Callable[[], None]) -> None:
        """Write a file that only saves time; where it cannot be, say so once and go on."""
        try:
            write()
        except OSError as error:
            if what not in self._not_kept:
                to_stderr(f"{what} of TensorRT cannot be kept: {error}")
            self._not_kept.add(what)


def installed_package() -> tuple[str, str] | None:
    """Return the distribution that brings TensorRT, and its version; None where none is installed."""
    from importlib.metadata import PackageNotFoundError, version  # reads the disk: only when asked

    for package in _PACKAGES:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def _demand_support(gpu: Gpu) -> None:
    """Refuse a TensorRT that does not run on the GPU, with what to type.

    Raises:
        BackendUnavailable: it is missing, or of the wrong version.
    """
    package, version = installed_package() or ("", "")
    conflict = find_conflict(gpu.capability, version, driver_version(), built_for=cuda_of_package(package))
    if conflict is not None:
        raise BackendUnavailable(f"{gpu.name}: {conflict.message}", hint=conflict.command)


def _ports_of(graph: Mapping[str, Any]) -> tuple[list[Port], list[Port]]:
    inputs = [
        Port(f"x{index}", described["type"], tuple(described["shape"]))
        for index, described in enumerate(graph["inputs"])
    ]
    outputs = []
    for index, reference in enumerate(graph["outputs"]):
        node, slot = reference[1:].split(".")
        described = graph["nodes"][int(node)]["outputs"][int(slot)]
        outputs.append(Port(f"y{index}", described["type"], tuple(described["shape"])))
    return inputs, outputs
