"""The contract of the door to CUDA: the real PyCUDA and the real cuda-bindings, over an emulated driver.

Each program runs in a process of its own, with warnings as errors. What PyCUDA needs is built once; where it cannot be,
its half is skipped and says why.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lanaprof.errors import BackendError
from lanaprof.profiler.gpu.failures import CaptureRefused, DeviceLost, OutOfDeviceMemory, error_from_code

Emulated = Callable[..., str]

OPEN = """
import ctypes, gc
import numpy as np
from lanaprof.errors import BackendError, LanaprofError
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.driver import *
from lanaprof.profiler.gpu.drivers import *
driver = open_driver()
emulator = ctypes.CDLL("libcuda.so.1")
def told(work):
    try:
        work()
    except LanaprofError as error:
        print(type(error).__name__, error.message)
"""


@pytest.fixture(params=["pycuda", "cuda-bindings"])
def over(request: pytest.FixtureRequest, emulated: Emulated) -> Emulated:
    """Return a function that runs a program with an open driver of one of the packages, and gives what it prints."""
    path: Path | None = None
    begin = ""
    if request.param == "pycuda":
        path = request.getfixturevalue("pycuda_path")
    else:
        begin = "import sys; sys.modules['pycuda'] = None\n"  # as where it is not installed
    check = f"assert driver.name == {request.param!r}, driver.name\n"

    def run(code: str, **variables: str) -> str:
        return emulated(begin + OPEN + check + textwrap.dedent(code), path=path, **variables)

    return run


def test_what_is_written_is_read(over: Emulated) -> None:
    """Any type and shape, from arrays of any layout; reading gives a copy."""
    printed = over(
        """
        values = np.arange(24, dtype=np.float16).reshape(2, 3, 4)[:, ::-1]
        memory = driver.allocate(values.nbytes)
        driver.write(memory, values)
        back = driver.read(memory, "float16", (2, 3, 4))
        driver.write(memory, -values)
        print(np.array_equal(back, values), memory.size_bytes, memory.pointer % 256)
        told(lambda: driver.write(memory, np.zeros(100)))
        told(lambda: driver.read(memory, "float64", (100,)))
        """
    )

    first, *refused = printed.splitlines()
    assert first == "True 48 0"
    assert [line.split()[0] for line in refused] == ["BackendError", "BackendError"]


def test_work_goes_through_streams(over: Emulated) -> None:
    """Filling and copying on the device, in order."""
    printed = over(
        """
        stream, one, two = driver.stream(), driver.allocate(1000), driver.allocate(1000)
        driver.fill(one, 7, stream)
        driver.copy(two, one, stream)
        driver.fill(one, 9, stream)
        stream.synchronize()
        print(set(driver.read(one, "uint8", (1000,)).tolist()), set(driver.read(two, "uint8", (1000,)).tolist()))
        """
    )

    assert printed == "{9} {7}\n"


def test_events_tell_the_gpus_time(over: Emulated) -> None:
    """Seconds, however CUDA tells them: a fill of 10⁶ bytes takes the emulator 1 µs and 1 ns per 1000 bytes."""
    printed = over(
        """
        stream, memory = driver.stream(), driver.allocate(1_000_000)
        begin, end = driver.event(), driver.event()
        driver.fill(memory, 0, stream)
        begin.record(stream)
        driver.fill(memory, 1, stream)
        end.record(stream)
        end.synchronize()
        print(round(driver.elapsed_s(begin, end) * 1e9))
        """,
        EMULATED_CUDA_CALL_NS="0",
    )

    assert printed == "2000\n"


def test_a_graph_runs_when_it_is_launched(over: Emulated) -> None:
    """Capturing runs nothing; every launch runs all of it."""
    printed = over(
        """
        stream, one, two = driver.stream(), driver.allocate(8), driver.allocate(8)
        driver.write(one, np.full(8, 5, np.uint8)); driver.write(two, np.zeros(8, np.uint8))
        def work(stream):
            driver.copy(two, one, stream)
            driver.fill(one, 6, stream)
        graph = driver.capture(stream, work)
        for _ in range(3):
            print(driver.read(one, "uint8", (1,))[0], driver.read(two, "uint8", (1,))[0])
            graph.launch(stream)
        """
    )

    assert printed.splitlines() == ["5 0", "6 5", "6 6"]


@pytest.mark.parametrize("work", ["stream.synchronize()", "driver.allocate(8)", "driver.synchronize()"])
def test_what_cannot_be_captured_is_refused(over: Emulated, work: str) -> None:
    """Waiting and allocating; the stream is as good as before, and nothing is left behind."""
    printed = over(
        f"""
        stream, memory = driver.stream(), driver.allocate(8)
        told(lambda: driver.capture(stream, lambda stream: {work}))
        driver.capture(stream, lambda stream: driver.fill(memory, 3, stream)).launch(stream)
        print(driver.read(memory, "uint8", (1,))[0], emulator.emulated_live_graphs())
        """
    )

    refusal, after = printed.splitlines()
    assert refusal.startswith("CaptureRefused cu")
    assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in refusal
    assert after == "3 0"


def test_an_error_while_capturing_is_its_own(over: Emulated) -> None:
    """What a runtime raises comes through, and the recording is thrown away."""
    printed = over(
        """
        stream, memory = driver.stream(), driver.allocate(8)
        def work(stream):
            driver.fill(memory, 3, stream)
            raise KeyError("the runtime's own")
        try:
            driver.capture(stream, work)
        except KeyError as error:
            print(error, gc.isenabled(), emulator.emulated_live_graphs())
        driver.fill(memory, 4, stream)
        print(driver.read(memory, "uint8", (1,))[0])
        """
    )

    assert printed.splitlines() == ['"the runtime\'s own" True 0', "4"]


def test_a_full_gpu_goes_on(over: Emulated) -> None:
    """What does not fit is one operator's failure; what fits goes on, and freed memory is there again."""
    printed = over(
        """
        first = driver.allocate(600)
        told(lambda: driver.allocate(600))
        second = driver.allocate(400)
        print(driver.memory_bytes())
        first.close(); first.close(); del second
        print(driver.memory_bytes(), driver.allocate(1000).size_bytes)
        """,
        EMULATED_CUDA_MEMORY="1000",
    )

    assert printed.splitlines() == [
        "OutOfDeviceMemory cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (out of memory)",
        "(0, 1000)",
        "(1000, 1000) 1000",
    ]


@pytest.mark.parametrize("code", [700, 719, 999])
def test_a_lost_gpu_is_said_and_survived(over: Emulated, code: int) -> None:
    """Every later call says so too; closing raises nothing, and the process ends in its own time."""
    printed = over(
        """
        stream, memory = driver.stream(), driver.allocate(8)
        told(stream.synchronize)
        told(lambda: driver.fill(memory, 1, stream))
        told(lambda: driver.allocate(8))
        driver.close()
        print("closed")
        """,
        EMULATED_CUDA_FAIL=f"cuStreamSynchronize:1:{code}",
    )

    assert [line.split()[0] for line in printed.splitlines()] == ["DeviceLost"] * 3 + ["closed"]


def test_other_errors_have_cudas_name(over: Emulated) -> None:
    """One that is neither memory nor loss is an error of the operator."""
    printed = over(
        """
        stream, memory = driver.stream(), driver.allocate(8)
        told(lambda: driver.fill(memory, 1, stream))
        driver.fill(memory, 1, stream)
        """,
        EMULATED_CUDA_FAIL="cuMemsetD8Async:1!:701",
    )

    name, _, message = printed.strip().partition(" ")
    assert name == "BackendError"
    assert message == (
        "cuMemsetD8Async: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (too many resources requested for launch)"
    )


def test_everything_is_given_back(over: Emulated) -> None:
    """When it is dropped; the context with the driver."""
    printed = over(
        """
        def work():
            stream, memory, event = driver.stream(), driver.allocate(8), driver.event()
            driver.capture(stream, lambda stream: driver.fill(memory, 1, stream)).launch(stream)
            stream.synchronize()
        def left():
            names = ("streams", "events", "graphs")
            counts = [getattr(emulator, f"emulated_live_{name}")() for name in names]
            return [*counts, emulator.emulated_used_bytes(0), emulator.emulated_retained(0)]
        work(); gc.collect()
        print(left())
        with driver:
            pass
        driver.close()
        print(left())
        """
    )

    assert printed.splitlines() == ["[0, 0, 0, 0, 1]", "[0, 0, 0, 0, 0]"]


def test_a_driver_left_open_ends_with_its_process(over: Emulated) -> None:
    """PyCUDA alone aborts a process that forgets a context; what outlives the driver is no trouble either."""
    assert over("stream, memory = driver.stream(), driver.allocate(8)\nprint('end')") == "end\n"


def test_the_host_polls(over: Emulated) -> None:
    """The primary context is asked to spin: CU_CTX_SCHED_SPIN is 1."""
    printed = over(
        """
        flags, active = ctypes.c_uint(), ctypes.c_int()
        emulator.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
        print(driver.spins, flags.value, active.value)
        """
    )

    assert printed == "True 1 1\n"


def test_a_gpu_is_opened_by_its_id(over: Emulated) -> None:
    """Of two visible ones, in an order of their own; memory is taken there."""
    printed = over(
        """
        from lanaprof.profiler.gpu.probe import find_gpus
        driver.close()
        other = open_driver(find_gpus()[1].uuid)
        memory = other.allocate(100)
        print(other.gpu.name, emulator.emulated_used_bytes(0), emulator.emulated_used_bytes(1))
        told(lambda: open_driver(2))
        """,
        EMULATED_CUDA_DEVICES="2",
        CUDA_VISIBLE_DEVICES="1,0",
    )

    opened, refused = printed.splitlines()
    assert opened == "Emulated GPU 0 0 100"
    assert refused.startswith("DeviceUnavailable there is no GPU 2 here; there are: 0 (Emulated GPU 1")


def test_the_clock_times_graphs(over: Emulated) -> None:
    """The whole protocol over the real package: hot, cold, and without graphs, where the host is the bottleneck."""
    program = """
        stream, memory = driver.stream(), driver.allocate(1_000_000)
        call = GpuCall(stream, lambda stream: driver.fill(memory, 1, stream))
        for cold in (False, True):
            clock = GpuClock(driver, cold=cold)
            sample = clock.sample(call)
            told = clock.report()
            print(sample.wall_ns, sample.switches, told.plain, round(1e9 * (told.flush_s or 0)))
    """
    variables = {
        "EMULATED_CUDA_CALL_NS": "5000",
        "EMULATED_CUDA_NODE_NS": "1000",
        "EMULATED_CUDA_BYTES_NS": "1000",
    }

    with_graphs = over(program, **variables)
    without = over(program, EMULATED_CUDA_FAIL="cuStreamBeginCapture:1:900", **variables)

    # A fill: 1 µs and 1 ns per 1000 bytes; the cache: 6 MiB. Enqueued one by one, a run takes the host 5 µs, and one
    # with its fill 10 µs; as the GPU has yet to do what was enqueued before, the host's pace shows little there.
    assert with_graphs.splitlines() == ["2000 0 0 0", "2000 0 0 7291"]
    hot, cold = ([int(number) for number in line.split()] for line in without.splitlines())
    assert hot == [5000, 0, 1, 0]
    assert (abs(cold[0] - 2000) < 20, cold[1:3], abs(cold[3] - 7291) < 20) == (True, [0, 1], True)


def test_a_driver_older_than_cuda_bindings_says_what_to_install(emulated: Emulated) -> None:
    """A function the driver lacks is an error with the version to ask for, not a crash."""
    printed = emulated(
        "import sys; sys.modules['pycuda'] = None\n" + OPEN + textwrap.dedent(
            """
            stream, begin = driver.stream(), driver.event()
            begin.record(stream)
            try:
                driver.elapsed_s(begin, begin)
            except BackendError as error:
                print(error.message, "|", error.hint)
            """
        ),
        EMULATED_CUDA_LACKS="cuEventElapsedTime", EMULATED_CUDA_VERSION="12040",
    )  # fmt: skip

    assert "cuEventElapsedTime_v2" in printed
    assert printed.endswith("this driver speaks CUDA 12.4 | pip install 'cuda-bindings<=12.4.99'\n")


def test_pycuda_comes_first(emulated: Emulated, pycuda_path: Path) -> None:
    """Then cuda-bindings; without either, what to install."""
    program = """
        import sys
        for missing in {missing!r}: sys.modules[missing] = None
        from lanaprof.errors import BackendUnavailable
        from lanaprof.profiler.gpu.drivers import driver_class
        try:
            print(driver_class().name)
        except BackendUnavailable as error:
            print(error.message, "|", error.hint)
    """
    chosen = partial(emulated, path=pycuda_path)

    assert chosen(program.format(missing=[])) == "pycuda\n"
    assert chosen(program.format(missing=["pycuda"])) == "cuda-bindings\n"
    assert chosen(program.format(missing=["cuda", "cuda.bindings"])) == "pycuda\n"
    neither = chosen(program.format(missing=["pycuda", "cuda", "cuda.bindings"]))
    assert "PyCUDA cannot be imported" in neither
    assert "cuda-bindings cannot be imported" in neither
    assert neither.endswith("| pip install 'lanaprof[tensorrt]'\n")


def test_pycuda_alone_runs_without_graphs(emulated: Emulated, pycuda_path: Path) -> None:
    """It has none of its own: the clock enqueues run by run, and says what to install."""
    printed = emulated(
        "import sys; sys.modules['cuda'] = None; sys.modules['cuda.bindings'] = None\n" + OPEN + textwrap.dedent(
            """
            stream, memory = driver.stream(), driver.allocate(1_000_000)
            clock = GpuClock(driver)
            print(clock.sample(GpuCall(stream, lambda stream: driver.fill(memory, 1, stream))).wall_ns)
            print(clock.conditions["graphs"])
            """
        ),
        path=pycuda_path,
    )  # fmt: skip

    taken, told = printed.splitlines()
    assert taken == "5000"
    assert told.startswith("all but 1 of 1: graphs need cuda-bindings, which cannot be imported")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2, OutOfDeviceMemory),
        *((code, DeviceLost) for code in (214, 700, 702, 710, 714, 719, 999)),
        *((code, CaptureRefused) for code in (900, 901, 906)),
        *((code, BackendError) for code in (1, 701, 801)),
    ],
)
def test_a_code_means_an_error(code: int, kind: type[BackendError]) -> None:
    """One operator's failure, or the process's."""
    error = error_from_code(code, call="cuFunction", name="CUDA_NAME", text="in words")

    assert type(error) is kind
    assert error.message == "cuFunction: CUDA_NAME (in words)"
