"""Distils or fine-tunes the tiny teacher and kills itself with SIGKILL after some steps.

python killed_worker.py distill|stop|finetune FOLDER STEPS_UNTIL_DEATH [PART]
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

import torch

from lanaprof.distill import FinetuneRecipe, Limits, Progress, Recipe, distill, finetune, load_data
from lanaprof.teachers import assemble

RECIPE = Recipe(steps=30, batch_size=8)
LONG_RECIPE = Recipe(steps=24, batch_size=8)
COSTS = {  # one candidate is dear: it will be given up
    "body.first": {"skip": ((0.0, 0.0),), "conv": ((1.0, 1.0),), "ds": ((0.5, 0.5),)},
    "body.third": {"teacher": ((1.0, 1.0),), "conv(kernel=1)": ((2.0, 2.0),)},
}
FINETUNE_RECIPE = FinetuneRecipe(steps=24, batch_size=8, heldout_images=32)
WANTED = {"body.first": ("conv", "ds"), "body.third": ("conv(kernel=1)",)}
CHOICES = (("body.first", "conv"), ("body.third", "ds"))


def main() -> None:
    """Run until death, or to the end."""
    made = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    torch.set_num_threads(1)
    teacher, space = made["make_teacher"](), made["make_space"]()
    data = load_data("random", input_shape=(3, 16, 16))
    what, folder, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    seen: list[int] = []

    def watch(progress: Progress) -> None:
        seen.append(progress.done)
        if len(seen) == 1:
            sys.stdout.write(str(progress.done))
            sys.stdout.flush()
        if len(seen) == left:
            os.kill(os.getpid(), signal.SIGKILL)

    limits = Limits(checkpoint_s=0.0)
    if what in ("distill", "stop"):
        distill(
            teacher,
            space,
            data,
            wanted=WANTED,
            recipe=LONG_RECIPE if what == "stop" else RECIPE,
            folder=folder,
            limits=limits,
            costs=COSTS if what == "stop" else None,
            part=(sys.argv[4:] or [""])[0],
            progress=watch,
        )
    else:
        student = assemble(teacher, CHOICES, space=space)
        finetune(student, teacher, data, recipe=FINETUNE_RECIPE, folder=folder, limits=limits, progress=watch)


if __name__ == "__main__":
    main()
