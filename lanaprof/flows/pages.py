"""The pieces of a self-contained HTML page: sections, tables, facts, and its one style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lanaprof.flows.drawing import CSS

__all__ = ["Section", "facts", "figure", "hint", "page", "table", "tiles"]

_STYLE = (
    CSS
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:960px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
header p{margin:.1rem 0;color:var(--muted)}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .35rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.75rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--grid)}
p{margin:.5rem 0}
nav{margin:1.25rem 0 0;display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.87rem}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:.75rem;margin:1.5rem 0 0}
.tile{border:1px solid var(--grid);border-radius:8px;padding:.8rem .95rem}
.tile b{display:block;font-size:1.35rem;font-weight:600;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.85rem}
.result{border:1px solid var(--accent);border-radius:8px;padding:.4rem 1.1rem .9rem;margin:1.5rem 0 0}
.result h2{border:0;margin:.5rem 0 .4rem;padding:0;color:var(--accent)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.36rem .9rem .36rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{font-weight:500;color:var(--muted);white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td:last-child,th:last-child{padding-right:0}
dl{display:grid;grid-template-columns:minmax(9rem,max-content) 1fr;gap:.25rem 1.5rem;margin:.5rem 0;font-size:.93rem}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
code,pre{font:.87em/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:color-mix(in srgb,var(--grid) 45%,transparent);padding:.8rem 1rem;border-radius:8px;overflow-x:auto}
.todo{border-left:3px solid var(--grid);padding:.2rem 0 .2rem .9rem;color:var(--muted)}
.todo code{color:var(--ink)}
.good{color:var(--good)}.bad{color:var(--bad)}.muted{color:var(--muted)}
details{margin-top:.75rem}summary{cursor:pointer;color:var(--accent);font-size:.9rem}
figure{margin:.75rem 0;overflow-x:auto}figure svg.chart{min-width:580px}
figcaption{color:var(--muted);font-size:.87rem;margin-top:.35rem}
footer{margin-top:3rem;color:var(--muted);font-size:.85rem}
@media print{main{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}figure{break-inside:avoid}}
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        name: for links and JSON.
        title: for people.
        body: HTML; empty while there is nothing to show.
        missing: the command that fills it; empty when there is something to show.
    """

    name: str
    title: str
    body: str
    missing: str = ""


def page(title: str, *, lead: Sequence[str], top: str, sections: Sequence[Section], foot: str) -> str:
    """Return the page's HTML; it refers to nothing outside itself.

    Args:
        title: heading and window title, plain text.
        lead: lines under the heading, plain text.
        top: HTML before the sections.
        sections: in order.
        foot: a last line, plain text.
    """
    links = "".join(f'<a href="#{s.name}">{escape(s.title)}</a>' for s in sections)
    bodies = "".join(
        f'<section id="{s.name}"><h2>{escape(s.title)}</h2>{s.body or hint(s.missing)}</section>'
        for s in sections
    )
    lines = "".join(f"<p>{escape(line)}</p>" for line in lead)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1>{lines}<nav>{links}</nav></header>"
        f"{top}{bodies}<footer>{escape(foot)}</footer></main></body></html>\n"
    )


def hint(command: str) -> str:
    """Return the line that says which command fills a part."""
    return f'<p class="todo">Nothing here yet. This part is filled by <code>{escape(command)}</code></p>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, marked: bool = False) -> str:
    """Return a table of plain texts.

    Args:
        columns: a name that starts with ``#`` is a column of numbers.
        rows: one text per column.
        marked: the texts ``verified``, ``over_budget`` and ``stale`` are coloured.
    """
    classes = [' class="n"' if name.startswith("#") else "" for name in columns]
    head = "".join(
        f"<th{c}>{escape(name.removeprefix('#'))}</th>" for name, c in zip(columns, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{c}>{_cell(text, marked=marked)}</td>" for text, c in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, *, marked: bool) -> str:
    kind = {"verified": "good", "over_budget": "bad"}.get(text) if marked else None
    return f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text)


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return names with their values, plain texts; rows without a value are left out."""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows if value)
    return f"<dl>{pairs}</dl>"


def tiles(rows: Iterable[tuple[str, str]]) -> str:
    """Return large numbers with what they are, plain texts."""
    boxes = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in rows
    )
    return f'<div class="tiles">{boxes}</div>'


def figure(svg: str, caption: str) -> str:
    """Return a chart with the sentence that says how to read it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
