"""The pieces of a self-contained HTML page: sections, tables, facts, its style sheet and its one script.

The script sorts and filters tables; without it the page says the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lanaprof.flows.drawing import CSS

__all__ = [
    "SCRIPT",
    "STYLE",
    "Cell",
    "Link",
    "Section",
    "details",
    "facts",
    "figure",
    "grid",
    "hint",
    "page",
    "table",
    "tiles",
]


@dataclass(frozen=True, slots=True)
class Link:
    """A text that leads somewhere."""

    text: str
    href: str


Cell = str | tuple[str, float | None] | Link  # a text, a text with the number it is sorted by, or a link

STYLE = (
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
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:.75rem;margin:1.5rem 0 0}
.tile{border:1px solid var(--grid);border-radius:8px;padding:.8rem .95rem}
.tile b{display:block;font-size:1.35rem;font-weight:600;letter-spacing:-.01em;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.85rem}
.result{border:1px solid var(--accent);border-radius:8px;padding:.4rem 1.1rem .9rem;margin:1.5rem 0 0}
.result h2{border:0;margin:.5rem 0 .4rem;padding:0;color:var(--accent)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.36rem .9rem .36rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{font-weight:500;color:var(--muted);vertical-align:bottom}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
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
figure{margin:.75rem 0}figure .scroll svg.chart{min-width:580px}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:1rem 1.5rem;margin:1rem 0}
.grid>div{min-width:0}
h3{font-size:.95rem;margin:1.25rem 0 .25rem;overflow-wrap:anywhere}.grid h3{margin:0}
th button{all:unset;cursor:pointer;color:inherit}
th button:hover{text-decoration:underline}
th button:focus-visible,summary:focus-visible,a:focus-visible,pre:focus-visible,input:focus-visible,
.scroll:focus-visible{outline:2px solid var(--accent)}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
.filter{display:flex;align-items:center;gap:.75rem}
input[type=search]{font:inherit;color:var(--ink);background:var(--paper);max-width:100%;padding:.3rem .6rem;
border:1px solid var(--muted);border-radius:6px}input[type=search]::placeholder{color:var(--muted);opacity:1}
.skip{position:absolute;left:-999px}.skip:focus{left:1rem;top:.5rem}
tr.own td{font-weight:600}
figcaption{color:var(--muted);font-size:.87rem;margin-top:.35rem}
footer{margin-top:3rem;color:var(--muted);font-size:.85rem}
@media (max-width:40rem){.scroll table{width:max-content;min-width:100%}th,td{max-width:15rem}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{main{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}figure{break-inside:avoid}}
"""
)

# How it went → class of the style sheet.
_MARKED = {
    "verified": "good", "over_budget": "bad", "measured": "good", "failed": "bad", "unsupported": "bad",
    "timeout": "bad", "missing": "muted",
}  # fmt: skip


# Sorts by data-v where a cell has one, else by its text; what has no number stays last. Filters by words, all of which
# a row has to hold.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[index].dataset.v ?? row.cells[index].textContent;
      const numbers = head.className === "n";
      const compare = (a, b) => {
        const x = key(a), y = key(b);
        if (!numbers) return (down ? -1 : 1) * x.localeCompare(y);
        const p = parseFloat(x), q = parseFloat(y);
        if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
        return (down ? -1 : 1) * (p - q);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
  if (!table.classList.contains("whole") || body.rows.length < 12) continue;
  const [field, said, line] = ["input", "span", "p"].map((name) => document.createElement(name));
  field.type = "search";
  field.placeholder = "Filter";
  field.setAttribute("aria-label", `Filter: ${table.parentNode.getAttribute("aria-label")}`);
  said.setAttribute("role", "status");
  line.className = "filter muted";
  line.append(field, said);
  table.parentNode.before(line);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\\s+/);
    const rows = [...body.rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    said.textContent = field.value ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}
"""


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

    Sections without a body stand together at the end, each with the command that fills it.

    Args:
        title: heading and window title, plain text.
        lead: lines under the heading, plain text.
        top: HTML before the sections.
        sections: in order; without any, the page has no list of its parts.
        foot: a last line, plain text.
    """
    filled = [section for section in sections if section.body]
    empty = [section for section in sections if not section.body]
    links = [(section.name, section.title) for section in filled]
    bodies = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-title"><h2 id="{s.name}-title">{escape(s.title)}</h2>'
        f"{s.body}</section>"
        for s in filled
    )
    if empty:
        links.append(("missing", "Still to come"))
        hints = "".join(f"<h3>{escape(s.title)}</h3>{hint(s.missing)}" for s in empty)
        bodies += (
            '<section id="missing" aria-labelledby="missing-title"><h2 id="missing-title">Still to come</h2>'
            f"{hints}</section>"
        )
    navigation = "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links)
    if navigation:
        navigation = f'<nav aria-label="Parts of this page">{navigation}</nav>'
    lines = "".join(f"<p>{escape(line)}</p>" for line in lead)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#content">To the content</a>'
        f"<main><header><h1>{escape(title)}</h1>{lines}{navigation}</header>"
        f'<div id="content">{top}{bodies}</div><footer>{escape(foot)}</footer></main>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def hint(command: str) -> str:
    """Return the line that says which command fills a part."""
    return f'<p class="todo">Nothing here yet. This part is filled by <code>{escape(command)}</code></p>'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    label: str,
    marked: bool = False,
    sortable: bool = False,
    own: Collection[int] = (),
    foot: Sequence[Cell] = (),
    whole: bool = True,
) -> str:
    """Return a table of plain texts in a box that scrolls sideways where the screen is narrow.

    Args:
        columns: a name that starts with ``#`` is a column of numbers.
        rows: one cell per column.
        label: what the table holds, for screen readers.
        marked: texts that say how it went, such as ``verified`` and ``missing``, are coloured, too.
        sortable: whether the page's script lets readers sort it.
        own: numbers of the rows that stand out.
        foot: a last row that stays below however the others are sorted.
        whole: whether these are all rows, so that the page's script may offer to filter them.
    """
    classes = [' class="n"' if name.startswith("#") else "" for name in columns]
    head = "".join(
        f'<th scope="col"{c}>{escape(name.removeprefix("#"))}</th>'
        for name, c in zip(columns, classes, strict=True)
    )
    body = "".join(
        ('<tr class="own">' if number in own else "<tr>")
        + "".join(_cell(cell, c, marked=marked) for cell, c in zip(row, classes, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    cells = "".join(_cell(cell, c, marked=False) for cell, c in zip(foot, classes, strict=bool(foot)))
    end = f'<tfoot><tr class="own">{cells}</tr></tfoot>' if foot else ""
    kind = f' class="sortable{" whole" if whole else ""}"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(label)}">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{end}</table></div>"
    )


def _cell(cell: Cell, attributes: str, *, marked: bool) -> str:
    if isinstance(cell, Link):
        return f'<td{attributes}><a href="{escape(cell.href)}">{escape(cell.text)}</a></td>'
    text, value = (cell, None) if isinstance(cell, str) else cell
    if value is not None:
        attributes += f' data-v="{value:.6g}"'
    kind = _MARKED.get(text) if marked else None
    inside = f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text).replace(",", ",<wbr>")
    return f"<td{attributes}>{inside}</td>"


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
    """Return a chart with the sentence that says how to read it, in a box that scrolls where the screen is narrow.

    A small one, without a caption, shrinks instead.
    """
    if not caption:
        return f"<figure>{svg}</figure>"
    box = f'<div class="scroll" tabindex="0" role="group" aria-label="Chart">{svg}</div>'
    return f"<figure>{box}<figcaption>{escape(caption)}</figcaption></figure>"


def grid(parts: Iterable[tuple[str, str]]) -> str:
    """Return small parts side by side, as many as there is room for: (heading as plain text, HTML)."""
    boxes = "".join(f"<div><h3>{escape(name)}</h3>{body}</div>" for name, body in parts)
    return f'<div class="grid">{boxes}</div>'


def details(summary: str, body: str) -> str:
    """Return HTML that is folded away behind a line of plain text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
