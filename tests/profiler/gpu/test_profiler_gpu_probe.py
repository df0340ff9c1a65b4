"""What is said of GPUs before any CUDA package is imported, asked of an emulated driver."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable

import pytest

from lanaprof.errors import DeviceUnavailable
from lanaprof.profiler.gpu.probe import driver_version, find_gpus, get_gpu, reason_from_code, why_no_gpu

Emulated = Callable[..., str]

LOOK = """
import dataclasses, json, sys
from lanaprof.profiler.gpu.probe import driver_version, find_gpus, why_no_gpu
gpus = [dataclasses.asdict(gpu) for gpu in find_gpus()]
heavy = [name for name in ("cuda", "numpy", "pycuda", "pynvml", "torch") if name in sys.modules]
print(json.dumps({"gpus": gpus, "why": why_no_gpu(), "version": driver_version(), "heavy": heavy}))
"""


@pytest.mark.parametrize("ask", [find_gpus, driver_version])
def test_without_a_driver_there_is_no_gpu(ask: Callable[[], object]) -> None:
    """Nothing is raised, and the reason can be printed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert not ask()
        assert "no NVIDIA driver" in why_no_gpu()
        with pytest.raises(DeviceUnavailable, match="no NVIDIA driver"):
            get_gpu()
    else:
        pytest.skip("this machine has NVIDIA's driver")


def test_a_gpu_is_described(emulated: Emulated) -> None:
    """Name, capability, id, memory, cache and multiprocessors; nothing but ctypes is imported for it."""
    seen = json.loads(emulated(LOOK))

    assert seen == {
        "gpus": [
            {
                "index": 0,
                "name": "Emulated GPU 0",
                "capability": [7, 0],
                "uuid": "GPU-e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0",
                "memory_bytes": 8 << 30,
                "l2_bytes": 6 << 20,
                "sm_count": 80,
                "mig": False,
            }
        ],
        "why": "",
        "version": [13, 0],
        "heavy": [],
    }


def test_the_driver_tells_the_cuda_it_speaks(emulated: Emulated) -> None:
    """12040 is 12.4."""
    assert json.loads(emulated(LOOK, EMULATED_CUDA_VERSION="12040"))["version"] == [12, 4]


def test_a_slice_is_a_gpu_of_its_own(emulated: Emulated) -> None:
    """Under MIG the second version of the id tells the slice, the first the whole GPU."""
    gpu = json.loads(emulated(LOOK, EMULATED_CUDA_MIG="1"))["gpus"][0]

    assert (gpu["mig"], gpu["uuid"]) == (True, "MIG-30303030-3030-3030-3030-303030303030")


@pytest.mark.parametrize(
    ("visible", "names"),
    [("1,0", ["Emulated GPU 1", "Emulated GPU 0"]), ("1,7,0", ["Emulated GPU 1"]), ("", [])],
)
def test_what_is_hidden_from_cuda_is_not_found(emulated: Emulated, visible: str, names: list[str]) -> None:
    """CUDA_VISIBLE_DEVICES chooses and orders; numbers are those of what is visible."""
    seen = json.loads(emulated(LOOK, EMULATED_CUDA_DEVICES="2", CUDA_VISIBLE_DEVICES=visible))

    assert [gpu["name"] for gpu in seen["gpus"]] == names
    assert [gpu["index"] for gpu in seen["gpus"]] == list(range(len(names)))
    if not names:
        assert seen["why"].endswith('CUDA_VISIBLE_DEVICES="" hides every GPU')


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("100", "CUDA_ERROR_NO_DEVICE): the driver runs, but no GPU is visible"),
        ("803", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH): the driver's library and its kernel module"),
        ("999", "CUDA_ERROR_UNKNOWN): often the kernel module"),
        ("17", "CUDA does not start (CUDA error 17)"),
    ],
)
def test_a_driver_that_does_not_start_says_why(emulated: Emulated, code: str, words: str) -> None:
    """CUDA's own name of the error, and what to do where it is known."""
    seen = json.loads(emulated(LOOK, EMULATED_CUDA_INIT=code))

    assert seen["gpus"] == []
    assert words in seen["why"]


def test_the_reason_names_the_variable_that_hides() -> None:
    """Only an error of no device is its doing."""
    hidden = reason_from_code(100, name="CUDA_ERROR_NO_DEVICE", visible="3")
    other = reason_from_code(802, name="CUDA_ERROR_SYSTEM_NOT_READY", visible="3")

    assert 'CUDA_VISIBLE_DEVICES="3"' in hidden
    assert "fabric manager" in other


def test_a_gpu_is_found_by_its_id(emulated: Emulated) -> None:
    """A process may see it under another number; one that is not there is refused with what is."""
    program = """
        from lanaprof.errors import DeviceUnavailable
        from lanaprof.profiler.gpu.probe import get_gpu
        second = get_gpu("GPU-" + "-".join(("e1" * 4, "e1" * 2, "e1" * 2, "e1" * 2, "e1" * 6)))
        print(second.index, second.name)
        try:
            get_gpu(5)
        except DeviceUnavailable as error:
            print(error.message)
    """
    first, refusal = emulated(program, EMULATED_CUDA_DEVICES="2", CUDA_VISIBLE_DEVICES="1").splitlines()

    assert first == "0 Emulated GPU 1"
    assert refusal.startswith("there is no GPU 5 here; there are: 0 (Emulated GPU 1, GPU-e1e1e1e1")
