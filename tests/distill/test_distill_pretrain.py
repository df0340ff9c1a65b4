"""Layer-wise distillation."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lanaprof.distill import (
    DataSource,
    DistillResult,
    Limits,
    Progress,
    Recipe,
    distill,
    find_trained,
    load_candidate,
    load_data,
    plan,
    weights_text,
)
from lanaprof.distill.weights import build_candidate, candidate_path
from lanaprof.errors import BadArchitecture, BadInput, StoreError, UnknownOperation, UserError
from lanaprof.space import Layer, Space
from lanaprof.teachers import Teacher, state_digest

WORKER = Path(__file__).with_name("killed_worker.py")
SHORT = Recipe(steps=6, batch_size=8)
WANTED = {"body.first": ("conv", "ds"), "body.third": ("conv(kernel=1)",)}


def _weights(result: DistillResult) -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    return {(one.layer, one.operation): load_file(one.path) for one in result.candidates}


def _same(left: Any, right: Any) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, right[key][name]) for key in left for name, value in left[key].items()
    )


def _shapes(space: Space, layer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    found = space.get_layer(layer)
    return found.input_shape, found.output_shape


def test_candidates_learn(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """More steps leave a smaller error, and the error of a convolution is well below that of a zero."""
    errors = []
    for steps in (2, 80):
        recipe = Recipe(steps=steps, batch_size=16)
        result = distill(
            teacher, space, noise, wanted={"body.third": ("conv(act=none)",)}, recipe=recipe, folder=tmp_path
        )
        errors.append(result.candidates[0].error)
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.4


def test_teacher_is_left_alone(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """Distilling changes neither weights, statistics, modes nor gradients of the teacher."""
    modes = [part.training for part in teacher.module.modules()]
    distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    assert state_digest(teacher.module) == teacher.weights_digest
    assert [part.training for part in teacher.module.modules()] == modes
    assert all(parameter.requires_grad for parameter in teacher.module.parameters())


def test_finished_candidates_are_reused(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A second call trains only what the first one did not."""
    first = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    more = {**WANTED, "body.second": ("ds",)}
    second = distill(teacher, space, noise, wanted=more, recipe=SHORT, folder=tmp_path)
    assert (first.trained, first.reused) == (3, 0)
    assert (second.trained, second.reused) == (1, 3)
    assert [one.layer for one in second.candidates] == [
        "body.first", "body.first", "body.second", "body.third",
    ]  # fmt: skip


def test_what_has_no_parameters_is_not_trained(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """teacher and skip are accepted and need no training; precisions of one operation share weights."""
    wanted = {"body.first": ("teacher", "skip", "conv", "conv@fp16")}
    result = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path)
    assert [one.operation for one in result.candidates] == ["conv"]


def test_weights_do_not_depend_on_company(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Trained alone, together, or in turns for want of memory: the same bits."""
    together = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path / "together")
    turns = distill(
        teacher,
        space,
        noise,
        wanted=WANTED,
        recipe=SHORT,
        folder=tmp_path / "turns",
        limits=Limits(max_bytes=1),
    )
    assert _same(_weights(together), _weights(turns))


def test_weights_do_not_depend_on_the_number_of_threads(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Workers, one candidate each, train the same bits as one thread, and the setting is given back."""
    alone = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path / "alone")
    torch.set_num_threads(3)
    together = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path / "together")
    assert torch.get_num_threads() == 3
    assert _same(_weights(together), _weights(alone))


def test_candidates_with_dropout_are_reproducible(
    teacher: Teacher,
    space: Space,
    noise: DataSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A module that draws random numbers gets the same ones whoever is trained beside it."""

    def with_dropout(layer: str, operation: str, shapes: Any, *, seed: int, **given: Any) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), build_candidate(layer, operation, shapes, seed=seed, **given))

    monkeypatch.setattr("lanaprof.distill.job.build_candidate", with_dropout)
    torch.set_num_threads(2)
    together = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path / "together")
    wanted = {"body.third": WANTED["body.third"]}
    alone = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path / "alone")
    assert alone.candidates[0].digest == together.candidates[2].digest


def test_candidate_that_overwrites_its_input_harms_nobody(
    teacher: Teacher,
    space: Space,
    noise: DataSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its neighbours in the layer are trained on the layer's input all the same."""

    def greedy(layer: str, operation: str, shapes: Any, *, seed: int, **given: Any) -> nn.Module:
        module = build_candidate(layer, operation, shapes, seed=seed, **given)
        return nn.Sequential(nn.Hardtanh(-0.1, 0.1, inplace=True), module) if operation == "conv" else module

    wanted = {"body.first": ("conv", "ds")}
    usual = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path / "usual")
    monkeypatch.setattr("lanaprof.distill.job.build_candidate", greedy)
    beside = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path / "greedy")
    assert beside.candidates[0].digest != usual.candidates[0].digest
    assert beside.candidates[1].digest == usual.candidates[1].digest


def test_another_seed_gives_other_weights(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The seed is part of the key."""
    wanted = {"body.first": ("conv",)}
    keys = set()
    for seed in (0, 1):
        recipe = Recipe(steps=2, batch_size=8, seed=seed)
        keys.add(distill(teacher, space, noise, wanted=wanted, recipe=recipe, folder=tmp_path).key)
    assert len(keys) == 2


def test_global_random_numbers_are_left_alone(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The caller's random numbers go on as if nothing had happened."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_killed_twice_gives_the_same_weights(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """After kill -9 at two moments, the third run goes on and ends with bit-identical weights and errors."""
    worker = runpy.run_path(str(WORKER))
    starts = []
    for steps in (9, 12):
        ended = subprocess.run(
            [sys.executable, str(WORKER), "distill", str(tmp_path / "killed"), str(steps)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == -9, ended.stderr
        starts.append(int(ended.stdout))
    steps_seen: list[int] = []

    def note(progress: Progress) -> None:
        steps_seen.append(progress.done)

    resumed = distill(
        teacher,
        space,
        noise,
        wanted=worker["WANTED"],
        recipe=worker["RECIPE"],
        folder=tmp_path / "killed",
        progress=note,
    )
    whole = distill(
        teacher, space, noise, wanted=worker["WANTED"], recipe=worker["RECIPE"], folder=tmp_path / "whole"
    )
    assert starts[0] == 3  # three candidates after their first step
    assert 3 < starts[1] < steps_seen[0]  # both later runs went on from a checkpoint
    assert _same(_weights(resumed), _weights(whole))
    assert [one.error for one in resumed.candidates] == [one.error for one in whole.candidates]
    assert not list((tmp_path / "killed").rglob("checkpoint*"))


def test_damaged_weights_are_trained_again(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A file cut off by the disk counts as missing."""
    wanted = {"body.first": ("conv",)}
    first = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path)
    path = first.candidates[0].path
    path.write_bytes(path.read_bytes()[:40])
    second = distill(teacher, space, noise, wanted=wanted, recipe=SHORT, folder=tmp_path)
    assert (second.trained, second.reused) == (1, 0)
    assert second.candidates[0].digest == first.candidates[0].digest


def test_damaged_checkpoint_is_no_obstacle(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A checkpoint that cannot be read costs its work and nothing else."""
    key = plan(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path).key
    (tmp_path / key).mkdir()
    (tmp_path / key / "checkpoint.pt").write_bytes(b"not a checkpoint")
    assert distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path).trained == 3


def test_loaded_candidate_is_the_trained_one(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """load_candidate gives the saved weights, in eval mode, whatever precision is asked for."""
    result = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    module = load_candidate(tmp_path, result.key, "body.first", "ds@fp16", _shapes(space, "body.first"))
    trained = next(one for one in result.candidates if one.operation == "ds")
    assert state_digest(module) == trained.digest
    assert not module.training


def test_loading_what_is_not_there(space: Space, tmp_path: Path) -> None:
    """A missing file is an error that says what to do."""
    with pytest.raises(StoreError, match=r"no trained weights for ds in body\.first") as caught:
        load_candidate(tmp_path, "key", "body.first", "ds", _shapes(space, "body.first"))
    assert "distill" in caught.value.hint


def test_skip_loads_without_a_file(space: Space, tmp_path: Path) -> None:
    """What has nothing to train needs no file."""
    module = load_candidate(tmp_path, "key", "body.first", "skip", _shapes(space, "body.first"))
    x = torch.randn(2, 8, 16, 16)
    assert torch.equal(module(x), x)


def test_find_trained_lists_what_is_there(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """By layer and operation, with digest and error; nothing for another key."""
    result = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    found = find_trained(tmp_path, result.key)
    assert found == {(one.layer, one.operation): one for one in result.candidates}
    assert find_trained(tmp_path, "other") == {}


def test_paths_differ_for_alike_operations(tmp_path: Path) -> None:
    """Two operations whose texts clean to the same name have two files."""
    one = candidate_path(tmp_path, "key", "a.b", "mbconv(expand=2)")
    two = candidate_path(tmp_path, "key", "a_b", "mbconv(expand=2)")
    assert one.name == two.name
    assert one != two


def test_initial_weights_depend_on_the_layer(space: Space) -> None:
    """The same operation starts differently in each layer, and the same each time."""
    shapes = _shapes(space, "body.first")
    digests = [
        state_digest(build_candidate(layer, "conv", shapes, seed=0))
        for layer in ("body.first", "body.first", "body.second")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_divergence_is_reported(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """A candidate whose loss becomes infinite gets no weights and is named."""
    recipe = Recipe(steps=20, batch_size=8, learning_rate=1e30)
    wanted = {"body.first": ("conv(act=none)",)}
    result = distill(teacher, space, noise, wanted=wanted, recipe=recipe, folder=tmp_path)
    assert result.diverged == (("body.first", "conv(act=none)"),)
    assert result.candidates == ()


def test_progress_ends_at_its_total(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Progress counts candidates times steps over all turns and never goes back."""
    seen: list[Progress] = []
    distill(
        teacher,
        space,
        noise,
        wanted=WANTED,
        recipe=SHORT,
        folder=tmp_path,
        limits=Limits(max_bytes=1),
        progress=seen.append,
    )
    assert [one.done for one in seen] == list(range(1, 19))
    assert seen[-1].total == 18
    assert seen[-1].seconds_left == 0


def test_plan_promises_what_distill_does(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The plan names the candidates and writes nothing; afterwards it is empty."""
    promised = plan(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    assert promised.train == (
        ("body.first", "conv"), ("body.first", "ds"), ("body.third", "conv(kernel=1)"),
    )  # fmt: skip
    assert promised.seconds > 0
    assert not list(tmp_path.iterdir())
    result = distill(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    after = plan(teacher, space, noise, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    assert (after.key, after.train, after.reused, after.seconds) == (result.key, (), 3, 0.0)


def test_target_is_what_the_layer_gave(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The layers' outputs are taken before glue changes them in place.

    The third layer's output is rectified in place after it. A linear convolution of the same shape as the
    teacher's can only reach a small error if its target is the output as the layer gave it.
    """
    recipe = Recipe(steps=150, batch_size=16, learning_rate=2e-2)
    wanted = {"body.third": ("conv(act=none)",)}
    result = distill(teacher, space, noise, wanted=wanted, recipe=recipe, folder=tmp_path)
    assert result.candidates[0].error < 0.1


def test_unknown_layer(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """A layer that is not in the space is refused before anything is trained."""
    with pytest.raises(BadArchitecture, match=r"no layer 'body\.fourth'"):
        distill(teacher, space, noise, wanted={"body.fourth": ("conv",)}, folder=tmp_path)


def test_operation_that_does_not_fit(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """skip in a layer that changes the shape is refused before anything is trained."""
    with pytest.raises(UnknownOperation):
        distill(teacher, space, noise, wanted={"body.third": ("skip",)}, folder=tmp_path)


def test_space_of_another_teacher(teacher: Teacher, noise: DataSource, tmp_path: Path) -> None:
    """A space whose shapes are not the teacher's is refused with the shapes."""
    layer = Layer("body.first", (8, 16, 16), (4, 16, 16), 1, "structure", ("teacher", "conv"))
    with pytest.raises(UserError, match=r"gives \(8, 16, 16\), the space says \(4, 16, 16\)"):
        distill(
            teacher,
            Space("tiny:make", (3, 16, 16), (layer,)),
            noise,
            wanted={"body.first": ("conv",)},
            recipe=SHORT,
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 1}, {"learning_rate": math.nan}, {"weight_decay": -1.0}]
)
def test_senseless_recipes(wrong: dict[str, Any]) -> None:
    """A recipe that trains nothing is refused."""
    with pytest.raises(BadInput):
        Recipe(**wrong)


def test_weights_text_is_canonical() -> None:
    """Order, white space, defaults and precision make no difference."""
    assert weights_text("conv( act=relu, kernel=1 )@fp16") == "conv(kernel=1)"


def test_unwritable_folder(teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path) -> None:
    """A folder that is a file is a plain error, told before anything is trained."""
    (tmp_path / "file").write_text("")
    seen: list[Progress] = []
    with pytest.raises(StoreError, match="cannot write"):
        distill(
            teacher,
            space,
            noise,
            wanted=WANTED,
            recipe=SHORT,
            folder=tmp_path / "file",
            progress=seen.append,
        )
    assert seen == []


def test_data_without_labels_and_with_are_both_fine(
    teacher: Teacher, space: Space, labelled: DataSource, tmp_path: Path
) -> None:
    """Distilling uses no labels: it works on data that has them, too."""
    result = distill(teacher, space, labelled, wanted=WANTED, recipe=SHORT, folder=tmp_path)
    assert result.trained == 3


def test_other_data_other_key(teacher: Teacher, space: Space, tmp_path: Path) -> None:
    """Weights trained on other data are never taken for these."""
    keys = {
        plan(
            teacher,
            space,
            load_data("random", input_shape=(3, 16, 16), seed=seed),
            wanted={},
            recipe=SHORT,
            folder=tmp_path,
        ).key
        for seed in (0, 1)
    }
    assert len(keys) == 2


def test_curves_tell_the_course_of_the_loss(
    teacher: Teacher, space: Space, noise: DataSource, tmp_path: Path
) -> None:
    """At most 24 points over all steps; their mean is the mean loss, the last ones are near the error."""
    wanted = {"body.third": ("conv(act=none)",)}
    recipe = Recipe(steps=48, batch_size=8)
    one = distill(teacher, space, noise, wanted=wanted, recipe=recipe, folder=tmp_path).candidates[0]
    assert [step for step, _ in one.curve] == list(range(2, 49, 2))
    assert one.curve[0][1] > 2 * one.curve[-1][1]
    assert find_trained(tmp_path, next(tmp_path.iterdir()).name)[one.layer, one.operation].curve == one.curve
    assert one.error == pytest.approx(sum(loss for _, loss in one.curve[-2:]) / 2, rel=0.1)
