"""Scales of candidates in int8 and fp8, from what really flows through the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from lanaprof.distill.runtime import Runtime
from lanaprof.distill.taps import Taps
from lanaprof.distill.training import frozen_copy
from lanaprof.ops.quantising.ranges import METHODS, Observed

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.ops.quantising.module import Quantised
    from lanaprof.teachers import Teacher

__all__ = ["CALIBRATION_VERSION", "calibrate_candidates"]

CALIBRATION_VERSION = 1  # raise it when the same candidates get other scales
CALIBRATION_IMAGES = 256
BATCH_SIZE = 32

Name = tuple[str, str]  # (layer, operation)


def calibrate_candidates(
    teacher: Teacher,
    modules: Mapping[Name, Quantised],
    data: DataSource,
    *,
    images: int = CALIBRATION_IMAGES,
    method: str = METHODS[0],
) -> None:
    """Set the scales of candidates in int8 and fp8, in place.

    Each is run in float32 on what the teacher's layer gets. The borders of a layer have the scales of the teacher's own
    activations there: whoever stands in the next layer agrees, and what one gives in int8 the next takes so. The same
    images always come, so that the same candidates get the same scales.

    Args:
        teacher: left as it is.
        modules: by layer and operation.
        data: its ``train`` split is used, without labels.
        images: how many, at least.
        method: of choosing scales, one of ``METHODS``.

    Raises:
        UserError: a layer is not called once with a tensor coming out.
    """
    if not modules:
        return
    runtime = Runtime.here("fp32")
    for module in modules.values():
        runtime.place(module)
    taps = Taps(frozen_copy(teacher.module, runtime), dict.fromkeys(layer for layer, _ in modules))
    borders = {layer: (Observed(), Observed()) for layer, _ in modules}
    inside = {name: [Observed() for _ in module.values] for name, module in modules.items()}
    size = min(BATCH_SIZE, data.train_count)
    batches = data.batches("train", size)
    try:
        with torch.no_grad():
            for _ in range(-(-min(images, data.train_count) // size)):
                _, flowed = taps.run(runtime.send(next(batches)[0]))
                for layer, (before, behind) in borders.items():
                    before.add(flowed[layer].input)
                    behind.add(flowed[layer].output)
                for (layer, operation), module in modules.items():
                    module.observe(flowed[layer].input, inside[layer, operation])
    finally:
        batches.close()
    for name, module in modules.items():
        module.calibrate(inside[name], border=borders[name[0]], method=method)
