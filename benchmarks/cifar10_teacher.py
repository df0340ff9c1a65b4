"""The CIFAR-10 teacher of benchmarks/lana.py: the Fashion-MNIST example's network for colour images, trained here.

    python benchmarks/cifar10_teacher.py --images FOLDER --out cifar10.safetensors

FOLDER has ``train`` and ``test``, in each a folder of images per class. Cross entropy, random flips and shifts, SGD
with one cycle of the learning rate; the test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from teacher import BLOCKS_PER_STAGE, CLASSES, WIDTHS, BasicBlock, ResidualNet  # type: ignore[import-not-found]
from torch import nn

__all__ = ["network", "teacher"]

WEIGHTS = Path(__file__).with_name("cifar10.safetensors")
SHAPE = (3, 32, 32)


def network(width: float = 1.0, depth: int = BLOCKS_PER_STAGE) -> nn.Module:
    """Return the untrained network: ``depth`` blocks per stage, so many times the teacher's widths."""
    widths = [max(8, round(width * wide / 8) * 8) for wide in WIDTHS]
    made = ResidualNet()
    blocks, wide_in = [], widths[0]
    for stage, wide in enumerate(widths):
        for place in range(depth):
            blocks.append(BasicBlock(wide_in, wide, stride=2 if stage and not place else 1))
            wide_in = wide
    made.stem = nn.Sequential(
        nn.Conv2d(SHAPE[0], widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
    )
    made.blocks = nn.Sequential(*blocks)
    made.head = nn.Linear(wide_in, CLASSES)
    result: nn.Module = made
    return result


def teacher() -> nn.Module:
    """Return the trained network; its weights lie beside this file."""
    made = network()
    made.load_state_dict(load_file(WEIGHTS))
    return made.eval()


def main() -> None:
    """Train, look at the test images, write."""
    from lanaprof.distill import load_data
    from lanaprof.distill.augmenting import augment

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        print(f"{options.out} is there already")
        return
    torch.manual_seed(options.seed)
    data = load_data(f"imagefolder:{options.images / 'train'}", input_shape=SHAPE)
    made = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = round(options.epochs * data.train_count / options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=steps, pct_start=0.2
    )
    began, total = time.monotonic(), 0.0
    batches = data.batches("train", options.batch_size, seed=options.seed)
    made.train()
    for step in range(steps):
        x, y = next(batches)
        assert y is not None
        x = augment(x, seed=options.seed, step=step).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(made(x).float(), y, label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1} of {steps}: loss {total / (step % 100 + 1):.4f}, "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            total = 0.0
    batches.close()
    made = made.to(memory_format=torch.contiguous_format).eval()
    test = load_data(f"imagefolder:{options.images / 'test'}", input_shape=SHAPE)
    right = count = 0
    with torch.no_grad():
        for x, y in [*test.iter_split("train"), *test.iter_split("heldout")]:
            right += int((made(x).argmax(1) == y).sum())
            count += len(x)
    print(f"test accuracy {right / count:.4f} on {count} images")
    save_file({name: value.contiguous() for name, value in made.state_dict().items()}, options.out)


if __name__ == "__main__":
    main()
