"""Which stored selection is meant: one of this project, and rather the own team's than what was pulled."""

from __future__ import annotations

from lanaprof.errors import BadArchitecture
from lanaprof.flows.project import Project, default_team
from lanaprof.lut import Selection, Store
from lanaprof.space import Architecture

__all__ = ["find_selection", "own_selections", "verified_instead"]


def own_selections(project: Project, store: Store | None) -> tuple[Selection, ...]:
    """Return the selections of this teacher that the space still offers, oldest first, other teams' before our own.

    So the last one is what `latest` means: what a colleague selected for another budget, and a pull brought, is not it.
    """
    found = store.selections() if store is not None else ()
    own = [row for row in found if row.teacher == project.weights_digest and _fits(project, row)]
    team = default_team(None, project.config)
    return tuple(sorted(own, key=lambda row: row.team == team))  # stable: by time within both


def find_selection(project: Project, store: Store, which: str | None) -> Selection:
    """Return a stored selection by the beginning of its id, or the latest one: by default and for ``latest``.

    Raises:
        UnknownSelection: there is none, or several; the message lists them.
    """
    own = own_selections(project, store) if which in (None, "latest") else ()
    return own[-1] if own else store.find_selection(which or "latest")


def verified_instead(project: Project, store: Store, which: str | None) -> Selection | None:
    """Return the own team's newest selection that was proved, where the latest is meant and was not; else None."""
    latest = find_selection(project, store, which)
    if which not in (None, "latest") or latest.status == "verified":
        return None
    found = [row for row in own_selections(project, store) if row.team == latest.team]
    return next((row for row in reversed(found) if row.status == "verified"), None)


def _fits(project: Project, selection: Selection) -> bool:
    try:
        choices = Architecture("", selection.choices).complete(project.space)
    except BadArchitecture:
        return False
    return dict(project.space.named(choices)) == dict(selection.choices)  # a record's are sorted by name
