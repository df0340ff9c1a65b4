"""The names that data and metrics go by; apart, so that they can be checked without torch."""

from __future__ import annotations

__all__ = ["DATA_SPECS", "METRICS"]

DATA_SPECS = (
    "imagefolder:PATH",
    "torchvision:CIFAR10:ROOT",
    "fashion-mnist",
    "package.module:function",
    "random",
)
METRICS = ("kl", "loss", "accuracy")
