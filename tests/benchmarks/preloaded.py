"""Starts Python programs from a process that has imported already what most of them import: a fork instead of seconds.

A benchmark's smoke run starts a dozen commands, each of which would spend most of its time on importing torch. Here
benchmark and commands are processes of their own, too, with their own folder, environment, arguments and streams, made
by forking a server that has done nothing but import. What they start themselves, they start as ever.

    python preloaded.py SOCKET      serves until its standard input ends
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["run_forked"]

_HEAVY = ("lanaprof.cli", "numpy", "onnx", "onnxruntime", "pandas", "timm", "torch", "torchvision")
_MOST_BYTES = 1 << 20  # of a request


def run_forked(
    place: str,
    words: Sequence[str],
    *,
    folder: Path,
    streams: tuple[int, int],
    environment: Mapping[str, str],
) -> int:
    """Run ``python WORDS`` by the server at a socket; return its exit code, negative where a signal ended it.

    Args:
        place: the server's socket.
        words: a script and its arguments, or ``-m``, a module and its arguments.
        folder: to run in.
        streams: file descriptors of its standard output and error.
        environment: all of it.
    """
    request = {"words": list(words), "folder": str(folder), "environment": dict(environment)}
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(place)
        socket.send_fds(asking, [json.dumps(request).encode() + b"\n"], list(streams))
        answer = asking.recv(100)
    if not answer:
        raise RuntimeError(f"the server died of {list(words)}")
    return int(answer)


def _serve(place: str) -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    flows = importlib.import_module("lanaprof.flows")
    for module in pkgutil.iter_modules(flows.__path__, "lanaprof.flows."):
        importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that answer
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        print("ready", flush=True)  # noqa: T201 (whoever started it waits for this)
        while select.select([listening, sys.stdin], [], [])[0] == [listening]:
            asked, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(asked, place)
            asked.close()


def _answer(asked: socket.socket, place: str) -> None:
    """Run what is asked for in another fork, and answer with its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(asked, _MOST_BYTES, 2)
    while not message.endswith(b"\n"):
        message += asked.recv(_MOST_BYTES)
    child = os.fork()
    if child == 0:
        asked.close()
        code = 1
        try:
            code = _run(json.loads(message), streams, place)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    asked.sendall(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(request: Mapping[str, Any], streams: Sequence[int], place: str) -> int:
    """Be the program; return its exit code."""
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()
    sys.modules["numpy"].random.seed()
    _fork_commands(place)
    try:
        first, *rest = request["words"]
        if first == "-m":
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(first).parent))
            sys.argv = request["words"]
            runpy.run_path(first, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _fork_commands(place: str) -> None:
    """Let lanaprof's commands that a benchmark starts come from the server, too."""
    from lanaprof.flows import demo

    def run(
        command: Sequence[str], *, stdout: int, check: bool, text: bool, cwd: Path = Path()
    ) -> subprocess.CompletedProcess[str]:
        assert (command[0], stdout, text) == (sys.executable, subprocess.PIPE, True)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            streams = (file.fileno(), sys.stderr.fileno())
            code = run_forked(
                place, command[1:], folder=cwd.resolve(), streams=streams, environment=os.environ
            )
            file.seek(0)
            done = subprocess.CompletedProcess(list(command), code, file.read())
        if check:
            done.check_returncode()
        return done

    vars(demo)["subprocess"] = SimpleNamespace(run=run, PIPE=subprocess.PIPE)


if __name__ == "__main__":
    _serve(sys.argv[1])
