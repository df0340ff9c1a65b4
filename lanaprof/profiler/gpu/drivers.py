"""Which implementation of the driver speaks to the GPU here."""

from __future__ import annotations

from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.gpu.bindings_driver import BindingsDriver
from lanaprof.profiler.gpu.driver import Driver
from lanaprof.profiler.gpu.probe import Gpu, get_gpu
from lanaprof.profiler.gpu.pycuda_driver import PyCudaDriver

__all__ = ["driver_class", "open_driver"]


def driver_class() -> type[Driver]:
    """Return the implementation to use: PyCUDA's where it can be imported, else cuda-bindings'.

    Raises:
        BackendUnavailable: neither can; says why, and what to install.
    """
    reasons = []
    for kind in (PyCudaDriver, BindingsDriver):
        reason = kind.why_unavailable()
        if not reason:
            return kind
        reasons.append(reason)
    raise BackendUnavailable(
        f"nothing here can speak to the GPU: {'; '.join(reasons)}", hint="pip install 'lanaprof[tensorrt]'"
    )


def open_driver(gpu: Gpu | str | int = 0) -> Driver:
    """Return an open GPU; close it, or use it as a context manager.

    Args:
        gpu: the GPU, its UUID, or its number among those this process may use.

    Raises:
        DeviceUnavailable: there is no such GPU; says why.
        BackendUnavailable: there is one, but no package to speak to it.
    """
    return driver_class()(gpu if isinstance(gpu, Gpu) else get_gpu(gpu))
