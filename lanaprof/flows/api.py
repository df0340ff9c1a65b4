"""The Python API: what a notebook or a script uses instead of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.config import parse_device
from lanaprof.flows.bench import open_bench
from lanaprof.flows.predicting import Predictor, open_predictor
from lanaprof.flows.project import Project, default_team, load_project
from lanaprof.flows.selecting import Scores, build_problem, find_scores
from lanaprof.flows.sources import device_matcher, viewpoint_of
from lanaprof.lut import Source, Store, Table, check_policy, open_store, parse_source
from lanaprof.lut import open_table as _open_table
from lanaprof.space import Architecture, Space

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.flows.students import ExportedStudent
    from lanaprof.flows.verifying import VerifyReport
    from lanaprof.profiler.calibration import Prediction
    from lanaprof.solver import Problem

__all__ = ["OpenProject", "open_project", "open_table"]


class OpenProject:
    """A project in Python; every method opens the database for its own time.

    Args:
        project: its files.
        database: path or URL; None for the project's own.
        team: whose measurements come first; None for the project's own.
        policy: which of several measurements of one thing counts; None for the project's own.
    """

    def __init__(
        self,
        project: Project,
        *,
        database: str | None = None,
        team: str | None = None,
        policy: str | None = None,
    ) -> None:
        self._project = project.under(policy)
        self._database = project.database(database)
        self._team = default_team(team, project.config)

    @property
    def space(self) -> Space:
        """Return the layers with their candidates."""
        return self._project.space

    def _store(self) -> Store:
        return open_store(self._database)

    def _predictor(self, store: Store, device: str | None) -> Predictor:
        return open_predictor(self._project, self._project.device(device), store, team=self._team)

    def table(self, device: str | None = None) -> Table:
        """Return the latencies of the project's operators on a device."""
        with self._store() as store:
            return self._predictor(store, device).table

    def problem(self, devices: Sequence[str] | str | None = None, scores: Scores | None = None) -> Problem:
        """Return the selection problem over one or more devices.

        Args:
            devices: device texts; None for the project's default.
            scores: by (layer, operation); None for the stored ones.
        """
        names = [devices] if isinstance(devices, str) or devices is None else list(devices)
        with self._store() as store:
            predictors = [self._predictor(store, name) for name in names]
            found = scores if scores is not None else find_scores(self._project, store)
            return build_problem(self._project, predictors, found)

    def predict(self, arch: Architecture, device: str | None = None, *, level: float = 0.9) -> Prediction:
        """Return an architecture's latency in seconds with its central interval, from the table alone."""
        with self._store() as store:
            return self._predictor(store, device).predict(arch.complete(self.space), level=level)

    def verify(self, archs: Sequence[Architecture], device: str | None = None) -> VerifyReport:
        """Build and time architectures on this machine beside the calibration's networks."""
        from lanaprof.flows.verifying import verify

        chosen = self._project.device(device)
        with self._store() as store:
            bench = open_bench(chosen, store, team=self._team, state=self._project.state)
            return verify(self._project, bench, [arch.complete(self.space) for arch in archs])

    def build(self, arch: Architecture) -> nn.Module:
        """Return an architecture's network in eval mode with the weights trained for it."""
        from lanaprof.flows.students import build_student

        return build_student(self._project, arch.complete(self.space)).module

    def export(self, arch: Architecture, path: str | Path) -> ExportedStudent:
        """Write an architecture's network: ``.onnx``, ``.pt2``, or a folder."""
        from lanaprof.flows.students import build_student, export_student

        return export_student(
            self._project, build_student(self._project, arch.complete(self.space)), Path(path)
        )


def open_project(
    folder: str | Path = ".",
    *,
    database: str | None = None,
    team: str | None = None,
    policy: str | None = None,
) -> OpenProject:
    """Return the project in a folder; ``policy`` is one of `lanaprof.lut.POLICIES`, None for the project's own.

    Raises:
        BadProject: there is none, or its files do not hold together.
    """
    return OpenProject(load_project(Path(folder)), database=database, team=team, policy=policy)


def open_table(
    source: str | Path,
    *,
    device: str | None = None,
    environment: str | None = None,
    team: str | None = None,
    space: str | None = None,
    policy: str | None = None,
) -> Table:
    """Return the latencies of one environment in a database; needs no project and no torch.

    Args:
        source: path or URL, with optional ``#device=…,environment=…,team=…,since=…,protocol=…,policy=…``.
        device: a device text; devices.yaml of the working folder counts.
        environment: pins an environment by the beginning of its key.
        team: only this team's measurements.
        space: relay numbers of this space, else hot ones.
        policy: which of several measurements of one thing counts: own-host (the default), own-team, newest, pooled.

    Raises:
        BadInput: nothing is measured there, several environments are, or the policy is unknown.
        StoreError: the database cannot be opened.
    """
    parsed: Source = parse_source(source)
    if policy is not None:
        parsed = replace(parsed, policy=check_policy(policy))
    text = device or parsed.device
    if not text:
        who = viewpoint_of(None, team=team or "")
        return _open_table(parsed, environment=environment, team=team, space=space, viewpoint=who)
    chosen = parse_device(text, Path.cwd())
    return _open_table(
        parsed,
        device=chosen.text,
        environment=environment,
        team=team,
        space=space,
        matches=device_matcher(chosen),
        viewpoint=viewpoint_of(chosen, team=team or ""),
    )
