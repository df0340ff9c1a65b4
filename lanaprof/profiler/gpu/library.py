"""NVIDIA's driver library by ctypes: what can be asked of it before any CUDA package is imported.

Its functions return a code; 0 is success. Names, texts and meanings of codes are those of ``cuda.h``.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

__all__ = ["SUCCESS", "CudaLibrary", "open_library"]

SUCCESS = 0
_HIGHEST_CODE = 999  # CUDA_ERROR_UNKNOWN, by definition the last


class CudaLibrary:
    """The loaded library.

    Args:
        loaded: by ctypes.
    """

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded

    def has(self, function: str) -> bool:
        """Say whether this driver has a function; older ones lack newer ones."""
        return hasattr(self._loaded, function)

    def call(self, function: str, *arguments: Any) -> int:
        """Return a function's code.

        Args:
            function: its exported name, e.g. ``cuDeviceTotalMem_v2``.
            arguments: ctypes values; whole numbers count as C's int.

        Raises:
            AttributeError: the driver has no such function.
        """
        code: int = getattr(self._loaded, function)(*arguments)
        return code

    def error_name(self, code: int) -> str:
        """Return CUDA's own name of a code, e.g. ``CUDA_ERROR_OUT_OF_MEMORY``."""
        return self._told("cuGetErrorName", code) or f"CUDA error {code}"

    def error_text(self, code: int) -> str:
        """Return CUDA's own words for a code, e.g. ``out of memory``; empty when it has none."""
        return self._told("cuGetErrorString", code)

    def find_code(self, text: str) -> int | None:
        """Return the code that CUDA describes with these words: PyCUDA's errors carry nothing else."""
        return _codes_by_text(self).get(text)

    def _told(self, function: str, code: int) -> str:
        words = ctypes.c_char_p()
        if self.call(function, code, ctypes.byref(words)) != SUCCESS or words.value is None:
            return ""
        return words.value.decode()


@cache
def _codes_by_text(library: CudaLibrary) -> dict[str, int]:
    texts = ((library.error_text(code), code) for code in range(_HIGHEST_CODE + 1))
    return {text: code for text, code in texts if text}


@cache
def open_library() -> CudaLibrary | None:
    """Return the driver's library; None where no NVIDIA driver is installed."""
    try:
        return CudaLibrary(ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"))
    except OSError:
        return None
