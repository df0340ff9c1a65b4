"""A cluster of three nodes on this machine, one core each, and a small project they share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from lanaprof.cli import main

TEACHER = '''"""Six layers, and data that never changes.

A node whose process is named in the file "doomed" stops in the middle of a group, behind a checkpoint, and says which
of its processes did: however fast or slow a group is, the node can then be lost at work.
"""

import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
DOOMED, HELD = FOLDER / "doomed", FOLDER / "held"


def stop_where_doomed() -> None:
    if not DOOMED.exists() or DOOMED.read_text() != str(os.getppid()):
        return
    for lock in (FOLDER / ".lanaprof" / "weights").glob("*/distilling@group-*.lock"):
        checkpoint = lock.with_name(lock.name.replace("distilling", "checkpoint")).with_suffix(".pt")
        own = lock.read_text().startswith(f"process {os.getpid()} ")
        if own and checkpoint.exists() and checkpoint.stat().st_mtime_ns > lock.stat().st_mtime_ns:
            HELD.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        stop_where_doomed()
        return x + torch.relu(self.norm(self.conv(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block() for _ in range(6)))
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def data(split: str) -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(len(split))
    return [(torch.randn(1, 8, 8, generator=generator), i % 4) for i in range(48)]
'''
INIT = (
    "init", "--teacher", "tiny:network", "--input", "1x8x8", "--layers", "1.*", "--data", "tiny:data",
    "--ops", "ops.txt", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute as the nodes do: bits depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after ``init``; to be copied."""
    folder = tmp_path_factory.mktemp("fresh") / "project"
    folder.mkdir()
    (folder / "tiny.py").write_text(TEACHER)
    (folder / "ops.txt").write_text("skip\nconv\nds\n1.[0-2]: conv(kernel=1)\n")  # and a span
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(main, INIT)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")  # the tests behind these have the cores for themselves
def nodes() -> Iterator[Any]:
    """A running cluster of two nodes with one core each; tests may add and remove others."""
    pytest.importorskip("ray", reason="pip install 'lanaprof[ray]'")
    from lanaprof.distill.cluster import QUIET

    os.environ.update(QUIET)
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    health = {  # milliseconds: a node that is killed is noticed soon, and one that is slow never taken for dead
        "health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 600_000,
    }  # fmt: skip
    head = {**small, "include_dashboard": False, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**small)
    yield cluster
    cluster.shutdown()
    gc.collect()  # Ray leaves pipes to its processes to the garbage collector, which warns of them here
