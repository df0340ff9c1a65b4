"""The spaces that the benchmarks run on, and how a project of one is made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, command

from lanaprof.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What ``lanaprof init`` is told.

    Attributes:
        teacher: as after ``--teacher``.
        size: of the input, e.g. ``3x224x224``.
        layers: as after ``--layers``; empty for the model's own.
        ops: as after ``--ops``.
    """

    teacher: str
    size: str
    layers: str = ""
    ops: str = "quick"


SPACES = {
    "efficientnet_lite0": Space(teacher="timm:efficientnet_lite0", size="3x224x224"),
    "mobilenetv3_large_100": Space(teacher="timm:mobilenetv3_large_100", size="3x224x224"),
    "resnet26": Space(teacher="timm:resnet26", size="3x160x160"),
    "resnest26d": Space(teacher="timm:resnest26d", size="3x160x160"),
    "convnext_atto": Space(teacher="timm:convnext_atto", size="3x224x224"),
    # A plain vision transformer has no candidates but its own block and skip.
    "vit_tiny_patch16_224": Space(teacher="timm:vit_tiny_patch16_224", size="3x224x224"),
    # One whose layers are images has them all.
    "mobilevitv2_050": Space(teacher="timm:mobilevitv2_050", size="3x256x256", layers="stages.*.*"),
}
QUICK = "tiny"
_TINY_OPS = "skip\nconv\nds\nmbconv(expand=1)\n"


def check_spaces(names: list[str]) -> None:
    """Check that all spaces are known.

    Raises:
        BadInput: one is not; lists them.
    """
    unknown = [name for name in names if name != QUICK and name not in SPACES]
    if unknown:
        raise BadInput(
            f"there is no space {unknown[0]!r} here; there are {', '.join(SPACES)}",
            hint=f"--spaces {next(iter(SPACES))}",
        )


def make_project(folder: Path, name: str, *, threads: int = 1, ops: str | None = None) -> None:
    """Make the project of a space unless it is there; ``ops`` replaces the space's own operations."""
    if (folder / "lanaprof.toml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if name == QUICK:
        shutil.copyfile(HERE / "tiny_teacher.py", folder / "tiny_teacher.py")
        (folder / "ops.txt").write_text(_TINY_OPS, encoding="utf-8")
        space = Space(teacher="tiny_teacher:network", size="1x12x12", layers="1.*", ops="ops.txt")
    else:
        space = SPACES[name]
    device = "cpu" if threads == 1 else f"cpu,threads={threads}"
    layers = ["--layers", space.layers] if space.layers else []
    words = ["--teacher", space.teacher, "--input", space.size, *layers, "--ops", ops or space.ops]
    command(folder, "init", *words, "--device", device)
