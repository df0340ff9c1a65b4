"""What every registered backend says of itself, without its runtime: options, version, what to install."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.backends import backend_class, backend_names
from lanaprof.profiler.backends.registry import BACKENDS

REAL = tuple(backend_names())
NAMES = ("scripted", *REAL)
at = pytest.mark.parametrize


def installed(name: str) -> None:
    """Skip where a backend's runtime is not installed."""
    try:
        backend_class(name).version()
    except BackendUnavailable as error:
        pytest.skip(f"{error.message}: {error.hint}")


@at("name", NAMES)
def test_options_are_sorted_texts(name: str) -> None:
    """They go into the environment's key: equal options give equal text, and threads are no secret."""
    for threads in (1, 4):
        options = backend_class(name).options(threads)

        assert sorted(options) == list(options)
        assert all(isinstance(text, str) and text for pair in options for text in pair)
        assert len(dict(options)) == len(options)


@at("name", NAMES)
def test_the_version_is_told_without_the_runtime(name: str) -> None:
    """`devices` and `doctor` ask every backend: none may load hundreds of megabytes for it."""
    installed(name)
    code = (
        "import sys; from lanaprof.profiler.backends import backend_class\n"
        f"found = backend_class({name!r}); print(found.version(), len(found.options(1)))\n"
        f"print([m for m in (*{REAL!r}, 'onnx', 'torch') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert re.fullmatch(r"\S+ \d+\n\[\]\n", done.stdout), done.stdout


@at("name", BACKENDS)
def test_a_missing_runtime_says_what_to_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is a command."""
    from importlib import metadata

    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)

    with pytest.raises(BackendUnavailable, match="is not installed") as caught:
        backend_class(name).version()

    assert caught.value.hint.startswith("pip install")
