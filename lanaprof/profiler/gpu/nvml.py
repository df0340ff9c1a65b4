"""What a GPU's clocks do while it is measured, from NVIDIA's management library (NVML, package nvidia-ml-py).

Nothing here is needed to measure: without NVML the conditions are unknown, which is said once. A slice of a GPU (MIG)
has no clock, temperature or power of its own; those of the whole GPU are told, which its other slices share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from lanaprof.profiler.gpu.probe import Gpu

__all__ = [
    "ClockSummary",
    "ClockWatch",
    "GpuState",
    "Nvml",
    "StateSource",
    "find_nvml",
    "open_nvml",
    "reasons_from_bits",
    "why_no_nvml",
]

# nvmlClocksEventReasons of nvml.h, until 12.2 called throttle reasons.
_REASONS: Mapping[int, str] = MappingProxyType({
    0x1: "idle",
    0x2: "applications clocks setting",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability",
})  # fmt: skip
# The others are how somebody set the clocks up, which holds for the whole campaign.
_THROTTLING = frozenset((
    "software power cap", "hardware slowdown", "software thermal slowdown", "hardware thermal slowdown",
    "hardware power brake", "board limit",
))  # fmt: skip
_MHZ = 1e6
_LOWEST_SHARE = 0.75  # of the default clock, as in nvbench's measure_cold.cu
_INSTALL = "pip install nvidia-ml-py"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One reading; what the GPU does not tell is None.

    Attributes:
        sm_clock_hz: of the multiprocessors; ``memory_clock_hz`` of the memory.
        temperature_c: in degrees Celsius.
        power_w: drawn by the whole board.
        reasons: why the clock is what it is, in words; see :func:`reasons_from_bits`.
    """

    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def throttling(self) -> tuple[str, ...]:
        """Return the reasons that slow it down beyond how it was set up: power, heat, the board."""
        return tuple(reason for reason in self.reasons if reason in _THROTTLING)


class StateSource(Protocol):
    """A GPU whose clocks can be read."""

    @property
    def default_sm_hz(self) -> float | None:
        """Return the clock it runs at when nothing holds it back; None when unknown."""
        ...

    def state(self) -> GpuState:
        """Return what it does now."""
        ...


def reasons_from_bits(bits: int) -> tuple[str, ...]:
    """Return in words why a GPU's clock is what it is, from NVML's bit mask.

    >>> reasons_from_bits(0x4 | 0x40)
    ('software power cap', 'hardware thermal slowdown')
    >>> reasons_from_bits(0x1000)
    ('reason 0x1000',)
    """
    found = []
    while bits:
        bit = bits & -bits
        found.append(_REASONS.get(bit, f"reason {bit:#x}"))
        bits -= bit
    return tuple(found)


class Nvml:
    """A GPU as NVML sees it.

    Args:
        library: the module pynvml, initialised.
        uuid: of the GPU or the slice.
    """

    def __init__(self, library: Any, uuid: str) -> None:
        self._library = library
        handle = library.nvmlDeviceGetHandleByUUID(uuid.encode())
        self.is_slice = uuid.startswith("MIG-")
        self._handle = (
            library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle) if self.is_slice else handle
        )

    @property
    def default_sm_hz(self) -> float | None:
        """Return the default applications clock; the highest one where the GPU knows no such thing (GeForce)."""
        library = self._library
        return _hz(
            self._asked("nvmlDeviceGetDefaultApplicationsClock", library.NVML_CLOCK_SM)
            or self._asked("nvmlDeviceGetMaxClockInfo", library.NVML_CLOCK_SM)
        )

    @property
    def application_sm_hz(self) -> float | None:
        """Return the clock that somebody set for applications; None where the GPU knows no such thing."""
        return _hz(self._asked("nvmlDeviceGetApplicationsClock", self._library.NVML_CLOCK_SM))

    @property
    def highest_sm_hz(self) -> float | None:
        """Return the highest clock it may have."""
        return _hz(self._asked("nvmlDeviceGetMaxClockInfo", self._library.NVML_CLOCK_SM))

    @property
    def power_limit_w(self) -> float | None:
        """Return the power at which it slows down."""
        return _watts(self._asked("nvmlDeviceGetEnforcedPowerLimit"))

    @property
    def persistent(self) -> bool | None:
        """Say whether the driver stays loaded when nobody uses the GPU; without, settings of clocks are forgotten."""
        mode = self._asked("nvmlDeviceGetPersistenceMode")
        return None if mode is None else bool(mode)

    def state(self) -> GpuState:
        """Return what it does now; takes a fraction of a millisecond."""
        library = self._library
        bits = self._asked("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # its name before driver 535
            bits = self._asked("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuState(
            sm_clock_hz=_hz(self._asked("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM)),
            memory_clock_hz=_hz(self._asked("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM)),
            temperature_c=self._asked("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU),
            power_w=_watts(self._asked("nvmlDeviceGetPowerUsage")),
            reasons=reasons_from_bits(bits or 0),
        )

    def lock(self, sm_hz: float) -> str:
        """Fix the clock; return why that was not possible, empty when it was."""
        if self.is_slice:
            return "a slice of a GPU shares its clock with the other slices"
        mhz = round(sm_hz / _MHZ)
        return self._done("nvmlDeviceSetGpuLockedClocks", mhz, mhz)

    def unlock(self) -> str:
        """Let the GPU choose its clock again; return why that was not possible, empty when it was."""
        return self._done("nvmlDeviceResetGpuLockedClocks")

    def _asked(self, function: str, *arguments: Any) -> Any:
        """Return an answer; None where this GPU or driver has none, or does not tell us."""
        library = self._library
        try:
            return getattr(library, function)(self._handle, *arguments)
        except library.NVMLError:
            return None

    def _done(self, function: str, *arguments: Any) -> str:
        library = self._library
        try:
            getattr(library, function)(self._handle, *arguments)
        except library.NVMLError as error:
            return str(error)
        return ""


def _hz(mhz: int | None) -> float | None:
    return None if mhz is None else mhz * _MHZ


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


def open_nvml(uuid: str) -> Nvml | str:
    """Return a GPU or a slice as NVML sees it, or why it cannot be watched."""
    try:
        import pynvml  # an optional package
    except ImportError:
        return f"nvidia-ml-py is not installed ({_INSTALL})"
    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, uuid)
    except pynvml.NVMLError as error:
        return f"NVML does not know this GPU ({error})"


def why_no_nvml(gpu: Gpu) -> str:
    """Return why a GPU's clocks cannot be watched; empty when they can."""
    found = open_nvml(gpu.uuid)
    return found if isinstance(found, str) else ""


_said: set[str] = set()


def find_nvml(gpu: Gpu, say: Callable[[str], None]) -> Nvml | None:
    """Return a GPU as NVML sees it; None where it cannot be watched, which is said once in this process.

    Args:
        gpu: the one to watch.
        say: takes a sentence for a person.
    """
    found = open_nvml(gpu.uuid)
    if not isinstance(found, str):
        return found
    if found not in _said:
        _said.add(found)
        say(f"the clocks of {gpu.name} cannot be watched: {found}; throttling will go unnoticed")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSummary:
    """What a watch saw; None where the GPU did not tell.

    Attributes:
        looks: how many readings there were; ``throttled`` how many of them were held back.
        sm_clock_hz: the mean; ``lowest_sm_clock_hz`` the lowest.
        memory_clock_hz: the mean.
        temperature_c: the highest; ``power_w`` likewise.
        reasons: word → in how many readings.
    """

    looks: int = 0
    throttled: int = 0
    sm_clock_hz: float | None = None
    lowest_sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str:
        """Return it in words, for the record of a measurement; empty where the GPU told nothing.

        >>> ClockSummary(looks=40, sm_clock_hz=1.38e9, lowest_sm_clock_hz=1.365e9, temperature_c=61, power_w=212.5).text
        '1380 MHz (lowest 1365), 61 °C, 212 W'
        """
        parts = []
        if self.sm_clock_hz is not None and self.lowest_sm_clock_hz is not None:
            parts.append(f"{self.sm_clock_hz / _MHZ:.0f} MHz (lowest {self.lowest_sm_clock_hz / _MHZ:.0f})")
        if self.memory_clock_hz is not None:
            parts.append(f"memory {self.memory_clock_hz / _MHZ:.0f} MHz")
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.0f} °C")
        if self.power_w is not None:
            parts.append(f"{self.power_w:.0f} W")
        if self.throttled:
            parts.append(f"held back in {self.throttled} of {self.looks} readings")
        parts.extend(f"{reason} in {count}" for reason, count in self.reasons if reason != "idle")
        return ", ".join(parts)


class ClockWatch:
    """Reads a GPU's state beside the samples, judges it, and sums up.

    Args:
        source: the GPU; None where nothing can be known: then nothing is ever held back.
        default_sm_hz: the clock to judge by; the source's own unless given, e.g. where it was fixed.
        lowest_share: below this share of it the GPU counts as throttled.
    """

    def __init__(
        self,
        source: StateSource | None,
        *,
        default_sm_hz: float | None = None,
        lowest_share: float = _LOWEST_SHARE,
    ) -> None:
        self._source, self._lowest_share = source, lowest_share
        self._default_hz = default_sm_hz or (None if source is None else source.default_sm_hz)
        self._states: list[tuple[GpuState, bool]] = []

    def look(self) -> str:
        """Take a reading; return why the GPU is held back right now, empty when it is not."""
        if self._source is None:
            return ""
        state = self._source.state()
        reason = self.why_throttled(state)
        self._states.append((state, bool(reason)))
        return reason

    def why_throttled(self, state: GpuState) -> str:
        """Return why a reading shows a GPU that is held back; empty when it does not."""
        reasons = list(state.throttling)
        lowest_hz = self._lowest_share * (self._default_hz or 0.0)
        if state.sm_clock_hz is not None and state.sm_clock_hz < lowest_hz:
            reasons.append(
                f"clock {state.sm_clock_hz / _MHZ:.0f} MHz of {(self._default_hz or 0) / _MHZ:.0f} MHz"
            )
        return ", ".join(reasons)

    def summary(self) -> ClockSummary:
        """Return what was seen so far."""
        states = [state for state, _ in self._states]
        sm_hz = [state.sm_clock_hz for state in states if state.sm_clock_hz is not None]
        memory_hz = [state.memory_clock_hz for state in states if state.memory_clock_hz is not None]
        return ClockSummary(
            looks=len(states),
            throttled=sum(held_back for _, held_back in self._states),
            sm_clock_hz=sum(sm_hz) / len(sm_hz) if sm_hz else None,
            lowest_sm_clock_hz=min(sm_hz, default=None),
            memory_clock_hz=sum(memory_hz) / len(memory_hz) if memory_hz else None,
            temperature_c=max((s.temperature_c for s in states if s.temperature_c is not None), default=None),
            power_w=max((s.power_w for s in states if s.power_w is not None), default=None),
            reasons=tuple(sorted(Counter(reason for state in states for reason in state.reasons).items())),
        )
