"""Operations for benchmarks of learning: a fixed list that spans families and sizes, whatever the catalogues become."""

from __future__ import annotations

from pathlib import Path

__all__ = ["OPERATIONS", "write_pool"]

OPERATIONS = (
    "conv(kernel=1)", "conv", "conv(kernel=5)", "conv(groups=4)", "conv(groups=8)", "conv(kernel=1,act=none)",
    "conv(act=none)", "ds(out=relu)", "ds(kernel=5,out=relu)", "ds(kernel=7,out=relu)", "mbconv(expand=0.5,out=relu)",
    "mbconv(expand=1,out=relu)", "mbconv(expand=2,out=relu)", "mbconv(expand=3,out=relu)", "mbconv(expand=4,out=relu)",
    "mbconv(expand=6,out=relu)", "mbconv(expand=1,kernel=5,out=relu)", "mbconv(expand=2,kernel=5,out=relu)",
    "mbconv(expand=4,kernel=5,out=relu)", "mbconv(expand=2,kernel=7,out=relu)", "fused_mbconv(expand=0.25,out=relu)",
    "fused_mbconv(expand=0.5,out=relu)", "fused_mbconv(expand=1,out=relu)", "fused_mbconv(expand=2,out=relu)",
    "basic(width=0.0625,out=relu)", "basic(width=0.125,out=relu)", "basic(width=0.25,out=relu)",
    "basic(width=0.5,out=relu)", "basic(width=0.75,out=relu)", "bottleneck(width=0.125,out=relu)",
    "bottleneck(width=0.25,out=relu)", "bottleneck(width=0.5,out=relu)", "bottleneck(width=0.5,groups=8,out=relu)",
    "repvgg",
)  # fmt: skip


def write_pool(path: Path, *, count: int = len(OPERATIONS), skip: bool = True) -> Path:
    """Write so many of the operations, spread over the list, as a file for ``init --ops``."""
    chosen = [OPERATIONS[place * len(OPERATIONS) // count] for place in range(min(count, len(OPERATIONS)))]
    path.write_text("\n".join([*(["skip"] if skip else []), *chosen]) + "\n", encoding="utf-8")
    return path
