"""The hub behind a port."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lanaprof.errors import BackendUnavailable

if TYPE_CHECKING:
    import uvicorn

    from lanaprof.hub.state import Hub

__all__ = ["bound", "make_server", "needs_extra"]

_CONNECTIONS_MOST = 200
_STOP_S = 30  # for what is running when it is told to stop


def make_server(hub: Hub, *, host: str, port: int, proxy: str = "") -> uvicorn.Server:
    """Return a server that is not running yet: ``run()`` serves until it is told to stop.

    Args:
        hub: what it serves; the caller closes its store and ledger.
        host: the address it listens on.
        port: 0 for any that is free.
        proxy: the address of the proxy in front, whose word about visitors' addresses is taken; empty: nobody's.

    Raises:
        BackendUnavailable: the extra is not installed.
    """
    try:
        import uvicorn  # an extra
    except ImportError as error:
        raise needs_extra(error) from None
    from lanaprof.hub.app import make_app

    settings = uvicorn.Config(
        make_app(hub), host=host, port=port, log_level="warning", access_log=False, server_header=False,
        proxy_headers=bool(proxy), forwarded_allow_ips=proxy or None, limit_concurrency=_CONNECTIONS_MOST,
        timeout_keep_alive=5, timeout_graceful_shutdown=_STOP_S, h11_max_incomplete_event_size=2**14,
        ws="none", http="h11",
    )  # fmt: skip
    return uvicorn.Server(settings)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address and not listening yet, so that its port is known before serving.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    family, kind, number, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, number)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a hub that just ended
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def needs_extra(error: ImportError) -> BackendUnavailable:
    """Return the error for a missing package."""
    return BackendUnavailable(
        f"the hub's packages are not installed ({error})", hint='pip install "lanaprof[hub]"'
    )
