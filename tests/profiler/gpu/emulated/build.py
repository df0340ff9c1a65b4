"""Builds what the tests of the driver door need: emulated drivers, and the real PyCUDA linked against them.

All go into ``build/emulated-cuda`` of the checkout, once per version of what they are made of. The driver needs a C
compiler and NVIDIA's headers (the wheels nvidia-cuda-runtime and nvidia-cuda-profiler-api, of the extra ``test``);
PyCUDA comes as source only, and needs a C++ compiler, the Python headers, and the package index beside.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

__all__ = ["CannotBuild", "emulated_driver", "emulated_pycuda"]

HERE = Path(__file__).parent
PYCUDA = "2026.1"
# What PyCUDA is built with: no library but the driver's, which is ours.
_SITECONF = """
USE_SHIPPED_BOOST = True
CUDA_ROOT = {headers!r}
CUDA_INC_DIR = {headers!r}
CUDA_ENABLE_GL = False
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = [{library!r}]
CUDADRV_LIBNAME = ["cuda"]
CXXFLAGS = ["-O0", "-w"]
LDFLAGS = []
"""


class CannotBuild(Exception):
    """Something is missing on this machine; the text says what."""


class _Failed(Exception):
    """A program that ended with an error; its last words."""


def emulated_driver(cache: Path | None = None) -> Path:
    """Return the folder with the emulated ``libcuda.so.1`` and ``libnvidia-ml.so.1``, for LD_LIBRARY_PATH.

    Raises:
        CannotBuild: there is no compiler, or no header.
    """
    source, watched = HERE / "emulated_cuda.c", HERE / "emulated_nvml.c"
    headers = _headers("nvidia-cuda-runtime", "cuda.h")
    profiler = _headers("nvidia-cuda-profiler-api", "cudaProfiler.h")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise CannotBuild("the emulated CUDA driver needs Linux and a C compiler (gcc)")
    made_of = (source, watched, Path(__file__), headers / "cuda.h")
    key = _digest(*(path.read_bytes() for path in made_of))

    def build(folder: Path) -> None:
        flags = ["-std=c11", "-O1", "-fPIC", f"-I{headers}", f"-I{profiler}"]
        # With this macro cuda.h declares the older versions of functions beside the newest.
        every_version = ["-D__CUDA_API_VERSION_INTERNAL", *flags]
        declared = _run([compiler, "-E", *every_version, str(profiler / "cudaProfiler.h")])  # includes cuda.h
        names = sorted(set(re.findall(r"CUresult\s+(cu\w+)\s*\(", declared)))
        stub = '__attribute__((weak, alias("emulated_unsupported"))) int {}(void);\n'
        whole = "int emulated_unsupported(void) { return 801; }\n" + "".join(
            stub.format(name) for name in names
        )
        (folder / "stubs.c").write_text(whole, encoding="utf-8")
        _run([compiler, *flags, "-c", str(source), "-o", f"{folder}/cuda.o"])
        _run([compiler, "-O1", "-fPIC", "-c", f"{folder}/stubs.c", "-o", f"{folder}/stubs.o"])
        _run([compiler, "-shared", "-Wl,-soname,libcuda.so.1", "-o", f"{folder}/libcuda.so.1",
              f"{folder}/cuda.o", f"{folder}/stubs.o", "-ldl"])  # fmt: skip
        _run([compiler, *flags, "-shared", "-Wl,-soname,libnvidia-ml.so.1",
              "-o", f"{folder}/libnvidia-ml.so.1", str(watched)])  # fmt: skip
        (folder / "libcuda.so").symlink_to("libcuda.so.1")  # the name that linkers look for

    return _once(cache or _cache(), f"driver-{key}", build)


def emulated_pycuda(cache: Path | None = None) -> Path:
    """Return a folder for PYTHONPATH that holds PyCUDA; to import it, the emulated driver must be found.

    Raises:
        CannotBuild: there is no compiler, no header, or no package index.
    """
    cache = cache or _cache()
    library = emulated_driver(cache)
    headers = _headers("nvidia-cuda-runtime", "cuda.h")
    profiler = _headers("nvidia-cuda-profiler-api", "cudaProfiler.h")
    if shutil.which("g++") is None and shutil.which("c++") is None:
        raise CannotBuild("PyCUDA needs a C++ compiler (g++)")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        raise CannotBuild("PyCUDA needs the headers of Python (Python.h)")
    numpy = version("numpy")
    key = _digest(PYCUDA, sys.version, numpy, (headers / "cuda.h").read_bytes(), _SITECONF)

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="lanaprof-pycuda-") as name:
            work = Path(name)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
            _run([*pip, "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary=pycuda",
                  f"--dest={work}", f"pycuda=={PYCUDA}"])  # fmt: skip
            with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
                archive.extractall(work, filter="data")
            unpacked = next(path for path in work.glob("pycuda-*") if path.is_dir())
            settings = _SITECONF.format(headers=[str(headers), str(profiler)], library=str(library))
            (unpacked / "siteconf.py").write_text(settings, encoding="utf-8")
            _run([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                  f"--target={folder}", str(unpacked)])  # fmt: skip

    try:
        return _once(cache, f"pycuda-{key}", build)
    except _Failed as error:  # no package index here, or PyCUDA and this compiler do not get on
        raise CannotBuild(f"PyCUDA cannot be built here: {error}") from error


def _cache() -> Path:
    return HERE.parents[3] / "build" / "emulated-cuda"


def _headers(package: str, header: str) -> Path:
    """Return the folder in which a wheel keeps a header."""
    try:
        found = [file for file in files(package) or () if file.name == header]
    except PackageNotFoundError:
        found = []
    if not found:
        raise CannotBuild(f"NVIDIA's {header} is not here: pip install 'lanaprof[test]' ({package})")
    return Path(str(found[0].locate())).resolve().parent


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else part.encode())
    return whole.hexdigest()[:16]


def _run(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise _Failed(f"`{' '.join(words)}` failed: {last}")
    return done.stdout


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold off other test processes that want to build the same."""
    import fcntl  # not on Windows, where nothing is built

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _once(cache: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder that is built whole or not at all."""
    target = cache / name
    with _alone(cache):
        if not target.is_dir():
            unfinished = cache / f"{name}.{os.getpid()}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                build(unfinished)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return target


if __name__ == "__main__":
    print(emulated_driver(), emulated_pycuda(), sep="\n")  # noqa: T201  (a command of its own)
