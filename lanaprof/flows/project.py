"""A project: a folder with lanaprof.toml, its space, and what is cached beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.config import PRETRAINED, Device, ProjectConfig, known_devices, parse_device, read_config
from lanaprof.config.imports import make_importable
from lanaprof.errors import BadProject, UnknownDevice
from lanaprof.flows.weightfile import describe_file, init_command, is_described
from lanaprof.ops import load_own_operations, names_function
from lanaprof.space import Space, load_space

if TYPE_CHECKING:
    from lanaprof.teachers import Teacher

__all__ = ["NO_TEAM", "STATE_FOLDER", "Project", "default_team", "load_project", "write_json"]

STATE_FOLDER = ".lanaprof"
NO_TEAM = "local"  # who measured, where nobody said
_SPACE_FILE = "space.json"
_TEACHER_FILE = "teacher.json"


@dataclass(frozen=True, slots=True)
class Project:
    """What a project's files say.

    Attributes:
        folder: where lanaprof.toml lies.
        config: its content.
        space: the layers with their candidates.
        facts: what ``init`` found out about the teacher: weights digest, preprocessing, whether it is seeded.
    """

    folder: Path
    config: ProjectConfig
    space: Space
    facts: Mapping[str, Any]

    @property
    def state(self) -> Path:
        """Return the folder of caches, weights and journals."""
        return self.folder / STATE_FOLDER

    @property
    def weights_digest(self) -> str:
        """Return the digest of the teacher's weights."""
        return str(self.facts["weights_digest"])

    def database(self, option: str | None) -> str:
        """Return the database to use: the option, LANAPROF_DATABASE, lanaprof.toml, else lanaprof.db here."""
        chosen = option or os.environ.get("LANAPROF_DATABASE")
        if chosen:
            return chosen
        own = self.config.database or "lanaprof.db"
        return own if "://" in own else str(self.folder / own)

    def device(self, text: str | None) -> Device:
        """Return the device a command means; without a text the first in lanaprof.toml.

        Raises:
            UnknownDevice: there is no such device, or none is named anywhere.
        """
        if text is None and self.config.devices:
            text = self.config.devices[0]
        if text is None:
            known = ", ".join(known_devices(self.folder))
            raise UnknownDevice(
                f"no device was named, and lanaprof.toml names none; known: {known}", hint="add --device cpu"
            )
        return parse_device(text, self.folder)

    def under(self, policy: str | None) -> Project:
        """Return the project with another policy of which measurement counts; None keeps the file's."""
        if policy is None:
            return self
        return replace(self, config=replace(self.config, policy=policy))

    def load_teacher(self) -> Teacher:
        """Return the teacher with its weights; imports torch."""
        from lanaprof.teachers import load_teacher  # imports torch

        make_importable(self.folder)  # a metric of the user's lies there, too, whoever wrote the teacher
        weights: str | Path | None = self.config.weights or None
        if weights is not None and weights != PRETRAINED:
            weights = self.folder / weights
        teacher = load_teacher(
            self.config.teacher,
            weights=weights,
            input_shape=self.space.input_shape,
            seed=self.config.seed,
            search_path=self.folder,
        )
        if teacher.weights_digest != self.weights_digest:
            raise BadProject(
                "the teacher's weights are not those this project was made with",
                hint=f"restore them, or start anew: {init_command(self.config)}",
            )
        self._note_weights(weights)
        return teacher

    def _note_weights(self, weights: str | Path | None) -> None:
        """Note by what the file is known again, once its weights turned out to be the project's."""
        known = self.facts.get("weights_file")
        if isinstance(weights, Path) and not (known and is_described(weights, known)):
            note = {**self.facts, "weights_file": describe_file(weights)}
            write_json(self.state / _TEACHER_FILE, note)


def load_project(folder: Path | None = None) -> Project:
    """Return the project in a folder, by default the working folder.

    Raises:
        BadProject: there is none, or its files do not hold together.
    """
    folder = (folder or Path.cwd()).absolute()
    config = read_config(folder)
    if names_function(config.ops):
        load_own_operations(config.ops, search_path=folder)  # the families that the space's texts name
    space = load_space(folder / _SPACE_FILE)
    path = folder / STATE_FOLDER / _TEACHER_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadProject(
            f"{path} cannot be read: {error}",
            hint="write it anew: lanaprof init --force with the same options",
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("weights_digest"), str):
        raise BadProject(f"{path} says nothing of the weights", hint="write it anew: lanaprof init --force")
    if config.teacher != space.teacher:
        raise BadProject(
            f"lanaprof.toml names the teacher {config.teacher!r}, space.json {space.teacher!r}",
            hint="start anew: lanaprof init --force",
        )
    return Project(folder, config, space, facts)


def default_team(option: str | None, config: ProjectConfig | None) -> str:
    """Return the team: the option, LANAPROF_TEAM, the file, else ``local``."""
    return option or os.environ.get("LANAPROF_TEAM") or (config.team if config is not None else "") or NO_TEAM


def write_json(path: Path, value: Any) -> None:
    """Write a file of the state folder whole or not at all.

    Raises:
        BadProject: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BadProject(
            f"{path} cannot be written: {error.strerror or error}", hint="free space, or its permissions"
        ) from error
