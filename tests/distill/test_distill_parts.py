"""Several processes distil into one folder, each its own part."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.distill import DataSource, Recipe, distill, plan
from lanaprof.distill.parts import hold_part
from lanaprof.errors import UserError
from lanaprof.space import Space
from lanaprof.teachers import Teacher

WORKER = Path(__file__).with_name("killed_worker.py")
SHORT = Recipe(steps=6, batch_size=8)
FIRST: dict[str, tuple[str, ...]] = {"body.first": ("conv", "ds")}
THIRD: dict[str, tuple[str, ...]] = {"body.third": ("conv(kernel=1)",)}
_HOLDER = """
import sys
from pathlib import Path
from lanaprof.distill.parts import hold_part
with hold_part(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_parts_give_what_one_call_gives(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Candidates trained in two parts of one folder have the weights of a single call, bit for bit."""
    whole = distill(teacher, space, noise, wanted=FIRST | THIRD, recipe=SHORT, folder=tmp_path / "whole")
    folder = tmp_path / "parts"
    with hold_part(folder / whole.key, "b"):  # somebody else is busy with another part
        distill(teacher, space, noise, wanted=FIRST, recipe=SHORT, folder=folder, part="a")
    distill(teacher, space, noise, wanted=THIRD, recipe=SHORT, folder=folder, part="b")
    joined = distill(teacher, space, noise, wanted=FIRST | THIRD, recipe=SHORT, folder=folder)
    assert (joined.trained, joined.reused) == (0, 3)
    assert [one.digest for one in joined.candidates] == [one.digest for one in whole.candidates]


def test_same_part_twice_is_refused(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The second process on a part is told who works on it, and trains nothing."""
    key = plan(teacher, space, noise, wanted=FIRST, recipe=SHORT, folder=tmp_path).key
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / key), "a"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"process {holder.pid} on .* part 'a'") as caught:
            distill(teacher, space, noise, wanted=FIRST, recipe=SHORT, folder=tmp_path, part="a")
        assert "last checkpoint" in caught.value.hint
        holder.send_signal(signal.SIGKILL)
    assert distill(teacher, space, noise, wanted=FIRST, recipe=SHORT, folder=tmp_path, part="a").trained == 2


def test_killed_part_goes_on(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """A part that died is resumed under its name from its own checkpoint, with the same weights."""
    worker = runpy.run_path(str(WORKER))
    ended = subprocess.run(
        [sys.executable, str(WORKER), "distill", str(tmp_path / "killed"), "9", "a"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    recipe, wanted = worker["RECIPE"], worker["WANTED"]
    seen: list[int] = []
    resumed = distill(
        teacher,
        space,
        noise,
        wanted=wanted,
        recipe=recipe,
        folder=tmp_path / "killed",
        part="a",
        progress=lambda progress: seen.append(progress.done),
    )
    whole = distill(teacher, space, noise, wanted=wanted, recipe=recipe, folder=tmp_path / "whole")
    assert seen[0] > 3  # three candidates: not from the first step
    assert [one.digest for one in resumed.candidates] == [one.digest for one in whole.candidates]
    left = {path.name for path in (tmp_path / "killed" / whole.key).iterdir() if path.is_file()}
    assert left == {"about.json"}


def test_part_names_that_are_no_file_names(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A part cannot lead out of the folder."""
    with pytest.raises(UserError, match=r"'\.\./x' cannot name a part"):
        distill(teacher, space, noise, wanted=FIRST, recipe=SHORT, folder=tmp_path, part="../x")
