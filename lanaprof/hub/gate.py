"""What every request passes, before anything of it is believed: address, token, size; and what every answer bears.

Everything under ``/api/`` needs a token, whatever route it is or becomes: what is open is named here, one by one. The
token is looked at before the body is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from math import ceil
from typing import Any

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lanaprof.errors import LanaprofError
from lanaprof.hub.ledger import Token
from lanaprof.hub.limits import Bucket
from lanaprof.hub.problems import RequestProblem, answer, problem_from_error
from lanaprof.hub.state import Hub

__all__ = ["API", "BUNDLE_PATH", "Gate", "token_of"]

API = "/api/v1"
BUNDLE_PATH = f"{API}/bundle"
_OPEN = frozenset([f"{API}/openapi.json"])  # under /api/, and readable by everyone
_GUARDED = frozenset(["/metrics"])  # elsewhere, and not
_LONGEST_SECRET = 200  # characters; ours have 52
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would hide from our own forms where they come from
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # No script or style but the hub's own files, no form but to the hub itself.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
log = logging.getLogger("lanaprof.hub")


def token_of(request: Request) -> Token:
    """Return who asks; the gate has let them in."""
    token: Token = request.scope["lanaprof.token"]
    return token


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, hub: Hub) -> None:
        self._app = app
        self._hub = hub
        limits = hub.limits
        self._addresses = Bucket(limits.address_per_s, limits.address_burst)
        self._tokens = Bucket(limits.token_per_s, limits.token_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(scope, message, time.monotonic() - began_s)
            await send(message)

        try:
            try:
                await self._check(scope)
                await self._app(scope, self._limited(scope, receive), sending)
            except RequestProblem as problem:
                await answer(problem)(scope, receive, sending)
        finally:
            route = (
                getattr(scope.get("route"), "path", "") or "other"
            )  # a pattern: no visitor makes new names
            self._hub.metrics.count_request(route, scope["method"], status, time.monotonic() - began_s)

    @staticmethod
    def _dress(scope: Scope, message: MutableMapping[str, Any], time_s: float) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        headers["Server-Timing"] = f"total;dur={time_s * 1e3:.1f}"  # milliseconds; browsers show it
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if scope.get("scheme") == "https":
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    async def _check(self, scope: Scope) -> None:
        """Let a request in, or raise the problem it is answered with."""
        address = address_of(scope)
        _demand_room(self._addresses, address, "this address")
        headers = Headers(scope=scope)
        self._check_length(scope, headers)
        path = scope["path"]
        if (path.startswith("/api") and path not in _OPEN) or path in _GUARDED:
            scope["lanaprof.token"] = await self._authorised(headers, address)

    async def _authorised(self, headers: Headers, address: str) -> Token:
        if self._hub.failures.wait_s(address, take=0):
            self._hub.metrics.count_denied("too many failures")
            _demand_room(
                self._hub.failures, address, "this address: too many requests without a token that counts"
            )
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        problem = "this needs a token"
        if scheme.lower() == "bearer" and 0 < len(secret.strip()) <= _LONGEST_SECRET:
            try:
                token = await run_sync(self._hub.ledger.find_token, secret.strip())
            except LanaprofError as error:
                log.exception("the ledger failed")
                raise problem_from_error(error, str(self._hub.ledger.path)) from error
            if token is not None and token.is_valid(self._hub.ledger.now_s()):
                _demand_room(self._tokens, token.id, "this token")
                return token
            problem = "this token is unknown"
            if token is not None:  # who holds the secret may know what became of it
                problem = (
                    "this token has been revoked" if token.revoked_s is not None else "this token has expired"
                )
        self._hub.failures.wait_s(address)
        self._hub.metrics.count_denied(problem)
        raise RequestProblem(
            401,
            problem,
            hint="send `Authorization: Bearer TOKEN`; the hub's owner makes tokens: lanaprof hub token new NAME",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _most_bytes(self, scope: Scope) -> int:
        whole = scope["path"] == BUNDLE_PATH
        return self._hub.limits.body_bytes if whole else self._hub.limits.request_bytes

    def _check_length(self, scope: Scope, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length and (not length.isascii() or not length.isdigit()):
            raise RequestProblem(400, "Content-Length is no number")
        if length and int(length[:20]) > self._most_bytes(scope):
            raise _too_large(self._most_bytes(scope))

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return what receives a body of no stated length, and ends it where it is too long."""
        most, total = self._most_bytes(scope), 0

        async def receiving() -> Message:
            nonlocal total
            message = await receive()
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > most:
                    raise _too_large(most)
            return message

        return receiving


def address_of(scope: Scope) -> str:
    """Return where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _demand_room(bucket: Bucket, key: str, who: str) -> None:
    wait_s = bucket.wait_s(key)
    if wait_s:
        seconds = max(1, ceil(wait_s))
        raise RequestProblem(
            429,
            f"too many requests of {who}",
            hint=f"wait {seconds} s",
            headers={"Retry-After": str(seconds)},
        )


def _too_large(most: int) -> RequestProblem:
    text = f"the body is larger than {most} bytes"
    return RequestProblem(
        413, text, hint="send it in parts, as `lanaprof push` does", headers={"Connection": "close"}
    )
