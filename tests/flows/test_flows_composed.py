"""Whole networks composed of their pieces: the same networks, by key, as torch builds and exports."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lanaprof.config import ProjectConfig, parse_device
from lanaprof.flows.operators import export_networks, export_operators, find_networks, find_operators
from lanaprof.flows.project import Project
from lanaprof.flows.starting import init_project
from lanaprof.lut import Store, open_store
from lanaprof.lut.keys import operator_key
from lanaprof.ops import SKIP, TEACHER, fuse
from lanaprof.profiler.compose import composed_graph
from lanaprof.profiler.export import exported_graph
from lanaprof.space import random_architecture, save_space
from lanaprof.teachers import assemble

CPU = parse_device("cpu")
BATCHED = parse_device("cpu,batch=3")
# What puts work on the border between two pieces.
BORDERS = '''
import torch
from torch import nn


class Before(nn.Module):
    """Its last padding belongs to the first convolution of the next layer, its batch norm to the one before."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.act, self.pad = nn.BatchNorm2d(width), nn.ReLU(), nn.ZeroPad2d(1)
        self.plain, self.conv = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3)

    def forward(self, x):
        return x + self.conv(self.pad(self.act(self.plain(self.norm(x)))))


class Net(nn.Module):
    """Convolution | batch norm … : the segments end and begin in the middle of what is folded."""

    def __init__(self):
        super().__init__()
        self.stem, self.pad = nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.ZeroPad2d((0, 1, 0, 1))
        self.blocks = nn.ModuleList([Before(8), Before(8), nn.Conv2d(8, 8, 3, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(3)])
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(self.pad(x))
        kept = []
        for block, norm in zip(self.blocks, self.norms):
            x = norm(block(x))
            kept.append(x.mean((2, 3)))
        return self.head(sum(kept))


def bordered():
    torch.manual_seed(0)
    return Net()


def tail():
    """The network ends with a layer; nothing stands behind it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1))
'''
TEACHERS = {
    "depthwise, squeeze and excitation": ("timm:test_efficientnet", "3x32x32", ()),
    "paddings as TensorFlow has them": ("timm:tf_mobilenetv3_small_minimal_100", "3x32x32", ()),
    "residual": ("timm:test_resnet", "3x32x32", ()),
    "transposes at the borders": ("timm:test_convnext", "3x32x32", ("stages.*.blocks.*",)),
    "tokens": ("timm:test_vit", "3x64x64", ("blocks.*",)),
    "branches merged in the stem": ("timm:repvgg_a0", "3x32x32", ("stages.*.0",)),
    "work on the borders": ("borders:bordered", "3x16x16", ("blocks.*",)),
    "a layer at the end": ("borders:tail", "3x16x16", ("1", "2")),
}


def made_project(folder: Path, teacher: str, image: str, layers: tuple[str, ...] = ()) -> Project:
    """Return a project with three candidates and skip, where it may stand, in each of at most six layers."""
    folder.mkdir(exist_ok=True)
    (folder / "borders.py").write_text(BORDERS, encoding="utf-8")
    config = ProjectConfig(teacher=teacher, input=image, layers=layers, devices=("cpu",), data="random")
    project = init_project(folder, config)
    few = tuple(
        replace(layer, candidates=layer.candidates[:3] + (SKIP,) * (SKIP in layer.candidates[3:]))
        for layer in project.space.layers[:6]
    )
    save_space(replace(project.space, layers=few), folder / "space.json")
    return replace(project, space=replace(project.space, layers=few))


def architectures(project: Project, count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Return the teacher, all that can be skipped, and random architectures."""
    generator = random.Random(seed)
    space = project.space
    skipped = tuple(SKIP if SKIP in layer.candidates else TEACHER for layer in space.layers)
    drawn = (random_architecture(space, generator).complete(space) for _ in range(count))
    return list(dict.fromkeys([(TEACHER,) * len(space.layers), skipped, *drawn]))


def torch_key(project: Project, choices: tuple[str, ...], batch: int = 1) -> str:
    """Return the key of a network that torch built and exported."""
    names = [layer.name for layer in project.space.layers]
    network = assemble(
        project.load_teacher(), list(zip(names, choices, strict=True)), space=project.space, seed=0
    )
    return operator_key(exported_graph(fuse(network), (batch, *project.space.input_shape)))


def composed_key(project: Project, store: Store, choices: tuple[str, ...], device: str = "cpu") -> str:
    """Return the key of a network made of its pieces."""
    operators = find_operators(project, parse_device(device), store)
    assert operators.circuit is not None
    graphs = {each.id: each.graph for each in store.iter_operators()}
    names = [layer.name for layer in project.space.layers]
    chosen = {
        name: operators.operator(name, operation) or ""
        for name, operation in zip(names, choices, strict=True)
    }
    return operator_key(composed_graph(operators.circuit, graphs, chosen))


@pytest.mark.parametrize("kind", TEACHERS)
def test_composed_is_exported(kind: str, tmp_path: Path) -> None:
    """The pieces of any architecture, put together, have the key of the network that torch exports."""
    project = made_project(tmp_path, *TEACHERS[kind])
    wanted = architectures(project, 2)
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)

        composed = [composed_key(project, store, choices) for choices in wanted]

    assert [torch_key(project, choices) for choices in wanted] == composed


def test_the_batch_is_composed_too(tmp_path: Path) -> None:
    """Pieces of batch 3 make the network of batch 3."""
    project = made_project(tmp_path, *TEACHERS["work on the borders"])
    choices = architectures(project, 1)[-1]
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, BATCHED, store)

        composed = composed_key(project, store, choices, "cpu,batch=3")

    assert torch_key(project, choices, batch=3) == composed


def test_networks_need_no_torch(tmp_path: Path) -> None:
    """With the operators in the database, whole networks are made by a process that never imports torch."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    choices = architectures(project, 1)[-1]
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)
    program = (
        "import sys; from pathlib import Path\n"
        "from lanaprof.config import parse_device\n"
        "from lanaprof.flows.operators import export_networks\n"
        "from lanaprof.flows.project import load_project\n"
        "from lanaprof.lut import open_store\n"
        "project, choices = load_project(Path('.')), tuple(sys.argv[1:])\n"
        "with open_store('lanaprof.db') as store:\n"
        "    print(export_networks(project, parse_device('cpu'), store, [choices])[choices])\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, *choices], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.strip()) == (0, torch_key(project, choices)), done.stderr


def test_a_circuit_that_gives_another_teacher_is_not_used(tmp_path: Path) -> None:
    """Where the pieces, put together, are not the teacher, networks are exported as a whole."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    choices = architectures(project, 1)[-1]
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)
        path = next((tmp_path / ".lanaprof").glob("circuit-*.json"))
        circuit = json.loads(path.read_text(encoding="utf-8"))
        stem = next(step for step in circuit["steps"] if step["operator"])
        other = find_operators(project, CPU, store).keys[0]
        path.write_text(
            json.dumps({**circuit, "steps": [
                {**step, "operator": other} if step is stem else step for step in circuit["steps"]
            ]}), encoding="utf-8",
        )  # fmt: skip
        wrong = composed_key(project, store, choices)

        made = export_networks(project, CPU, store, [choices])[choices]

    assert made == torch_key(project, choices) != wrong


def test_pieces_not_exported_yet_are_no_hindrance(tmp_path: Path) -> None:
    """A network with a candidate that has no operator yet is exported as a whole."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    choices = architectures(project, 1)[-1]
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store, limit_s=0.0)

        made = export_networks(project, CPU, store, [choices])[choices]

        assert find_operators(project, CPU, store).missing
    assert made == torch_key(project, choices)


def test_networks_are_stored_with_their_recipes(tmp_path: Path) -> None:
    """What was composed once is found by its recipe."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    wanted = architectures(project, 3)
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)
        told: list[tuple[int, int]] = []

        made = export_networks(
            project, CPU, store, wanted, progress=lambda done, total: told.append((done, total))
        )

        assert made == find_networks(project, CPU, store, wanted)
    assert told == [(n, len(wanted) - 1) for n in range(1, len(wanted))]  # the teacher came with the circuit
