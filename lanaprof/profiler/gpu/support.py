"""Which TensorRT runs on which GPU, as data, and what to type where the installed one does not.

Sources: NVIDIA's support matrices and release notes (8.6: Kepler and Maxwell gone; 10.0: "SM 7.0 or higher"; 10.5:
"Volta support removed"; 10.8: Blackwell, the B200 as early access; 10.13.2: CUDA 11 dropped, CUDA 13 added; 11:
"Turing or later"), the default architectures in TensorRT's CMakeLists.txt of each release, and ONNX-TensorRT's
docs/operators.md for opsets. What none of them says is unknown here, and nothing is refused on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "LOWEST",
    "Conflict",
    "Range",
    "Version",
    "check",
    "cuda_of_package",
    "find_conflict",
    "opset_limit",
    "tensorrt_range",
    "version_of",
]

Version = tuple[int, ...]

LOWEST: Version = (8, 6)  # named inputs and outputs, a fixed optimization level, no auxiliary streams
_NEWEST: Mapping[int, str] = {  # CUDA the driver speaks → package; newest of its kind
    11: "tensorrt-cu11==10.13.0.35",  # the last for CUDA 11
    12: "tensorrt-cu12==11.4.0.106",
    13: "tensorrt-cu12==11.4.0.106",  # newer drivers run what was built for older CUDA
}
_LAST_VOLTA: Mapping[int, str] = {
    11: "tensorrt-cu11==10.4.0",
    12: "tensorrt-cu12==10.4.0",
    13: "tensorrt-cu12==10.4.0",
}
_LAST_PASCAL: Mapping[int, str] = {12: "tensorrt==8.6.1", 13: "tensorrt==8.6.1"}
_CUDA_11_DROPPED: Version = (10, 13, 2)
_VOLTA: Version = (7, 2)  # the last compute capability that CUDA 13 compiles nothing for


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The versions of TensorRT for one compute capability.

    Attributes:
        architecture: NVIDIA's name of the generation.
        lowest: the first version known to run; None where no source says.
        below: the first version that dropped it; None where none did.
        pin: what to install, as pip reads it; empty where no version runs or none is known.
        reason: what the range rests on.
    """

    architecture: str
    lowest: Version | None
    below: Version | None
    pin: str
    reason: str

    @property
    def text(self) -> str:
        """Return the range for a person, e.g. ``TensorRT 8.6 up to, not including, 10.5``."""
        lowest = "" if self.lowest is None else f" {_text(self.lowest)}"
        if self.below is None:
            return f"TensorRT{lowest} or newer" if lowest else "no version that is known"
        return f"TensorRT{lowest} up to, not including, {_text(self.below)}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """What does not fit, and what to type; the command is empty where none helps."""

    message: str
    command: str


@dataclass(frozen=True, slots=True)
class _Generation:
    first: Version
    last: Version
    architecture: str
    lowest: Version | None
    below: Version | None
    pins: Mapping[int, str]
    reason: str


_GENERATIONS = (
    _Generation((1, 0), (5, 3), "Maxwell or older", None, LOWEST, {},
                "TensorRT 8.5 was the last for it, and lanaprof needs 8.6"),
    _Generation((6, 0), (6, 2), "Pascal", LOWEST, (10, 0), _LAST_PASCAL,
                "TensorRT 10.0 asks for compute capability 7.0 or higher"),
    _Generation((7, 0), (7, 2), "Volta", LOWEST, (10, 5), _LAST_VOLTA,
                "TensorRT 10.5 removed Volta"),
    _Generation((7, 5), (7, 5), "Turing", LOWEST, None, _NEWEST, "TensorRT 11 asks for Turing or later"),
    _Generation((8, 0), (8, 6), "Ampere", LOWEST, None, _NEWEST, "supported throughout"),
    _Generation((8, 7), (8, 7), "Orin", None, None, {}, "its versions come with JetPack and are unknown here"),
    _Generation((8, 9), (8, 9), "Ada", LOWEST, None, _NEWEST, "supported since 8.5"),
    _Generation((9, 0), (9, 0), "Hopper", LOWEST, None, _NEWEST, "supported since 8.5"),
    _Generation((10, 0), (10, 0), "Blackwell", (10, 8), None, _NEWEST,
                "supported since 10.8, there as early access"),
    _Generation((12, 0), (12, 0), "Blackwell", (10, 8), None, _NEWEST, "supported since 10.8"),
)  # fmt: skip
_UNKNOWN = Range(
    architecture="unknown", lowest=None, below=None, pin="",
    reason="no source that lanaprof rests on names this compute capability",
)  # fmt: skip


def version_of(text: str) -> Version:
    """Return a version's numbers; what follows them is dropped.

    >>> version_of("10.4.0"), version_of("8.6.1.post1"), version_of("none")
    ((10, 4, 0), (8, 6, 1), ())
    """
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def tensorrt_range(capability: tuple[int, int], *, cuda: int = 12) -> Range:
    """Return the versions of TensorRT that run on a compute capability.

    Args:
        capability: e.g. (7, 0) for a V100.
        cuda: the major version of CUDA that the driver speaks; it decides the pin alone.

    >>> tensorrt_range((7, 0)).text, tensorrt_range((7, 0)).pin
    ('TensorRT 8.6 up to, not including, 10.5', 'tensorrt-cu12==10.4.0')
    >>> tensorrt_range((9, 9)).text
    'no version that is known'
    """
    for row in _GENERATIONS:
        if row.first <= capability <= row.last:
            pin = row.pins.get(min(cuda, max(row.pins, default=0)), "")
            return Range(
                architecture=row.architecture, lowest=row.lowest, below=row.below, pin=pin, reason=row.reason
            )
    return _UNKNOWN


def opset_limit(tensorrt_version: str) -> int:
    """Return the newest opset that a version's ONNX parser is documented to read.

    Later 10.x read more; nothing here needs it.

    >>> opset_limit("8.6.1"), opset_limit("10.4.0")
    (17, 20)
    """
    return 17 if version_of(tensorrt_version) < (9,) else 20


def cuda_of_package(package: str) -> int | None:
    """Return the major version of CUDA that a package of TensorRT is built for; None where its name does not say.

    >>> cuda_of_package("tensorrt-cu13"), cuda_of_package("tensorrt")
    (13, None)
    """
    found = re.search(r"-cu(\d+)$", package)
    return int(found[1]) if found else None


def find_conflict(
    capability: tuple[int, int],
    tensorrt_version: str,
    cuda_version: tuple[int, int] | None,
    *,
    built_for: int | None = None,
) -> Conflict | None:
    """Return what keeps a version of TensorRT from running on a GPU; None where nothing known does.

    Args:
        capability: the GPU's compute capability.
        tensorrt_version: as installed; empty where none is.
        cuda_version: what the driver speaks; None where it does not say.
        built_for: the major version of CUDA TensorRT was built for, where its package's name says.
    """
    cuda = 12 if cuda_version is None else cuda_version[0]
    found = tensorrt_range(capability, cuda=cuda)
    gpu = f"compute capability {_text(capability)} ({found.architecture})"
    command = f"pip install {found.pin}" if found.pin else ""
    version = version_of(tensorrt_version)
    if found.below is not None and found.below <= LOWEST:
        return Conflict(f"{gpu} runs on no TensorRT that lanaprof can use: {found.reason}", "")
    if not version:
        return Conflict(f"TensorRT is not installed; {gpu} runs on {found.text}", command)
    installed = f"TensorRT {tensorrt_version} is installed"
    if version < LOWEST:
        return Conflict(f"{installed}; lanaprof needs {_text(LOWEST)} or newer", command)
    if found.below is not None and version >= found.below:
        return Conflict(f"{installed}; {gpu} runs on {found.text}: {found.reason}", command)
    if found.lowest is not None and version < found.lowest:
        return Conflict(f"{installed}; {gpu} runs on {found.text}: {found.reason}", command)
    if built_for == 13 and capability <= _VOLTA:
        return Conflict(f"{installed}, built for CUDA 13, which has no code for {gpu}", command)
    return _cuda_conflict(installed, version, cuda_version, built_for, command)


def _cuda_conflict(
    installed: str,
    version: Version,
    cuda_version: tuple[int, int] | None,
    built_for: int | None,
    command: str,
) -> Conflict | None:
    """Return whether the driver is too old; a newer one runs what was built for older CUDA."""
    if cuda_version is None:
        return None
    speaks = f"the driver speaks CUDA {_text(cuda_version)}"
    if built_for is not None and built_for > cuda_version[0]:
        update = "update the driver" + (f", or {command}" if command else "")
        return Conflict(f"{installed}, built for CUDA {built_for}, but {speaks}", update)
    if built_for is None and version >= _CUDA_11_DROPPED and cuda_version < (12, 0):
        update = "update the driver" + (f", or {command}" if command else "")
        return Conflict(f"{installed}, which needs CUDA 12 or newer, but {speaks}", update)
    return None


def check(
    capability: tuple[int, int],
    tensorrt_version: str,
    cuda_version: tuple[int, int] | None,
    *,
    built_for: int | None = None,
) -> str | None:
    """Return what is wrong with the exact command to type, in one line; None where nothing known is wrong.

    The arguments are those of :func:`find_conflict`.

    >>> print(check((7, 0), "11.4.0.106", (12, 4)))
    TensorRT 11.4.0.106 is installed; compute capability 7.0 (Volta) runs on TensorRT 8.6 up to, not including, \
10.5: TensorRT 10.5 removed Volta. Type: pip install tensorrt-cu12==10.4.0
    >>> check((7, 0), "10.4.0", (12, 4))
    """
    conflict = find_conflict(capability, tensorrt_version, cuda_version, built_for=built_for)
    if conflict is None:
        return None
    return conflict.message + (f". Type: {conflict.command}" if conflict.command else "")


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)
