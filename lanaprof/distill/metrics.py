"""How good is one output? Per image, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.distill.evaluation import class_logits, kl_per_image
from lanaprof.distill.names import METRICS
from lanaprof.errors import BadInput, UserError
from lanaprof.teachers import load_attribute

__all__ = ["METRICS", "Metric", "OwnMetric", "find_metric"]

# (outputs, teacher's outputs, labels or None) -> quality per image (batch,), or one number for the batch
Metric = Callable[[Any, Any, Tensor | None], Tensor]
OwnMetric = Callable[[Any, Any], Any]  # (outputs, labels or else teacher's outputs)


def find_metric(metric: str | OwnMetric, *, labelled: bool) -> Metric:
    """Return the function a metric means: a name, ``package.module:function``, or a function of the user's.

    Raises:
        BadInput: there is no such metric.
        UserError: it needs labels and there are none.
    """
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "given")
    if isinstance(metric, str):
        if metric in ("loss", "accuracy") and not labelled:
            raise UserError(
                f"the metric {metric!r} needs labels, and the data has none",
                hint="use --metric kl, which needs none, or data with labels (class folders, pairs (x, y))",
            )
        if metric in _BUILT_IN:
            return _BUILT_IN[metric]
        if ":" not in metric:
            raise BadInput(
                f"there is no metric {metric!r}; known are {', '.join(METRICS)}",
                hint="use one of these, or package.module:function",
            )
    function: OwnMetric = load_attribute(metric) if isinstance(metric, str) else metric

    def own(outputs: Any, teacher_outputs: Any, labels: Tensor | None) -> Tensor:
        try:
            value = torch.as_tensor(function(outputs, teacher_outputs if labels is None else labels))
        except Exception as error:  # the user's function may raise anything
            raise BadInput(f"the metric {name} failed: {type(error).__name__}: {error}") from error
        if value.ndim > 1:
            raise BadInput(
                f"the metric {name} returned the shape {tuple(value.shape)}",
                hint="return one number per image, (batch,), or one number",
            )
        return value.double()

    return own


def _kl(outputs: Any, teacher_outputs: Any, _labels: Tensor | None) -> Tensor:
    return -kl_per_image(class_logits(teacher_outputs), class_logits(outputs)).double()


def _loss(outputs: Any, _teacher_outputs: Any, labels: Tensor | None) -> Tensor:
    assert labels is not None
    values = nn.functional.cross_entropy(class_logits(outputs), labels, reduction="none")
    return -(values.flatten(1).mean(1) if values.ndim > 1 else values).double()


def _accuracy(outputs: Any, _teacher_outputs: Any, labels: Tensor | None) -> Tensor:
    assert labels is not None
    right = (class_logits(outputs).argmax(1) == labels).double()
    return right.flatten(1).mean(1) if right.ndim > 1 else right


_BUILT_IN: dict[str, Metric] = {"kl": _kl, "loss": _loss, "accuracy": _accuracy}
