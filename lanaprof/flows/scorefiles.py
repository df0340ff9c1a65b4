"""Scores by layer in a project's folder: an interrupted ``score`` goes on, and nothing is judged twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from lanaprof.digest import digest
from lanaprof.flows.learning import find_trained_candidates
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.scales import grid_here, is_quantised, is_teacher_at_precision, scales_version
from lanaprof.ops import SKIP

if TYPE_CHECKING:
    from lanaprof.distill import CandidateScore, ScoreRecipe

__all__ = ["ScoreFiles"]

_FOLDER = "scores"
_FORMAT = "lanaprof-scores/1"


class ScoreFiles:
    """The kept scores of one recipe, a file for each layer, written whole or not at all.

    A file is named by all its numbers depend on: teacher, data, recipe, host, and the layer's trained weights. A
    metric of the user's own may have changed since: its scores are not kept.
    """

    def __init__(
        self, project: Project, *, recipe: ScoreRecipe, host: Choices | None, data_digest: str
    ) -> None:
        from lanaprof.distill import weights_text
        from lanaprof.distill.metrics import METRICS
        from lanaprof.distill.rating import SCORE_VERSION

        self._project = project
        self._keys: Mapping[str, str] = {}
        if recipe.metric not in METRICS:
            return
        trained = find_trained_candidates(project)
        scales = [grid_here(project), *scales_version()]
        shared = {
            "teacher": project.weights_digest,
            "structure": project.facts["structure"],
            "data": data_digest,
            "recipe": asdict(recipe) | {"power": recipe.shape},
            "host": host,
            "version": SCORE_VERSION,
        }
        self._keys = {
            layer.name: digest(
                {
                    **shared,
                    "layer": layer.name,
                    "candidates": [
                        [
                            operation,
                            entry.digest if entry is not None else "",
                            *(scales if is_quantised(operation) else ()),
                        ]
                        for operation in layer.candidates
                        if (entry := trained.get((layer.name, weights_text(operation))))
                        or operation == SKIP
                        or is_teacher_at_precision(operation)
                    ],
                }
            )
            for layer in project.space.places
        }

    def find(self, layer: str) -> tuple[CandidateScore, ...] | None:
        """Return a layer's scores; None where there are none, or none that can be read: judging costs only time."""
        from lanaprof.distill import CandidateScore

        if layer not in self._keys:
            return None
        path = self._project.state / _FOLDER / f"{self._keys[layer]}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                return None
            return tuple(CandidateScore(**row) for row in found["scores"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, layer: str, scores: tuple[CandidateScore, ...]) -> None:
        """Keep a layer's scores.

        Raises:
            BadProject: the folder cannot be written.
        """
        if layer in self._keys:
            path = self._project.state / _FOLDER / f"{self._keys[layer]}.json"
            write_json(path, {"format": _FORMAT, "scores": [asdict(score) for score in scores]})
