"""The table: the latencies of one environment, as everything above the database sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lanaprof.digest import digest
from lanaprof.errors import BadInput, MissingMeasurement
from lanaprof.lut.fields import field_codecs
from lanaprof.lut.garbage import seldom_collecting
from lanaprof.lut.policy import Estimate, Viewpoint, estimates_from
from lanaprof.lut.records import CACHES, GOOD_STATUSES, Environment, Measurement, Timing
from lanaprof.lut.source import Source, parse_source
from lanaprof.lut.store import Store, open_store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EnvironmentChoice", "Table", "choose_environment", "open_table", "open_tables"]


class Table:
    """Latencies by operator key, in one environment.

    Args:
        environment: where everything in the table was measured.
        estimates: the entries.
        space: digest of the space whose relay numbers are in it; empty for none.
        warning: what the user should know about how the environment was found; may be empty.
        database: where the measurements are, for `to_pandas`.
    """

    def __init__(
        self,
        environment: Environment,
        estimates: Iterable[Estimate],
        *,
        space: str = "",
        warning: str = "",
        database: str = "",
    ) -> None:
        self.environment = environment
        self.space = space
        self.warning = warning
        self._database = database
        self._entries: Mapping[str, Estimate] = {
            estimate.operator: estimate for estimate in sorted(estimates, key=lambda each: each.operator)
        }

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Estimate]:
        """Iterate over the entries, sorted by operator key."""
        return iter(self._entries.values())

    def __contains__(self, operator: object) -> bool:
        return operator in self._entries

    def find(self, operator: str) -> Estimate | None:
        """Return an operator's entry, or None."""
        return self._entries.get(operator)

    def get(self, operator: str) -> Estimate:
        """Return an operator's entry; one that failed has no latency.

        Raises:
            MissingMeasurement: nobody tried to time the operator in this environment.
        """
        estimate = self._entries.get(operator)
        if estimate is None:
            environment = self.environment
            raise MissingMeasurement(
                f"operator {operator} is not measured in environment {environment.id[:12]} "
                f"({environment.gpu_model or environment.cpu_model}, {environment.backend})",
                hint="lanaprof measure --device DEVICE",
            )
        return estimate

    def cache_of(self, operator: str) -> str:
        """Return the cache state of an operator's entry: relay, hot or cold.

        Raises:
            MissingMeasurement: there is no entry.
        """
        return self.get(operator).cache

    @cached_property
    def digest(self) -> str:
        """The digest of each operator with the ids of the measurements that count: equal tables have equal digests."""
        return digest([[estimate.operator, *estimate.measurements] for estimate in self])

    def to_pandas(self) -> pd.DataFrame:
        """Return the measurements behind the entries, one a row, in the columns of a measurement record.

        Raises:
            StoreError: the database cannot be opened any more.
        """
        import pandas as pd  # heavy, and needed only here

        with open_store(self._database, readonly=True) as store:
            ids = [key for estimate in self for key in estimate.measurements]
            found = store.find_measurements(ids)
        columns = ["record", "id", *(name for name, _ in field_codecs(Measurement))]
        rows = [found[key].to_json() for key in ids]
        return pd.DataFrame(rows, columns=pd.Index(columns))


@dataclass(frozen=True, slots=True)
class EnvironmentChoice:
    """An environment, and a warning when it is not the asker's own; empty otherwise."""

    environment: Environment
    warning: str


class Measured(Protocol):
    """What knows which operators were measured where: a store, or what was found in one."""

    @property
    def name(self) -> str:
        """Return the database's name, for messages."""

    def environments(self) -> tuple[Environment, ...]:
        """Return all environments."""

    def used_environments(
        self, among: Iterable[str] | None = None, *, cache: str | None = None, space: str | None = None
    ) -> set[str]:
        """Return what `Store.used_environments` returns."""

    def measured_operators(
        self, environments: Iterable[str], *, cache: str | None = None, space: str | None = None
    ) -> Mapping[str, Mapping[str, str]]:
        """Return what `Store.measured_operators` returns."""


def choose_environment(
    store: Measured,
    candidates: Iterable[Environment],
    *,
    viewpoint: Viewpoint,
    cache: str | None = None,
    space: str | None = None,
) -> EnvironmentChoice:
    """Return which of several environments to read.

    The asker's own if it is among them and has measurements; else the newest that covers everything wanted
    (when none does: that which covers most), with a warning that names it. Without ``viewpoint.wanted``
    everything that any candidate measured is wanted.

    Raises:
        BadInput: no candidate has measurements; the message lists what the database has.
    """
    known = {environment.id: environment for environment in candidates}
    used = store.used_environments(known, cache=cache, space=space)
    if viewpoint.environment in used:
        return EnvironmentChoice(known[viewpoint.environment], "")
    if not used:
        raise _nothing_measured(store)
    if len(known) == 1 and not viewpoint.environment:
        return EnvironmentChoice(known[used.pop()], "")
    measured = store.measured_operators(used, cache=cache, space=space)
    wanted = set(viewpoint.wanted) or set().union(*measured.values())
    newest = {key: max(times.values()) for key, times in measured.items()}
    best = max(sorted(measured), key=lambda key: (len(wanted & measured[key].keys()), newest[key]))
    covered = len(wanted & measured[best].keys())
    extent = "full coverage" if covered == len(wanted) else f"{covered} of {len(wanted)} operators"
    environment = known[best]
    return EnvironmentChoice(
        environment,
        f"using environment {best[:12]} ({environment.gpu_model or environment.cpu_model}, "
        f"{environment.backend} {environment.backend_version}, newest measurement {newest[best]}, {extent}); "
        "--environment pins another",
    )


def open_table(
    source: str | Path | Source | Store,
    *,
    device: str | None = None,
    environment: str | None = None,
    team: str | None = None,
    space: str | None = None,
    cache: str | None = None,
    matches: Callable[[Environment], bool] | None = None,
    viewpoint: Viewpoint = Viewpoint(),  # noqa: B008 (frozen)
) -> Table:
    """Return the latencies of one environment in a database.

    Args:
        source: a SOURCE text, its parsed form, or an open store (which stays open).
        device: a device's name; ``matches`` says which environments it means.
        environment: an environment key or how it starts; pins the environment.
        team: only this team's measurements.
        space: relay numbers of this space, and hot ones where it has none. None means the only space that
            relayed in the environment (with several: none, and a warning); empty means hot numbers only.
        cache: only this cache state: relay, hot or cold.
        matches: whether an environment is one the device means (devices.yaml is read elsewhere).
        viewpoint: whose measurements come first, and by which policy one counts; a policy in the SOURCE comes before.

    Raises:
        BadInput: unknown environment, several without a device, nothing measured.
        StoreError: the database cannot be opened.
    """
    if cache is not None and cache not in CACHES:
        raise BadInput(f"cache state {cache!r} is unknown", hint=f"one of {', '.join(CACHES)}")
    if isinstance(source, Store):
        parsed = Source(database=source.name)
        opened: AbstractContextManager[Store] = nullcontext(source)
    else:
        parsed = source if isinstance(source, Source) else parse_source(source)
        opened = open_store(parsed.database, readonly=True)
    if parsed.policy:
        viewpoint = replace(viewpoint, policy=parsed.policy)
    with opened as store:
        pinned = environment or parsed.environment
        if pinned:
            choice = EnvironmentChoice(store.get_environment(pinned), "")
        else:
            candidates = _candidates(store, device or parsed.device, matches)
            choice = choose_environment(store, candidates, viewpoint=viewpoint, cache=cache, space=space)
        with seldom_collecting():
            rows = store.timings(
                choice.environment.id,
                cache=cache,
                team=team or parsed.team,
                since=parsed.since,
                protocol=parsed.protocol,
            )
        database = store.url
    space, left_out = (space, "") if space is not None else _only_space(rows)
    warning = "; ".join(filter(None, (choice.warning, left_out)))
    with seldom_collecting():
        estimates = _estimates(rows, space=space, cache=cache, viewpoint=viewpoint)
    return Table(choice.environment, estimates, space=space, warning=warning, database=database)


def _only_space(rows: Iterable[Timing]) -> tuple[str, str]:
    """Return the space of the relay numbers among these; with several none, and a warning."""
    spaces = sorted({row.space for row in rows if row.space})
    if len(spaces) < 2:
        return (spaces[0] if spaces else ""), ""
    return "", f"relay numbers of several spaces ({', '.join(each[:12] for each in spaces)}) left out"


def open_tables(
    store: Store, source: Source, *, viewpoint: Viewpoint, cache: str | None = None
) -> dict[tuple[str, str], Table]:
    """Return the tables of one environment by cache state and space, from one reading of its measurements.

    Whether hosts and teams disagree is not looked for.

    Args:
        store: an open database.
        source: names the environment, and may choose by team, time and protocol; a policy in it comes first.
        viewpoint: whose measurements come first, and by which policy one counts.
        cache: only this cache state.

    Raises:
        BadInput: unknown environment.
    """
    if source.policy:
        viewpoint = replace(viewpoint, policy=source.policy)
    environment, url = store.get_environment(source.environment), store.url
    given = {"team": source.team, "since": source.since, "protocol": source.protocol}
    with seldom_collecting():
        rows = store.timings(environment.id, cache=cache, **given)
        states = sorted({(row.cache, row.space) for row in rows})
        estimates = {
            state: _estimates(rows, space=state[1], cache=state[0], viewpoint=viewpoint, disagreement=False)
            for state in states
        }
    return {
        (state, space): Table(environment, found, space=space, database=url)
        for (state, space), found in estimates.items()
    }


def _candidates(
    store: Store, device: str, matches: Callable[[Environment], bool] | None
) -> tuple[Environment, ...]:
    there = store.environments()
    if matches is not None:
        found = tuple(each for each in there if matches(each))
        if not found:
            raise BadInput(
                f"nothing in {store.name} was measured on device {device or '?'}; it has {_listed(there)}",
                hint=f"lanaprof measure --device {device or 'DEVICE'}",
            )
        return found
    if device:
        raise BadInput(
            f"which environments device {device!r} means is not known here",
            hint="name the environment: #environment=KEY",
        )
    used = store.used_environments()
    measured = tuple(each for each in there if each.id in used)
    if len(measured) > 1:
        raise BadInput(
            f"{store.name} has several environments: {_listed(measured)}",
            hint="name a device, or one of these: environment=KEY",
        )
    return measured


def _estimates(
    rows: Iterable[Timing],
    *,
    space: str,
    cache: str | None,
    viewpoint: Viewpoint,
    disagreement: bool = True,
) -> list[Estimate]:
    """Return one estimate per operator: relay rows of the space, else hot ones, or those of one cache state."""
    order = (cache,) if cache is not None else ("relay", "hot")
    groups: dict[tuple[str, str], list[Timing]] = {}
    for row in rows:
        if row.cache in order and row.space in ("", space):
            groups.setdefault((row.operator, row.cache), []).append(row)
    found: dict[str, Estimate] = {}
    for each in estimates_from(list(groups.values()), viewpoint, disagreement=disagreement):
        other = found.get(each.operator)
        if other is not None:
            first, second = sorted((each, other), key=lambda one: order.index(one.cache))
            # A relay row that failed does not hide a hot one that worked.
            failed = first.status not in GOOD_STATUSES and second.status in GOOD_STATUSES
            found[each.operator] = second if failed else first
        else:
            found[each.operator] = each
    return list(found.values())


def _nothing_measured(store: Measured) -> BadInput:
    return BadInput(
        f"{store.name} has no such measurements; it has {_listed(store.environments())}",
        hint="lanaprof measure --device DEVICE",
    )


def _listed(environments: Iterable[Environment]) -> str:
    return (
        "; ".join(
            f"{each.id[:12]} ({each.gpu_model or each.cpu_model}, {each.backend}, {each.threads} threads)"
            for each in environments
        )
        or "no environments"
    )
