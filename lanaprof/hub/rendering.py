"""Pages as HTML: templates around the parts that reports are made of, and the files they refer to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lanaprof.flows.pages import SCRIPT, STYLE

__all__ = ["Visitor", "render", "router"]

router = APIRouter(include_in_schema=False)
_PLACES = (
    ("Overview", "/"),
    ("Devices", "/devices"),
    ("Environments", "/environments"),
    ("Operators", "/operators"),
    ("Compare", "/compare"),
    ("Frontier", "/frontier"),
)
_MORE_STYLE = """
nav form{display:inline;margin-left:auto}nav button{all:unset;cursor:pointer;color:var(--accent)}
nav button:hover{text-decoration:underline}nav a[aria-current]{color:var(--ink);font-weight:600}
header nav{margin:0 0 1.25rem}td:last-child{white-space:nowrap}figure svg.chart{overflow:visible}
.fields{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end;margin:1rem 0}
.fields label{color:var(--muted);font-size:.87rem;display:block}
.fields fieldset{border:1px solid var(--grid);border-radius:8px;min-width:0;max-width:100%}
.fields input,.fields select,.fields button{font:inherit;color:var(--ink);background:var(--paper);max-width:100%;
border:1px solid var(--muted);border-radius:6px;padding:.35rem .6rem}
.fields input[type=range]{padding:0;width:20rem;accent-color:var(--accent)}
.fields button{cursor:pointer;border-color:var(--accent);color:var(--accent)}
button:focus-visible,input:focus-visible,select:focus-visible{outline:2px solid var(--accent)}
"""

# Moves the mark to the best row within the budget while the slider is moved; rows are sorted by latency.
_BUDGET_SCRIPT = """
const slider = document.getElementById("budget"), said = document.getElementById("said");
const rows = [...document.querySelectorAll("tbody tr")];
slider.addEventListener("input", () => {
  const budget = slider.value * 1e-6;
  const within = rows.filter((row) => Number(row.cells[1].dataset.v) <= budget);
  rows.forEach((row) => row.classList.toggle("own", row === within.at(-1)));
  const text = budget < 1e-3 ? `${slider.value} µs` : `${(budget * 1e3).toPrecision(4)} ms`;
  const cells = within.length ? [...within.at(-1).cells].map((cell) => cell.textContent) : [];
  said.textContent = cells.length
    ? `Within ${text}: score ${cells[2]} at ${cells[1]}, selection ${cells[0]}.`
    : `Within ${text}: none; the fastest takes ${rows[0].cells[1].textContent}.`;
});
"""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page: the name of their token; empty for anybody."""

    name: str = ""


@cache
def _templates() -> Environment:
    return Environment(loader=PackageLoader("lanaprof.hub"), autoescape=True, undefined=StrictUndefined)


def render(
    template: str,
    visitor: Visitor,
    *,
    title: str,
    body: str = "",
    here: str = "",
    status: int = 200,
    **more: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        template: its file.
        visitor: who looks.
        title: plain text.
        body: HTML, made of the parts in `lanaprof.flows.pages`, which escape what they are given.
        here: which of the pages in the navigation it is.
        status: of HTTP.
        more: what the template asks for besides, plain.
    """
    given: dict[str, Any] = {
        "lead": (),
        "problem": "",
        "places": () if title == "Sign in" else _PLACES,
        **more,
    }
    parts = Markup(body)  # noqa: S704 (see above)
    whole = _templates().get_template(template)
    text = whole.render(title=title, body=parts, here=here, visitor=visitor.name, **given)
    return HTMLResponse(text, status)


@router.get("/static/style.css")
def style() -> Response:
    """Return the style sheet of every page."""
    return Response(
        STYLE + _MORE_STYLE, media_type="text/css", headers={"Cache-Control": "public, max-age=3600"}
    )


@router.get("/static/script.js")
def script() -> Response:
    """Return the one script: it makes tables sortable."""
    return Response(SCRIPT, media_type="text/javascript", headers={"Cache-Control": "public, max-age=3600"})


@router.get("/static/budget.js")
def budget_script() -> Response:
    """Return what follows the frontier's slider."""
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(_BUDGET_SCRIPT, media_type="text/javascript", headers=headers)
