"""ONNX → TensorRT network → plan; one way for 8.6 to 11, and no GPU call of ours in it.

The precision is in the ONNX model, so that no flag of one version decides it. TensorRT's own errors name no cause:
the parser's list and the log are what there is to tell an operator without a kernel from a broken build.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.profiler.backends.base import Edges
from lanaprof.profiler.backends.trt_api import KINDS, Api
from lanaprof.profiler.gpu.failures import OutOfDeviceMemory

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = [
    "BuildOptions",
    "Built",
    "Timings",
    "build_plan",
    "edge_bytes",
    "merged_timings",
]

# What the parser says of an operator it knows no importer or kernel for; its codes call that an invalid node.
_NO_IMPORTER = (
    "No importer registered",
    "Plugin not found",
    "getPluginCreator",
    "nsupported",
    "not supported",
)
# What the builder logs when no kernel does a layer, none for 8 bits on this GPU, and when one would but has no room.
_NO_KERNEL = ("Could not find any implementation", "not supported", "nsupported", "require hardware with")
_NO_ROOM = ("out of memory", "OutOfMemory", "insufficient workspace", "insufficient memory")
_LONGEST_MESSAGE = 400
# Formats that a neighbour in a network would hand over without a copy, besides the plain one. A channel count is
# filled up to a multiple of the format's vector, hence :func:`edge_bytes`.
_EDGE_FORMATS: Mapping[str, tuple[str, ...]] = {"float16": ("HWC8",), "int8": ("CHW4", "CHW32")}
_WIDEST_VECTOR = 32  # channels, of CHW32


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What decides about a plan besides the model; goes into the environment's key.

    Attributes:
        optimization_level: how long the builder searches; 3 is TensorRT's default, said all the same.
        workspace_bytes: the most memory one kernel may work in; a kernel that needs more is not considered.
        timing_iterations: how often a kernel is timed while it competes; TensorRT's default is 1, which lets noise
            pick.
        aux_streams: how many streams more an engine may use; 0, for what is timed is the operator, not how much of it
            overlaps.
        tf32: whether float32 may be computed with 10-bit mantissas. TensorRT's default is yes where the GPU can; then
            "fp32" would mean one thing on a V100 and another on an A100.
    """

    optimization_level: int = 3
    workspace_bytes: int = 1 << 30
    timing_iterations: int = 8
    aux_streams: int = 0
    tf32: bool = False

    def changed(self, texts: Mapping[str, str]) -> BuildOptions:
        """Return the options with some changed, named and written as :meth:`texts` does; others are left out."""
        found: dict[str, Any] = {
            name: int(texts[name])
            for name in ("optimization_level", "timing_iterations", "aux_streams")
            if name in texts
        }
        if "workspace_mib" in texts:
            found["workspace_bytes"] = int(texts["workspace_mib"]) << 20
        if "tf32" in texts:
            found["tf32"] = texts["tf32"] == "on"
        return replace(self, **found)

    def texts(self) -> dict[str, str]:
        """Return the options as they go into the environment's key."""
        return {
            "aux_streams": str(self.aux_streams),
            "optimization_level": str(self.optimization_level),
            "profiling_verbosity": "detailed",
            "tf32": "on" if self.tf32 else "off",
            "timing_iterations": str(self.timing_iterations),
            "workspace_mib": str(self.workspace_bytes >> 20),
        }


@dataclass(frozen=True, slots=True)
class Timings:
    """Kernel timings for a build.

    Attributes:
        before: a serialized timing cache to build with; empty starts afresh.
        keep: whether the build's timings are wanted back.
    """

    before: bytes = b""
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan, and what came with it.

    Attributes:
        plan: the serialized engine.
        timings: the serialized timing cache; empty unless it was wanted.
        stale: whether the timings given were of another TensorRT or GPU, and were not used.
        warnings: what the builder warned of.
    """

    plan: bytes
    timings: bytes = b""
    stale: bool = False
    warnings: tuple[str, ...] = ()


def edge_bytes(kind: str, shape: Sequence[int]) -> int:
    """Return the room a tensor takes in whatever format an edge may have.

    Args:
        kind: NumPy's name of its type.
        shape: (batch, channels, height, width), or any other.

    >>> edge_bytes("float16", (1, 3, 4, 4)), edge_bytes("float32", (1, 3, 4, 4))
    (1024, 192)
    """
    if kind in _EDGE_FORMATS and len(shape) == 4:
        shape = (shape[0], -(-shape[1] // _WIDEST_VECTOR) * _WIDEST_VECTOR, *shape[2:])
    return math.prod(shape) * np.dtype(kind).itemsize


def merged_timings(api: Api, one: bytes, other: bytes) -> bytes:
    """Return kernel timings that hold those of both; the other's alone where they do not go together."""
    config = api.module.Builder(api.logger).create_builder_config()
    merged, added = config.create_timing_cache(one), config.create_timing_cache(other)
    if merged is None or added is None or not merged.combine(added, False):
        return other
    return bytes(merged.serialize())


def build_plan(
    api: Api,
    model: bytes,
    *,
    options: BuildOptions,
    kinds: frozenset[str] = frozenset(),
    edges: Edges | None = None,
    timings: Timings | None = None,
) -> Built:
    """Return the plan of an ONNX model.

    Args:
        api: TensorRT.
        model: serialized, static shapes, its precision in its types.
        options: of the build.
        kinds: the types in the model; weakly typed versions must be allowed them.
        edges: where neighbours are in a network: there the engine may read and write formats of its own.
        timings: kernel timings to use and to bring back; None for a build that knows and leaves none.

    Raises:
        UnsupportedOperator: no importer or no kernel.
        OutOfDeviceMemory: the GPU or the workspace is too small for it.
        BackendError: another refusal.
    """
    api.messages.clear()
    try:
        builder = api.module.Builder(api.logger)
        network = builder.create_network(api.network_flags())
        parser = _parse(api, network, model)
        if edges is not None:
            _open_edges(api, network, edges)
        config = builder.create_builder_config()
        _configure(api, config, options)
        api.allow_types(config, kinds)
        stale = not _use_timings(config, timings or Timings())
        plan = builder.build_serialized_network(network, config)
        del parser  # it owns the weights: without it the builder reads what is no longer there
    except BackendError:
        raise
    except Exception as error:  # pybind11 raises RuntimeError, TypeError, ValueError and MemoryError
        raise _refusal(api, f"{type(error).__name__}: {error}") from error
    if plan is None:
        raise _refusal(api, "no plan came of it")
    kept = config.get_timing_cache() if timings is not None and timings.keep else None
    return Built(
        plan=bytes(plan),
        timings=b"" if kept is None else bytes(kept.serialize()),
        stale=stale,
        warnings=tuple(dict.fromkeys(api.messages.warnings)),
    )


def _parse(api: Api, network: trt.INetworkDefinition, model: bytes) -> trt.OnnxParser:
    """Fill the network; return the parser, which must live until the plan is built."""
    parser = api.module.OnnxParser(network, api.logger)
    read = parser.parse(model)
    if not read:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        lines = [f"{api.place_of(error)}: {' '.join(error.desc().split())}" for error in errors]
        text = (
            "; ".join(lines)[:_LONGEST_MESSAGE] or api.messages.text[:_LONGEST_MESSAGE] or "no reason given"
        )
        # 8.6 has one code for everything unsupported, later ones several; a missing importer is an "invalid node".
        codes = {error.code().name for error in errors}
        unsupported = any(code.startswith("UNSUPPORTED") for code in codes)
        unsupported = unsupported or any(words in text for words in _NO_IMPORTER)
        kind = UnsupportedOperator if unsupported else BackendError
        raise kind(f"TensorRT's parser refused the operator: {text}")
    if not network.num_layers:  # what is no ONNX is parsed with success
        raise BackendError("TensorRT's parser found no layer in the model")
    return parser


def _open_edges(api: Api, network: trt.INetworkDefinition, edges: Edges) -> None:
    """Let the builder choose the format of what lies between neighbours, as it does within a network.

    With plain formats alone a copy would stand before and behind every convolution on tensor cores, which a network
    has at its own ends only.
    """
    inputs = {f"x{index}" for index, inside in enumerate(edges.inputs) if inside}
    outputs = {f"y{index}" for index, inside in enumerate(edges.outputs) if inside}
    found = [network.get_input(index) for index in range(network.num_inputs)]
    found += [network.get_output(index) for index in range(network.num_outputs)]
    for tensor in found:
        if tensor.name not in inputs | outputs or len(tensor.shape) != 4:
            continue
        names = _EDGE_FORMATS.get(KINDS.get(tensor.dtype.name, ""), ())
        if names:
            formats = [getattr(api.module.TensorFormat, name) for name in ("LINEAR", *names)]
            tensor.allowed_formats = sum(1 << int(choice) for choice in formats)


def _configure(api: Api, config: trt.IBuilderConfig, options: BuildOptions) -> None:
    module = api.module
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.avg_timing_iterations = options.timing_iterations
    config.max_aux_streams = options.aux_streams
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # names the kernels; costs no time
    if options.tf32:
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)


def _use_timings(config: trt.IBuilderConfig, timings: Timings) -> bool:
    """Give the build its timings; say whether those given could be used."""
    if timings.before:
        cache = config.create_timing_cache(timings.before)
        # Timings of another version or GPU would pick kernels that are not the fastest here.
        if cache is not None and config.set_timing_cache(cache, False):
            return True
    fresh = config.create_timing_cache(b"")
    if fresh is not None:
        config.set_timing_cache(fresh, False)
    return not timings.before


def _refusal(api: Api, otherwise: str) -> BackendError:
    """Return the error that the log tells of."""
    text = (api.messages.text or otherwise)[:_LONGEST_MESSAGE]
    message = f"TensorRT could not build the operator: {text}"
    if any(words in text for words in _NO_ROOM):
        return OutOfDeviceMemory(message)
    if any(words in text for words in _NO_KERNEL) and "Target GPU" not in text:
        return UnsupportedOperator(message)
    return BackendError(message)
