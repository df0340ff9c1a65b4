"""Trains the detector on one core in a few minutes: ``python examples/detector/train_detector.py``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from detector import CELL, GRID, WEIGHTS, Detector, boxes_of
from judge import judged
from safetensors.torch import save_file
from scenes import CLASSES, Scenes
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

BATCH = 64
RATE = 4e-3
SEED = 0


def targets(scenes: Scenes, places: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return canvases, and per cell whether a middle lies in it (n, 8, 8), box (n, 8, 8, 4), class (n, 8, 8)."""
    canvases = []
    there = torch.zeros(len(places), GRID, GRID)
    boxes = torch.zeros(len(places), GRID, GRID, 4)
    classes = torch.zeros(len(places), GRID, GRID, dtype=torch.long)
    for number, place in enumerate(places):
        canvas, truth, kinds = scenes.scene(place)
        canvases.append(canvas)
        for box, kind in zip(truth, kinds, strict=True):
            column, row = (((box[:2] + box[2:]) / 2) // CELL).long().tolist()
            there[number, row, column] = 1
            boxes[number, row, column] = box
            classes[number, row, column] = kind
    return torch.stack(canvases), there, boxes, classes


def loss_of(outputs: Tensor, there: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
    """Return confidence's cross entropy over all cells, box and class over those with a thing."""
    mine = there.bool()
    things = max(int(mine.sum()), 1)
    sure = functional.binary_cross_entropy_with_logits(outputs[:, 0], there, reduction="sum")
    box = generalized_box_iou_loss(boxes_of(outputs)[mine], boxes[mine], reduction="sum")
    kinds = outputs[:, 5:].permute(0, 2, 3, 1)[mine].reshape(-1, CLASSES)
    kind = functional.cross_entropy(kinds, classes[mine], reduction="sum")
    loss: Tensor = (sure + 2 * box + kind) / things
    return loss


def main() -> None:
    """Train, say how good it is on the test scenes, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    scenes, network = Scenes("train", 60 * 1024), Detector().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=arguments.steps)
    began_s = time.monotonic()
    for step in range(arguments.steps):
        x, *wanted = targets(scenes, [(step * BATCH + i) % len(scenes) for i in range(BATCH)])
        loss = loss_of(network(x), *wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}, {time.monotonic() - began_s:.0f} s", flush=True)
    save_file(network.eval().state_dict(), arguments.out)
    with torch.no_grad():
        print(f"average precision on the test scenes: {judged(network):.1%}")


if __name__ == "__main__":
    main()
