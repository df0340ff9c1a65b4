"""Training the networks of the comparison, in processes of their own: ``python benchmarks/lana_training.py --core N``.

A process reads paths of jobs from its standard input, one a line, and writes each result beside its job. Every network
is trained by the same recipe: distillation from the teacher's output with labels where there are any, the best moment
on held-out data kept, judged once on data that nothing else has looked at. The networks of one process share the
teacher's outputs, which are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LIBRARY, SCRATCH, SCALED = "library", "scratch", "scaled"


class Trainer:
    """A project with all that its networks share in training."""

    def __init__(self, folder: Path, precision: str) -> None:
        from lanaprof.distill.remembering import TeacherOutputs
        from lanaprof.distill.runtime import Runtime
        from lanaprof.flows.learning import load_project_data
        from lanaprof.flows.project import load_project

        self.project = load_project(folder)
        self.teacher = self.project.load_teacher()
        self.data = load_project_data(self.project)
        self._outputs = TeacherOutputs(self.teacher.module, Runtime.here(precision))

    def train(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return what became of one network.

        Args:
            job: ``kind`` (library: trained candidates; scratch: the same architecture with fresh weights; scaled:
                another network made by ``factory``), ``choices``, ``steps``, ``batch``, ``seed``, ``learning_rate``,
                ``precision``, ``ema``, ``evaluations``, ``test`` (data spec; empty for the project's own test split).
        """
        from lanaprof.distill import FinetuneRecipe, finetune

        student = network_of(job, self.project, self.teacher)
        began_s = time.monotonic()
        recipe = FinetuneRecipe(
            steps=job["steps"],
            batch_size=job["batch"],
            learning_rate=job["learning_rate"],
            evaluations=job["evaluations"],
            seed=job["seed"],
            precision=job["precision"],
            ema=job["ema"],
        )
        tuned = finetune(student, self.teacher, self.data, recipe=recipe, outputs=self._outputs)
        seconds = time.monotonic() - began_s
        batches = test_batches(self.project, self.data, job["test"])
        wrong, unlike = judge(student, self.teacher.module, batches)
        return {
            "seconds": round(seconds, 1),
            "heldout_kl": tuned.best.kl,
            "before_kl": tuned.before.kl,
            "reestimated_kl": tuned.reestimated.kl,
            "images": sum(len(x) for x, _ in batches),
            "wrong": wrong,
            "unlike": unlike,
        }


def main() -> None:
    """Do the jobs that come in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int)
    core = parser.parse_args().core
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    trainers: dict[tuple[str, str], Trainer] = {}
    for line in sys.stdin:
        path = Path(line.strip())
        job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        key = (job["project"], job["precision"])
        if key not in trainers:
            trainers[key] = Trainer(Path(job["project"]), job["precision"])
        result = trainers[key].train(job)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result), encoding="utf-8")
        temporary.replace(path.with_suffix(".result.json"))
        print(path, flush=True)


def test_batches(project: Any, data: Any, spec: str) -> list[Any]:
    """Return the batches that networks are judged on: a data spec's, or the project's test split."""
    from lanaprof.distill import load_data

    if not spec:
        return list(data.iter_split("test"))
    test = load_data(
        spec,
        input_shape=project.space.input_shape,
        preprocessing=project.facts["preprocessing"] or None,
        search_path=project.folder,
    )
    return [*test.iter_split("train"), *test.iter_split("heldout")]


def network_of(job: dict[str, Any], project: Any, teacher: Any) -> Any:
    """Return the network to train."""
    from lanaprof.flows.students import build_student
    from lanaprof.teachers import assemble, load_attribute

    if job["kind"] == SCALED:
        import torch

        torch.manual_seed(job["seed"])
        factory = load_attribute(job["factory"], search_path=project.folder)
        return factory(**job["arguments"]).eval()
    if job["kind"] == SCRATCH:
        names = [layer.name for layer in project.space.layers]
        network = assemble(
            teacher, list(zip(names, job["choices"], strict=True)), space=project.space, seed=job["seed"]
        )
        forget(network, seed=job["seed"])
        return network
    return build_student(project, tuple(job["choices"]), teacher=teacher, finetuned=False).module


def forget(network: Any, *, seed: int) -> None:
    """Give every weight of a network its fresh value, those of the teacher that it holds as well."""
    import torch

    torch.manual_seed(seed)
    for part in network.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def judge(student: Any, teacher: Any, batches: list[Any]) -> tuple[list[int] | None, list[int]]:
    """Return the images (their numbers) that the student classifies wrongly, and unlike the teacher."""
    import torch

    wrong: list[int] = []
    unlike: list[int] = []
    labelled, count = True, 0
    with torch.no_grad():
        for x, y in batches:
            guess, wanted = student(x).argmax(1), teacher(x).argmax(1)
            unlike += [count + int(place) for place in torch.nonzero(guess != wanted).flatten()]
            if y is None:
                labelled = False
            else:
                wrong += [count + int(place) for place in torch.nonzero(guess != y).flatten()]
            count += len(x)
    return (wrong if labelled else None), unlike


if __name__ == "__main__":
    main()
