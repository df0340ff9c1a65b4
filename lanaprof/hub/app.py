"""The hub as one application: the gate, the API, the pages, health and metrics."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from lanaprof.errors import LanaprofError
from lanaprof.flows import pages as flows_pages
from lanaprof.hub import comparing, covering, exchanging, exploring, pages, reading, rendering, visiting
from lanaprof.hub.asking import Here
from lanaprof.hub.gate import API, Gate, token_of
from lanaprof.hub.problems import RequestProblem, answer, problem_from_error
from lanaprof.hub.state import Hub

__all__ = ["make_app"]

log = logging.getLogger("lanaprof.hub")
_ERRORS = {
    400: "The request cannot be read.",
    401: "No token, or none that counts.",
    403: "The token may not do this.",
    404: "There is no such thing.",
    413: "The body is too large.",
    429: "Too many requests; Retry-After says how long to wait.",
    503: "The database cannot be used, or the hub is busy.",
}
_PROBLEM = {"$ref": "#/components/schemas/ProblemBody"}


class Problem(BaseModel):
    """What went wrong: the kind, what was asked and what is there, what to do."""

    type: str
    message: str
    hint: str


class ProblemBody(BaseModel):
    """The one form of every error."""

    error: Problem


class Health(BaseModel):
    """The hub and its database answer."""

    status: str


def make_app(hub: Hub) -> FastAPI:
    """Return the application of a hub; whoever runs it closes the hub's store and ledger."""
    app = FastAPI(
        title="lanaprof hub", version="1", openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None,
        description="Latency tables of several teams, by token.",
    )  # fmt: skip
    app.state.hub = hub
    responses: Any = {code: {"model": ProblemBody, "description": text} for code, text in _ERRORS.items()}
    for part in (reading.router, exchanging.router):
        # The gate has looked at the token already; a route it missed would fail here rather than answer.
        app.include_router(part, responses=responses, dependencies=[Depends(token_of)])
    app.add_api_route(
        "/healthz", health, methods=["GET"], responses={503: responses[503], 429: responses[429]}
    )
    app.add_api_route(
        "/metrics", metrics, methods=["GET"], response_class=PlainTextResponse, responses=responses
    )
    for module in (pages, covering, comparing, exploring, visiting, rendering):
        app.include_router(module.router)
    app.add_exception_handler(visiting.SignInFirst, _sign_in_first)
    for kind in (HTTPException, RequestValidationError, LanaprofError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_middleware(Gate, hub=hub)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def health(hub: Here) -> Health:
    """Say whether the hub and its database answer."""
    hub.store.ids("environment", limit=1)
    hub.ledger.events(limit=1)
    return Health(status="ok")


def metrics(hub: Here) -> PlainTextResponse:
    """Return counters, as Prometheus reads them."""
    return PlainTextResponse(hub.metrics.text(hub.counts.get()), media_type="text/plain; version=0.0.4")


async def _sign_in_first(_request: Request, _error: Exception) -> Response:
    return RedirectResponse("/signin", 303)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer every error in one form: a document for programs, a page for browsers."""
    problem = _problem(request, error)
    path = request.url.path
    if path.startswith("/api") or "text/html" not in request.headers.get("accept", ""):
        return answer(problem)
    body = flows_pages.facts([("hint", str(getattr(problem, "hint", "")))])
    return rendering.render(
        "base.html", rendering.Visitor(), title=str(problem.detail), body=body, status=problem.status_code
    )


def _problem(request: Request, error: Exception) -> HTTPException:
    """Return what is told of an error; what is not the visitor's business goes to the log."""
    hub: Hub = request.app.state.hub
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, RequestValidationError):
        return RequestProblem(400, _complaint(error), hint=f"{API}/openapi.json says what is expected")
    if isinstance(error, LanaprofError):
        problem = problem_from_error(error, hub.store.name)
        if problem.status_code >= 500:
            log.error("%s %s: %s", request.method, request.url.path, error.message)
        return problem
    return RequestProblem(500, "the hub failed", hint="tell its owner; the hub's log says more")


def _complaint(error: RequestValidationError) -> str:
    """Return what is wrong with a request, without what was sent: it may be long, or a secret."""
    found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()[:5]]
    return "; ".join(found)[:1_000]


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the API's description, with what the gate does beside what the routes say."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path, methods in document["paths"].items():
            for operation in methods.values():
                operation["responses"].pop("422", None)  # answered by 400, in the one form of every error
                for status, said in operation["responses"].items():
                    if int(status) >= 400:
                        said["content"] = {"application/json": {"schema": _PROBLEM}}
                if path != "/healthz":
                    operation["security"] = [{"token": []}]
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"].get("schemas", {}).pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
