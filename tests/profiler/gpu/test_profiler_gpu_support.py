"""Which TensorRT runs on which GPU: ranges, pins, and what is said where it does not fit."""

from __future__ import annotations

import pytest

from lanaprof.profiler.gpu.support import check, find_conflict, tensorrt_range, version_of

V100, H100 = (7, 0), (9, 0)


@pytest.mark.parametrize(
    ("capability", "lowest", "below", "pin"),
    [
        ((3, 5), None, (8, 6), ""),
        ((5, 2), None, (8, 6), ""),
        ((6, 1), (8, 6), (10, 0), "tensorrt==8.6.1"),
        ((7, 0), (8, 6), (10, 5), "tensorrt-cu12==10.4.0"),
        ((7, 5), (8, 6), None, "tensorrt-cu12==11.4.0.106"),
        ((8, 0), (8, 6), None, "tensorrt-cu12==11.4.0.106"),
        ((8, 6), (8, 6), None, "tensorrt-cu12==11.4.0.106"),
        ((8, 9), (8, 6), None, "tensorrt-cu12==11.4.0.106"),
        ((9, 0), (8, 6), None, "tensorrt-cu12==11.4.0.106"),
        ((10, 0), (10, 8), None, "tensorrt-cu12==11.4.0.106"),
        ((12, 0), (10, 8), None, "tensorrt-cu12==11.4.0.106"),
        ((12, 1), None, None, ""),
        ((10, 3), None, None, ""),
        ((8, 7), None, None, ""),
    ],
)
def test_every_generation_has_a_range(
    capability: tuple[int, int], lowest: tuple[int, ...] | None, below: tuple[int, ...] | None, pin: str
) -> None:
    """As documented; what is not documented is unknown, not guessed."""
    found = tensorrt_range(capability)

    assert (lowest, below, pin) == (found.lowest, found.below, found.pin)


@pytest.mark.parametrize(
    ("capability", "cuda", "pin"),
    [
        (V100, 11, "tensorrt-cu11==10.4.0"),
        (V100, 13, "tensorrt-cu12==10.4.0"),
        (H100, 11, "tensorrt-cu11==10.13.0.35"),
        (H100, 14, "tensorrt-cu12==11.4.0.106"),
        ((6, 1), 11, ""),
        (H100, 10, ""),
    ],
)
def test_the_pin_is_one_that_the_driver_can_run(capability: tuple[int, int], cuda: int, pin: str) -> None:
    """Built for CUDA that the driver speaks; newer drivers run what was built for older CUDA."""
    assert tensorrt_range(capability, cuda=cuda).pin == pin


@pytest.mark.parametrize(
    ("capability", "version", "cuda", "built_for"),
    [
        (V100, "10.4.0", (12, 4), 12),
        (V100, "10.4.0", (13, 0), 12),
        (V100, "8.6.1", (12, 0), None),
        (V100, "10.4.0", None, None),
        ((6, 1), "8.6.1.post1", (12, 2), None),
        (H100, "11.4.0.106", (12, 9), 12),
        (H100, "11.4.0.106", (13, 0), 13),
        (H100, "10.4.0", (12, 4), 12),
        ((12, 1), "10.4.0", (13, 0), 12),
        (H100, "10.13.0.35", (11, 8), 11),
    ],
)
def test_what_fits_is_not_refused(
    capability: tuple[int, int], version: str, cuda: tuple[int, int] | None, built_for: int | None
) -> None:
    """Nor what nobody knows."""
    assert check(capability, version, cuda, built_for=built_for) is None


@pytest.mark.parametrize(
    ("capability", "version", "cuda", "built_for", "text"),
    [
        (V100, "11.4.0.106", (12, 4), 12,
         "TensorRT 11.4.0.106 is installed; compute capability 7.0 (Volta) runs on TensorRT 8.6 up to, not including, "
         "10.5: TensorRT 10.5 removed Volta. Type: pip install tensorrt-cu12==10.4.0"),
        (V100, "10.5.0", (11, 8), 11,
         "TensorRT 10.5.0 is installed; compute capability 7.0 (Volta) runs on TensorRT 8.6 up to, not including, "
         "10.5: TensorRT 10.5 removed Volta. Type: pip install tensorrt-cu11==10.4.0"),
        (V100, "", (12, 4), None,
         "TensorRT is not installed; compute capability 7.0 (Volta) runs on TensorRT 8.6 up to, not including, 10.5. "
         "Type: pip install tensorrt-cu12==10.4.0"),
        (V100, "10.4.0", (13, 0), 13,
         "TensorRT 10.4.0 is installed, built for CUDA 13, which has no code for compute capability 7.0 (Volta). "
         "Type: pip install tensorrt-cu12==10.4.0"),
        ((6, 1), "10.0.1", (12, 4), 12,
         "TensorRT 10.0.1 is installed; compute capability 6.1 (Pascal) runs on TensorRT 8.6 up to, not including, "
         "10.0: TensorRT 10.0 asks for compute capability 7.0 or higher. Type: pip install tensorrt==8.6.1"),
        ((5, 2), "8.6.1", (12, 4), None,
         "compute capability 5.2 (Maxwell or older) runs on no TensorRT that lanaprof can use: TensorRT 8.5 was the "
         "last for it, and lanaprof needs 8.6"),
        (H100, "8.5.3", (12, 4), None,
         "TensorRT 8.5.3 is installed; lanaprof needs 8.6 or newer. Type: pip install tensorrt-cu12==11.4.0.106"),
        ((12, 0), "10.7.0", (12, 8), 12,
         "TensorRT 10.7.0 is installed; compute capability 12.0 (Blackwell) runs on TensorRT 10.8 or newer: "
         "supported since 10.8. Type: pip install tensorrt-cu12==11.4.0.106"),
        (H100, "11.4.0.106", (12, 4), 13,
         "TensorRT 11.4.0.106 is installed, built for CUDA 13, but the driver speaks CUDA 12.4. "
         "Type: update the driver, or pip install tensorrt-cu12==11.4.0.106"),
        (H100, "11.4.0.106", (11, 8), None,
         "TensorRT 11.4.0.106 is installed, which needs CUDA 12 or newer, but the driver speaks CUDA 11.8. "
         "Type: update the driver, or pip install tensorrt-cu11==10.13.0.35"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_to_type(
    capability: tuple[int, int], version: str, cuda: tuple[int, int], built_for: int | None, text: str
) -> None:
    """What is there, why it does not fit, and the one command."""
    assert check(capability, version, cuda, built_for=built_for) == text


def test_every_pin_fits_what_it_is_for() -> None:
    """What we tell people to install is not refused afterwards."""
    for capability in ((6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)):
        for cuda in (11, 12, 13):
            package, _, version = tensorrt_range(capability, cuda=cuda).pin.partition("==")
            if version:
                assert find_conflict(capability, version, (cuda, 0)) is None, (package, version)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.4.0", (10, 4, 0)), ("8.6.1.post1", (8, 6, 1)), ("11", (11,)), ("", ()), ("dev", ())],
)
def test_versions_are_numbers(text: str, expected: tuple[int, ...]) -> None:
    """So that 10.10 is newer than 10.9."""
    assert version_of(text) == expected
