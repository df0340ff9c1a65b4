"""What goes wrong in a request, and the one form in which it is answered: ``{"error": {type, message, hint}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lanaprof.errors import LanaprofError, MissingMeasurement, SchemaMismatch, StoreError, UserError

__all__ = ["RequestProblem", "answer", "problem_from_error"]

_TYPES = {
    400: "BadInput",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "TooLarge",
    429: "TooManyRequests",
    500: "InternalError",
    503: "Unavailable",
}


class RequestProblem(HTTPException):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: what was asked and what is there.
        hint: what to do next; may be empty.
        headers: of the answer.
    """

    def __init__(
        self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.hint = hint


def answer(problem: HTTPException) -> JSONResponse:
    """Return the answer to a request that failed."""
    kind = _TYPES.get(problem.status_code, "BadInput" if problem.status_code < 500 else "InternalError")
    document: dict[str, Any] = {
        "error": {"type": kind, "message": str(problem.detail), "hint": getattr(problem, "hint", "")}
    }
    return JSONResponse(document, problem.status_code, headers=problem.headers)


def problem_from_error(error: LanaprofError, database: str) -> RequestProblem:
    """Return what a reader of the hub is told of an error; where the database lies is not their business."""
    message, hint = (text.replace(database, "the hub's database") for text in (error.message, error.hint))
    if isinstance(error, MissingMeasurement):
        return RequestProblem(404, message, hint="")
    if isinstance(error, StoreError | SchemaMismatch):
        # What a driver says may name hosts, users and files: it is for the owner's log.
        text = "the hub's database cannot be used right now"
        return RequestProblem(503, text, hint="try again; if it stays so, tell the hub's owner")
    if isinstance(error, UserError):
        return RequestProblem(400, message, hint=hint if "lanaprof measure" not in hint else "")
    return RequestProblem(500, "the hub failed", hint="tell its owner; the hub's log says more")
