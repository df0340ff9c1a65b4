"""Pages as HTML: templates around the parts that reports are made of, and the files they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lanaprof.flows.pages import SCRIPT, STYLE

__all__ = ["Field", "Visitor", "render", "router"]

router = APIRouter(include_in_schema=False)
_PLACES = (
    ("Overview", "/"),
    ("Devices", "/devices"),
    ("Environments", "/environments"),
    ("Operators", "/operators"),
    ("Coverage", "/coverage"),
    ("Compare", "/compare"),
    ("Drift", "/drift"),
    ("Frontier", "/frontier"),
)
_MORE_STYLE = """
nav form{display:inline;margin-left:auto}nav button{all:unset;cursor:pointer;color:var(--accent)}
nav button:hover{text-decoration:underline}nav a[aria-current]{color:var(--ink);font-weight:600}
header nav{margin:0 0 1.25rem}td:last-child{white-space:nowrap}
.fields{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end;margin:1rem 0}
.fields>div{min-width:0;max-width:100%}
.fields label{color:var(--muted);font-size:.87rem;display:block}
.fields fieldset{border:1px solid var(--grid);border-radius:8px;min-width:0;max-width:100%}
.fields input,.fields select,.fields button{font:inherit;color:var(--ink);background:var(--paper);max-width:100%;
border:1px solid var(--muted);border-radius:6px;padding:.35rem .6rem}
.fields input[type=range]{padding:0;width:20rem;accent-color:var(--accent)}
#links{display:flex;gap:1.25rem}.plain{list-style:none;padding:0;margin:.5rem 0}.plain li{margin:.25rem 0}
.fields button{cursor:pointer;border-color:var(--accent);color:var(--accent)}
button:focus-visible,input:focus-visible,select:focus-visible{outline:2px solid var(--accent)}
"""

# Shows another point while the slider is moved; every word is the server's.
_BUDGET_SCRIPT = """
const slider = document.getElementById("budget"), explorer = document.getElementById("explorer");
const data = JSON.parse(explorer.dataset.points);
const body = (label) => explorer.querySelector(`[aria-label="${label}"] tbody`);
const layers = [...body("Layers").rows], points = [...body("Points").rows];
const ring = explorer.querySelector("circle.chosen"), line = explorer.querySelector("polyline.chosen");
const lineAt = Number(line.getAttribute("points").split(/[ ,]/)[1]);
const links = document.getElementById("links");
const show = () => {
  const us = Number(slider.value), within = data.us.filter((each) => each <= us * (1 + 1e-9)).length;
  const at = Math.max(0, within - 1);
  const text = us < 1e3 ? `${Number(us.toPrecision(4))} µs` : `${Number((us / 1e3).toPrecision(4))} ms`;
  slider.setAttribute("aria-valuetext", text);
  document.getElementById("said").textContent = within
    ? `Within ${text}: ${data.said[at]}.`
    : `Within ${text}: none; the fastest takes ${data.least}.`;
  [...document.getElementById("about").children].forEach((item, n) => item.textContent = data.about[at][n]);
  points.forEach((row, n) => row.classList.toggle("own", within > 0 && n === at));
  ring.setAttribute("cx", data.chart[at][0]);
  ring.setAttribute("cy", data.chart[at][1]);
  line.setAttribute("transform", `translate(0 ${data.map[at] - lineAt})`);
  const here = data.rows[at], beside = [data.rows[at - 1] ?? here, data.rows[at + 1] ?? here];
  layers.forEach((row, n) => {
    const changes = beside.map((other) => other[n] === here[n] ? "same" : data.parts[other[n]][0]);
    const texts = [...data.parts[here[n]], ...changes];
    texts.forEach((text, m) => row.cells[m + 1].textContent = text);
    row.classList.toggle("own", changes.some((change) => change !== "same"));
  });
  const there = new URL(location);
  there.searchParams.set("group", document.getElementById("group").value);
  const to = (n) => { there.searchParams.set("budget_us", n); return there.href; };
  links.replaceChildren(...[["Next cheaper", at - 1], ["Next dearer", at + 1]].flatMap(([text, n]) => {
    if (data.us[n] === undefined) return [];
    const link = document.createElement("a");
    link.href = to(data.us[n]);
    link.textContent = text;
    return [link, " "];
  }));
  return to(slider.value);
};
slider.addEventListener("input", show);
slider.addEventListener("change", () => history.replaceState(null, "", show()));
"""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page: the name of their token; empty for anybody."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form that chooses what a page lists.

    Attributes:
        name: of the query's parameter.
        label: what it asks for.
        value: what is chosen.
        options: (value, text) to choose from; None for a free text.
    """

    name: str
    label: str
    value: str
    options: Sequence[tuple[str, str]] | None = None


@cache
def _templates() -> Environment:
    return Environment(loader=PackageLoader("lanaprof.hub"), autoescape=True, undefined=StrictUndefined)


def render(
    template: str,
    visitor: Visitor,
    *,
    title: str,
    body: str = "",
    top: str = "",
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
        top: the same, before the form of a listing.
        here: which of the pages in the navigation it is.
        status: of HTTP.
        more: what the template asks for besides, plain.
    """
    given: dict[str, Any] = {
        "lead": (),
        "note": "",
        "problem": "",
        "places": () if title == "Sign in" else _PLACES,
        **more,
    }
    parts, first = Markup(body), Markup(top)  # noqa: S704 (see above)
    whole = _templates().get_template(template)
    text = whole.render(title=title, body=parts, top=first, here=here, visitor=visitor.name, **given)
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
