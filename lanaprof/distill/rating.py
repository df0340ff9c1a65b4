"""How candidates are judged, and how good they were found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lanaprof.distill.combining import shaped
from lanaprof.distill.metrics import OwnMetric
from lanaprof.errors import BadInput

__all__ = ["BATCH_NORMS", "HOSTS", "CandidateScore", "ScoreRecipe", "shaped_score"]

BATCH_NORMS = ("reestimate", "keep")  # the first is the default
HOSTS = ("teacher", "average")
KL_POWER = 0.5
SCORE_VERSION = 1  # raise it when the same recipe gives other scores


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """How good a candidate is in its layer.

    Attributes:
        layer: the layer's name.
        operation: the candidate's text.
        score: higher is better, the teacher's own layer is 0.
        standard_error: of the score over images; None where the metric gives one number per batch and
            there was one batch.
        images: how many held-out images it was judged on.
    """

    layer: str
    operation: str
    score: float
    standard_error: float | None
    images: int


@dataclass(frozen=True, slots=True)
class ScoreRecipe:
    """How candidates are judged.

    Attributes:
        metric: ``kl`` (minus the divergence from the teacher's output in nats, no labels needed), ``loss``
            (minus the cross entropy), ``accuracy`` (share right), or ``package.module:function``: called
            with the outputs and the labels (without labels: the teacher's outputs), returns a tensor
            (batch,) or one number, higher is better. A function itself is taken, too. Several threads call
            it at once.
        images: at most so many held-out images.
        batch_size: images in a batch at most; fewer where the activations would need over 1 GiB.
        batch_norm: ``reestimate`` takes the statistics of all batch norms behind a candidate anew, as they
            will be in any network that holds it; ``keep`` judges with the host's.
        host: in which network a candidate stands: ``teacher``, or ``average``, a network of average cost.
        power: the size of a score is raised to it, its sign stays. None: 0.5 for ``kl``, else 1. A divergence
            grows with the square of a disturbance; roots are what adds up in a network (docs/decisions/0011).
    """

    metric: str | OwnMetric = "kl"
    images: int = 1024
    batch_size: int = 128
    batch_norm: str = "reestimate"
    host: str = "teacher"
    power: float | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.batch_size < 1:
            raise BadInput(
                f"cannot score on {self.images} images, {self.batch_size} at a time", hint="use at least 1"
            )
        for name, known in (("batch_norm", BATCH_NORMS), ("host", HOSTS)):
            if getattr(self, name) not in known:
                raise BadInput(
                    f"there is no {name} {getattr(self, name)!r}; known are {', '.join(known)}",
                    hint="use one of these",
                )

        if not 0 < self.shape <= 1:
            raise BadInput(
                f"scores cannot be raised to the power {self.shape:g}", hint="above 0, at most 1: plain"
            )

    @property
    def shape(self) -> float:
        """The power in use."""
        return self.power if self.power is not None else self._default_power

    @property
    def _default_power(self) -> float:
        return KL_POWER if self.metric == "kl" else 1.0

    @property
    def text(self) -> str:
        """The name the scores are kept under: the metric, in brackets what is not the default.

        >>> ScoreRecipe("loss", batch_norm="keep").text
        'loss(batch_norm=keep)'
        """
        name = self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "given")
        choices: tuple[tuple[str, object, object], ...] = (
            ("batch_norm", self.batch_norm, BATCH_NORMS[0]),
            ("host", self.host, HOSTS[0]),
            ("power", f"{self.shape:g}", f"{self._default_power:g}"),
        )
        parts = [f"{part}={value}" for part, value, default in choices if value != default]
        return f"{name}({', '.join(parts)})" if parts else name


def shaped_score(plain: CandidateScore, recipe: ScoreRecipe) -> CandidateScore:
    """Return a score with the recipe's power; by ``kl`` nothing in the teacher is better than its own layer."""
    most = 0.0 if recipe.metric == "kl" and recipe.host == "teacher" else math.inf

    def of(value: float) -> float:
        return shaped(min(value, most), recipe.shape)

    error = plain.standard_error
    if error is not None and recipe.shape != 1:
        # a root is steep near 0: the difference across the interval, not its slope
        error = (of(plain.score + error) - of(plain.score - error)) / 2
    return replace(plain, score=of(plain.score), standard_error=error)
