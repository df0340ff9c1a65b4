"""Average precision against the true boxes of the test scenes: ``python judge.py NETWORK.onnx…``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from detector import FAINT, average_precision, detections, matched
from scenes import Scenes
from torch import Tensor

BATCH = 50


def judged(network: Callable[[Tensor], Tensor], *, batch: int = BATCH) -> float:
    """Return the average precision over all detections in the test scenes."""
    scenes = Scenes("test")
    confidences: list[float] = []
    right: list[bool] = []
    things = 0
    for start in range(0, len(scenes), batch):
        truth = [scenes.scene(place) for place in range(start, min(start + batch, len(scenes)))]
        found = detections(network(torch.stack([canvas for canvas, _, _ in truth])), least=FAINT)
        for one, (_, boxes, classes) in zip(found, truth, strict=True):
            sure, hits = matched(one, boxes, classes)
            confidences += sure
            right += hits
            things += len(boxes)
    return average_precision(confidences, right, things)


def main() -> None:
    """Print a line per file."""
    import onnxruntime  # only here: training needs none

    for path in sys.argv[1:]:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(x: Tensor, session: onnxruntime.InferenceSession = session) -> Tensor:
            return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

        print(f"{path}: average precision {judged(run, batch=1):.1%}")


if __name__ == "__main__":
    main()
