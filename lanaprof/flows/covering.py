"""lut coverage: how much of what a project, or the database, has operators for is measured on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lanaprof.config import Device, parse_device
from lanaprof.flows.operators import OperatorMap, find_operators
from lanaprof.flows.project import Project
from lanaprof.flows.recipes import candidate_recipe
from lanaprof.flows.sources import (
    device_matcher,
    devices_of_environment,
    find_environments,
    known_here,
    viewpoint_of,
)
from lanaprof.lut import GOOD_STATUSES, Environment, Source, Store, Viewpoint, choose_environment
from lanaprof.lut.policy import statuses_from
from lanaprof.lut.records import Timing
from lanaprof.lut.standing import Standings

__all__ = ["Covered", "covered", "covered_at", "covered_devices"]

_TABLE_CACHES = ("relay", "hot")  # what predictions are made from; cold numbers only when asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How much is measured on one device.

    Attributes:
        environment: where the numbers come from; None when nothing was measured.
        warning: how that was found, where the user should know; may be empty.
        present: operators with a latency (ok or noisy); ``noisy`` of them are noisy.
        failed: operators that could not be timed, with their status; ``unexportable`` recipes beside them.
        missing: operators nobody tried to time; ``unexported`` recipes beside them.
        candidates: operator key → the (layer, operation) that need it; empty outside a project.
    """

    environment: Environment | None
    warning: str
    present: int
    noisy: int
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    unexported: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    unexportable: Mapping[str, str] = field(default_factory=dict)
    candidates: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @property
    def failed_count(self) -> int:
        """Return how many operators and recipes cannot be timed."""
        return len(self.failed) + len(self.unexportable)

    @property
    def missing_count(self) -> int:
        """Return how many operators wait to be timed; a recipe not exported yet counts as one."""
        return len(self.missing) + len(self.unexported)

    @property
    def wanted_count(self) -> int:
        """Return how many operators there should be."""
        return self.present + self.failed_count + self.missing_count

    def counts(self) -> dict[str, int]:
        """Return the numbers as JSON has them."""
        return {
            "wanted": self.wanted_count,
            "present": self.present,
            "failed": self.failed_count,
            "missing": self.missing_count,
            "noisy": self.noisy,
        }


def covered(
    store: Store,
    device: Device | None,
    source: Source,
    folder: Path,
    *,
    project: Project | None = None,
    team: str = "",
    cache: str | None = None,
) -> Covered:
    """Return how much is measured on a device, or in the environment the SOURCE pins.

    In a project the operators of its candidates are wanted (``skip`` needs none), and what predictions are
    made from counts: relay measurements of its space, else hot ones. Outside, all operators of the database
    are wanted, and any measurement counts, as for ``measure`` there.

    Args:
        store: the database.
        device: which environments to look at; None only with a pinned environment.
        source: may pin an environment and choose by team and time.
        folder: where devices.yaml may lie.
        project: whose candidates; None for the whole database.
        team: whose measurements come first.
        cache: only this cache state.
    """
    operators, space = None, None
    if project is not None:
        assert device is not None
        operators = find_operators(project, device, store)
        space = project.space.relay_digest(device.batch, precision=device.precision)
    wanted = operators.keys if operators is not None else store.operator_keys()
    policy = source.policy or (project.config.policy if project is not None else "")
    viewpoint = viewpoint_of(device, team=team, wanted=wanted, policy=policy)
    environment, warning = _environment(store, device, source, folder, viewpoint, cache=cache, space=space)
    found: Mapping[str, str] = {}
    if environment is not None:
        rows: Iterable[Timing] = store.timings(
            environment.id, cache=cache, team=source.team, since=source.since, protocol=source.protocol
        )
        if space is not None:
            caches = (cache,) if cache is not None else _TABLE_CACHES
            rows = [row for row in rows if row.space in ("", space) and row.cache in caches]
        statuses = statuses_from(rows, viewpoint)
        found = {key: statuses[key] for key in wanted if key in statuses}
    if project is None:
        return _covered(environment, warning, wanted, found)
    assert operators is not None
    return replace(
        _covered(environment, warning, wanted, found),
        unexported=_unexported(project, device, operators),
        unexportable=dict(operators.problems),
        candidates=_candidates(operators),
    )


def _covered(
    environment: Environment | None, warning: str, wanted: Sequence[str], found: Mapping[str, str]
) -> Covered:
    """Return how much of what is wanted is measured, from the status that counts of nothing else, by operator."""
    present = [status for status in found.values() if status in GOOD_STATUSES]
    return Covered(
        environment=environment,
        warning=warning,
        present=len(present),
        noisy=present.count("noisy"),
        failed={key: found[key] for key in wanted if found.get(key, "ok") not in GOOD_STATUSES}
        if len(present) < len(found)
        else {},
        missing=tuple(key for key in wanted if key not in found) if len(found) < len(wanted) else (),
    )


def covered_devices(
    store: Store,
    source: Source,
    folder: Path,
    *,
    project: Project | None = None,
    team: str = "",
    cache: str | None = None,
) -> dict[str, Covered]:
    """Return the coverage of every device that matters: lanaprof.toml's and those measured, by text.

    An environment that no known device means stands under ``environment KEY``.
    """
    if project is None:
        viewpoint = viewpoint_of(None, team=team, policy=source.policy)
        standings = chosen = Standings(store, viewpoint)
        standings.look()
        if source.team or source.since or source.protocol or cache:
            chosen = Standings(
                store, viewpoint, cache=cache, team=source.team, since=source.since, protocol=source.protocol
            )
            chosen.look()
        return covered_at(store, standings, folder, chosen=chosen, team=team, cache=cache)
    texts = [parse_device(text, folder).text for text in project.config.devices]
    known, used = known_here(folder), store.used_environments()
    for environment in store.environments():
        if environment.id in used:
            texts += devices_of_environment(environment, known)
    return {
        text: covered(
            store, parse_device(text, folder), source, folder, project=project, team=team, cache=cache
        )
        for text in dict.fromkeys(texts or ["cpu"])
    }


def covered_at(
    store: Store,
    standings: Standings,
    folder: Path,
    *,
    chosen: Standings | None = None,
    team: str = "",
    cache: str | None = None,
) -> dict[str, Covered]:
    """Return what `covered_devices` returns outside a project, from what is known to stand; no measurement is read.

    Args:
        store: the database.
        standings: of all its measurements; somebody looked.
        folder: where devices.yaml may lie.
        chosen: of the measurements that count; None for all.
        team: whose measurements come first.
        cache: the only cache state in which an environment counts as used.
    """
    statuses = (chosen or standings).statuses
    wanted = store.operator_keys()
    used = standings.used_environments()
    there = [environment for environment in store.environments() if environment.id in used]
    known = known_here(folder)
    named = {each.id: devices_of_environment(each, known) for each in there}
    found: dict[str, Covered] = {}
    for text in dict.fromkeys(text for names in named.values() for text in names):
        device = parse_device(text, folder)
        viewpoint = viewpoint_of(device, team=team, wanted=wanted)
        candidates = [each for each in there if device_matcher(device)(each)]
        if not standings.used_environments((each.id for each in candidates), cache=cache):
            found[text] = _covered(None, "", wanted, {})
            continue
        choice = choose_environment(standings, candidates, viewpoint=viewpoint, cache=cache)
        found[text] = _covered(choice.environment, choice.warning, wanted, statuses(choice.environment.id))
    for each in there:
        if not named[each.id]:
            found[f"environment {each.id[:12]}"] = _covered(each, "", wanted, statuses(each.id))
    return found


def _environment(
    store: Store,
    device: Device | None,
    source: Source,
    folder: Path,
    viewpoint: Viewpoint,
    *,
    cache: str | None,
    space: str | None,
) -> tuple[Environment | None, str]:
    """Return the environment a device means, and a warning; None when nothing was measured on it."""
    if source.environment:
        found = find_environments(store, source, folder)
        assert found is not None
        return found[0], ""
    assert device is not None
    candidates = [each for each in store.environments() if device_matcher(device)(each)]
    if not store.used_environments((each.id for each in candidates), cache=cache, space=space):
        return None, ""
    choice = choose_environment(store, candidates, viewpoint=viewpoint, cache=cache, space=space)
    return choice.environment, choice.warning


def _unexported(
    project: Project, device: Device | None, operators: OperatorMap | None
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the recipes that wait to be exported, each with its candidates."""
    assert device is not None
    assert operators is not None
    layers = {layer.name: layer for layer in project.space.places}
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for (layer, operation), key in operators.candidates.items():
        if key is None:
            made_by = candidate_recipe(layers[layer], operation, device)
            found[made_by] = (*found.get(made_by, ()), (layer, operation))
    return found


def _candidates(operators: OperatorMap | None) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for name, key in operators.candidates.items() if operators is not None else ():
        if key:
            found[key] = (*found.get(key, ()), name)
    return found
