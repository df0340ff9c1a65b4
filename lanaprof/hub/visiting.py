"""Browsers: who may see the pages, signing in with a token, signing out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from lanaprof.hub.asking import Here
from lanaprof.hub.gate import address_of
from lanaprof.hub.ledger import SESSION_S, Token
from lanaprof.hub.problems import RequestProblem
from lanaprof.hub.rendering import Visitor, render
from lanaprof.hub.state import Hub

__all__ = ["COOKIE", "Seen", "SignInFirst", "router"]

COOKIE = "lanaprof_session"
_LONGEST = 200  # characters of a token
router = APIRouter(include_in_schema=False)


class SignInFirst(Exception):
    """A page that is not for everybody was asked for by nobody."""


def visitor_of(request: Request, hub: Here) -> Visitor:
    """Return who looks at a page.

    Raises:
        SignInFirst: the hub is not public, and no session counts.
    """
    secret = request.cookies.get(COOKIE, "")
    token = hub.ledger.find_session(secret) if 0 < len(secret) <= _LONGEST else None
    if token is None and not hub.public:
        raise SignInFirst
    return Visitor(name=token.name if token is not None else "")


Seen = Annotated[Visitor, Depends(visitor_of)]


@router.get("/signin", response_class=HTMLResponse)
def ask() -> HTMLResponse:
    """Return the form for a token."""
    return render("signin.html", Visitor(), title="Sign in")


@router.post("/signin")
async def sign_in(request: Request, hub: Here) -> Response:
    """Begin a session for a token that counts."""
    _demand_own_form(request)
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=5)
    secret = fields.get("token", [""])[0].strip()
    found = await run_sync(_begin, hub, secret, address_of(request.scope))
    if found is None:
        problem = "This token does not count: it is unknown, expired or revoked."
        return render("signin.html", Visitor(), title="Sign in", problem=problem, status=401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, found, max_age=int(SESSION_S), path="/", secure=hub.secure, httponly=True, samesite="lax"
    )
    return answer


def _begin(hub: Hub, secret: str, address: str) -> str | None:
    wait_s = hub.failures.wait_s(address, take=0)
    if wait_s:
        raise RequestProblem(429, "too many attempts from this address", hint=f"wait {wait_s:.0f} s")
    token: Token | None = hub.ledger.find_token(secret) if 0 < len(secret) <= _LONGEST else None
    if token is None or not token.is_valid(hub.ledger.now_s()):
        hub.failures.wait_s(address)
        hub.metrics.count_denied("sign-in")
        return None
    return hub.ledger.sign_in(token)


@router.post("/signout")
def sign_out(request: Request, hub: Here) -> Response:
    """End the session."""
    _demand_own_form(request)
    secret = request.cookies.get(COOKIE, "")
    if secret:
        hub.ledger.sign_out(secret)
    answer = RedirectResponse("/signin", 303)
    answer.delete_cookie(COOKIE, path="/", secure=hub.secure, httponly=True, samesite="lax")
    return answer


def _demand_own_form(request: Request) -> None:
    """Refuse a form that another site sent: it would sign its visitors in as somebody else, or out."""
    site = request.headers.get(
        "sec-fetch-site"
    )  # browsers send it over https and on one machine; no page can set it
    origin = request.headers.get("origin", "")
    own = urlsplit(origin).netloc == request.headers.get("host")
    if not (own if site is None else site == "same-origin"):
        raise RequestProblem(403, "this form was not sent from the hub's own page")
