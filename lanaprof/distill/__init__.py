"""How good is each candidate? Data, layer-wise distillation, scores, fine-tuning.

Importing this package does not import torch; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lanaprof.distill.batchnorm import reestimate_batch_norm
    from lanaprof.distill.data import DataSource
    from lanaprof.distill.dropped import DroppedCandidate, find_dropped
    from lanaprof.distill.evaluation import Evaluation, evaluate
    from lanaprof.distill.finetuning import finetune
    from lanaprof.distill.pretrain import DistillPlan, DistillResult, distill, plan
    from lanaprof.distill.rating import CandidateScore, ScoreRecipe
    from lanaprof.distill.runtime import Limits, Progress
    from lanaprof.distill.score import score_candidates
    from lanaprof.distill.specs import DATA_SPECS, load_data
    from lanaprof.distill.tuning import FinetuneRecipe, FinetuneResult
    from lanaprof.distill.weights import (
        Recipe,
        TrainedCandidate,
        distill_key,
        find_trained,
        load_candidate,
        refuse_damaged,
        weights_text,
    )

_HOME = {
    "DATA_SPECS": "specs",
    "CandidateScore": "rating",
    "DataSource": "data",
    "DistillPlan": "pretrain",
    "DistillResult": "pretrain",
    "DroppedCandidate": "dropped",
    "Evaluation": "evaluation",
    "FinetuneRecipe": "tuning",
    "FinetuneResult": "tuning",
    "Limits": "runtime",
    "Progress": "runtime",
    "Recipe": "weights",
    "ScoreRecipe": "rating",
    "TrainedCandidate": "weights",
    "distill": "pretrain",
    "distill_key": "weights",
    "evaluate": "evaluation",
    "find_dropped": "dropped",
    "find_trained": "weights",
    "finetune": "finetuning",
    "load_candidate": "weights",
    "load_data": "specs",
    "plan": "pretrain",
    "reestimate_batch_norm": "batchnorm",
    "refuse_damaged": "weights",
    "score_candidates": "score",
    "weights_text": "weights",
}

__all__ = [
    "DATA_SPECS",
    "CandidateScore",
    "DataSource",
    "DistillPlan",
    "DistillResult",
    "DroppedCandidate",
    "Evaluation",
    "FinetuneRecipe",
    "FinetuneResult",
    "Limits",
    "Progress",
    "Recipe",
    "ScoreRecipe",
    "TrainedCandidate",
    "distill",
    "distill_key",
    "evaluate",
    "find_dropped",
    "find_trained",
    "finetune",
    "load_candidate",
    "load_data",
    "plan",
    "reestimate_batch_norm",
    "refuse_damaged",
    "score_candidates",
    "weights_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
