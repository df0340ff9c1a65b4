"""Train the demo's teacher from nothing on all of Fashion-MNIST and write teacher.safetensors.

    python examples/fashion_mnist/train_teacher.py --epochs 6

Cross entropy, random flips and shifts of two pixels, SGD with one cycle of the learning rate. The test
images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from teacher import WEIGHTS, ResidualNet  # type: ignore[import-not-found]  # beside this script
from torch import Tensor, nn

from lanaprof.distill.fashion_mnist import (
    FASHION_MNIST_MEAN,
    FASHION_MNIST_STD,
    find_fashion_mnist,
    read_fashion_mnist,
)

SHIFT = 2  # pixels


def load_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return normalised images (count, 1, 28, 28) and their labels."""
    images, labels = read_fashion_mnist(folder, part)
    x = torch.tensor(images).unsqueeze(1).float().div_(255)
    return x.sub_(FASHION_MNIST_MEAN).div_(FASHION_MNIST_STD), torch.tensor(labels).long()


def augment(x: Tensor) -> Tensor:
    """Return the batch, each image flipped at random, all shifted by up to two pixels."""
    flipped = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    padded = nn.functional.pad(flipped, (SHIFT,) * 4, value=float(x.min()))
    top, left = (int(value) for value in torch.randint(0, 2 * SHIFT + 1, (2,)))
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images named rightly."""
    network.eval()
    with torch.no_grad():
        parts = zip(torch.split(x, 500), torch.split(y, 500), strict=True)
        right: float = sum((network(images).argmax(1) == labels).sum().item() for images, labels in parts)
    return right / len(y)


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster where the CPU has it"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    folder = find_fashion_mnist()
    x, y = load_part(folder, "train")
    network = ResidualNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = options.epochs * (len(x) // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=steps, pct_start=0.2
    )
    began = time.monotonic()
    for epoch in range(options.epochs):
        network.train()
        total = 0.0
        order = torch.randperm(len(x))[: len(x) // options.batch_size * options.batch_size]
        for indices in torch.split(order, options.batch_size):
            batch = augment(x[indices]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
                logits = network(batch)
            loss = nn.functional.cross_entropy(logits.float(), y[indices])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(indices)
        print(
            f"epoch {epoch + 1}: loss {total / len(order):.4f}, {time.monotonic() - began:.0f} s", flush=True
        )
    test_x, test_y = load_part(folder, "test")
    share = accuracy(network, test_x, test_y)
    print(f"{len(x)} training images, {len(test_x)} test images, test accuracy {share:.4f}")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, options.out)
    print(f"wrote {options.out}, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
