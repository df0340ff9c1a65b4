"""What convolutions, linear layers and norms do to channels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from lanaprof.ops.slimming.calls import Call
from lanaprof.ops.slimming.classes import Ids
from lanaprof.ops.slimming.tracking import Tracker, Use

__all__ = ["LAYER_RULES"]

_WHOLE_GROUPS = 16  # of so many groups whole ones are dropped; of fewer, as many channels of each …
_NARROW_GROUP = 8  # … but where they have no more channels than this: what is left of one would be waste
_FEW_GROUPS = 2  # these stay, however narrow: they are branches, as in split attention


def convolution(tracker: Tracker, call: Call) -> bool:
    given = call.given("input weight bias stride padding dilation groups")
    x, weight, out = given["input"], given["weight"], call.result
    groups, outputs = int(given.get("groups", 1)), int(weight.shape[0])
    taken, (made, inner) = tracker.marks(x)[1], tracker.marks(weight)[:2]
    if made is not None:
        tracker.classes.produce(made)
    if groups == 1:
        tracker.join([taken, inner] if x.shape[1] > 1 else [])
    elif made is not None:
        inner = _grouped(tracker, taken, made, inner, groups=groups)
    tracker.inputs[tracker.name(weight)] = taken
    if isinstance(given.get("bias"), Tensor):
        tracker.join([made, *tracker.marks(given["bias"])])
    tracker.put(out, (tracker.marks(x)[0], made, *(None for _ in out.shape[2:])))
    tracker.use(weight, 0, made, out, outputs)
    tracker.use(weight, 1, inner, out, outputs)
    return True


def _grouped(tracker: Tracker, taken: Ids | None, made: Ids, inner: Ids | None, *, groups: int) -> Ids | None:
    """Say which channels of a grouped convolution go together; return those along the weight's second dim."""
    per_group = 1 if inner is None else len(inner)
    by_group = made.reshape(groups, -1)
    if taken is None and per_group == 1:
        tracker.classes.fix(made)  # depthwise on what stays as it is
        return None
    narrow = per_group == 1 or (per_group <= _NARROW_GROUP and groups > _FEW_GROUPS)
    if taken is not None and (groups >= _WHOLE_GROUPS or narrow):
        of_input = taken.reshape(groups, per_group)
        tracker.classes.unite_rows(np.concatenate([of_input, by_group], axis=1).T)
        if inner is not None:
            tracker.classes.fix(inner)
        return None
    tracker.classes.unite_rows(by_group)
    if inner is not None and taken is None:
        tracker.classes.fix(inner)
        return None
    if inner is not None and taken is not None:
        of_input = taken.reshape(groups, per_group)
        tracker.classes.unite_rows(of_input)
        tracker.classes.unite(of_input[0], inner)
    return inner


def linear(tracker: Tracker, call: Call) -> bool:
    given = call.given("input weight bias")
    x, weight, out = given["input"], given["weight"], call.result
    made, inner = tracker.marks(weight)
    if made is not None:
        tracker.classes.produce(made)
    if x.shape[-1] > 1:
        tracker.join([tracker.marks(x)[-1], inner])
    if isinstance(given.get("bias"), Tensor):
        tracker.join([made, *tracker.marks(given["bias"])])
    tracker.put(out, (*tracker.marks(x)[:-1], made))
    tracker.use(weight, 0, made, out, int(weight.shape[0]))
    tracker.use(weight, 1, inner, out, int(weight.shape[0]))
    return True


def batch_norm(tracker: Tracker, call: Call) -> bool:
    given = call.given("input running_mean running_var weight bias training momentum eps")
    x = given["input"]
    own = tracker.marks(x)[1]
    vectors = [given.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
    tracker.join([own, *(tracker.marks(vector)[0] for vector in vectors if vector is not None)])
    weight, variance = tracker.name(given.get("weight")), tracker.name(given.get("running_var"))
    if own is not None and weight:
        places = math.prod(x.shape[2:])
        tracker.uses.append(Use(weight, 0, own, places, variance, float(given.get("eps", 1e-5))))
    tracker.put(call.result, tracker.marks(x))
    return True


def layer_norm(tracker: Tracker, call: Call) -> bool:
    given = call.given("input normalized_shape weight bias eps")
    x, weight = given["input"], given.get("weight")
    if len(given["normalized_shape"]) != 1 or weight is None:
        return False
    vectors = [vector for vector in (weight, given.get("bias")) if isinstance(vector, Tensor)]
    own = tracker.marks(x)[-1]
    tracker.join([own, *(tracker.marks(vector)[0] for vector in vectors)])
    tracker.use(weight, 0, own, x, int(x.shape[-1]))
    tracker.put(call.result, tracker.marks(x))
    return True


def group_norm(tracker: Tracker, call: Call) -> bool:
    given = call.given("input num_groups weight bias eps")
    x, groups = given["input"], int(given["num_groups"])
    own = tracker.marks(x)[1]
    vectors = [given.get(name) for name in ("weight", "bias")]
    tracker.join([own, *(tracker.marks(vector)[0] for vector in vectors if isinstance(vector, Tensor))])
    if own is not None:
        tracker.classes.unite_rows(own.reshape(groups, -1))
        if isinstance(vectors[0], Tensor):
            tracker.use(vectors[0], 0, own, x, int(x.shape[1]))
    tracker.put(call.result, tracker.marks(x))
    return True


LAYER_RULES: dict[str, Callable[[Tracker, Call], bool]] = {
    "conv1d": convolution,
    "conv2d": convolution,
    "conv3d": convolution,
    "linear": linear,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": group_norm,
}
