"""Replace-one scores, taps and replay."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lanaprof.distill import CandidateScore, DataSource, Progress, ScoreRecipe, score_candidates
from lanaprof.distill.taps import Replay, Taps
from lanaprof.distill.weights import build_candidate
from lanaprof.errors import BadArchitecture, BadInput, UserError
from lanaprof.space import Space
from lanaprof.teachers import Teacher, set_submodule, state_digest


class Counted(nn.Module):
    """Counts how often any copy of it runs."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return x + 1


Modules = dict[tuple[str, str], nn.Module]


@pytest.fixture
def modules(space: Space) -> Modules:
    """Untrained candidates: what is scored need not be good to be scored rightly."""
    found: Modules = {}
    for layer in space.layers:
        for operation in layer.candidates:
            if operation not in ("teacher", "skip"):
                shapes = (layer.input_shape, layer.output_shape)
                found[layer.name, operation] = build_candidate(layer.name, operation, shapes, seed=0).eval()
    return found


def _replaced(teacher: Teacher, layer: str, module: nn.Module) -> nn.Module:
    network = copy.deepcopy(teacher.module)
    set_submodule(network, layer, module)
    return network.eval()


def _by_name(scores: tuple[CandidateScore, ...]) -> dict[tuple[str, str], CandidateScore]:
    return {(one.layer, one.operation): one for one in scores}


def test_scores_equal_naive_replacement(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """Each score and its error are those of the whole network run with the candidate in its place.

    The tiny teacher changes tensors in place in modules and in functions, which a careless cache would not
    survive.
    """
    scores = _by_name(
        score_candidates(
            teacher, space, modules, noise, recipe=ScoreRecipe(images=40, batch_size=16, power=1)
        )
    )
    x = torch.cat([x for x, _ in noise.iter_heldout(40, 40)])
    with torch.no_grad():
        wanted = torch.log_softmax(teacher.module(x), 1)
        for (layer, operation), module in {**modules, ("body.first", "skip"): nn.Identity()}.items():
            got = torch.log_softmax(_replaced(teacher, layer, module)(x), 1)
            values = -(wanted.exp() * (wanted - got)).sum(1)
            found = scores[layer, operation]
            assert found.score == pytest.approx(values.mean().item(), rel=1e-4)
            assert found.standard_error == pytest.approx(values.std().item() / math.sqrt(40), rel=1e-4)
            assert found.images == 40


def test_teacher_scores_zero_and_all_candidates_are_there(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """One score per candidate, in the space's order; the teacher exactly 0, the others below."""
    scores = score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=16))
    assert [(one.layer, one.operation) for one in scores] == [
        (layer.name, operation) for layer in space.layers for operation in layer.candidates
    ]
    assert {one.score for one in scores if one.operation == "teacher"} == {0.0}
    assert all(one.score < 0 for one in scores if one.operation != "teacher")


def test_copy_of_the_teachers_layer_scores_zero(teacher: Teacher, space: Space, noise: DataSource) -> None:
    """What computes the same is as good as the teacher."""
    module = copy.deepcopy(teacher.module.get_submodule("body.second"))
    scores = _by_name(
        score_candidates(
            teacher, space, {("body.second", "conv"): module}, noise, recipe=ScoreRecipe(images=16)
        )
    )
    assert scores["body.second", "conv"].score == pytest.approx(0, abs=1e-6)
    assert scores["body.second", "skip"].score < -0.001


def test_teacher_and_candidates_are_left_alone(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """Scoring changes no weight and leaves no hook behind."""
    before = {key: state_digest(module) for key, module in modules.items()}
    score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=16))
    assert state_digest(teacher.module) == teacher.weights_digest
    assert {key: state_digest(module) for key, module in modules.items()} == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in teacher.module.modules())


def test_scores_do_not_depend_on_the_number_of_threads(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """Several workers, each with its own copy of the network, find what one finds."""
    alone = score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=24, batch_size=8))
    torch.set_num_threads(3)
    together = score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=24, batch_size=8))
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], rel=1e-4)
    assert torch.get_num_threads() == 3


def test_batches_shrink_to_fit_into_memory(
    teacher: Teacher,
    space: Space,
    modules: Modules,
    noise: DataSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the activations of a batch would need too much memory, fewer images are taken at a time."""
    expected = score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=16))
    seen: list[Progress] = []
    monkeypatch.setattr("lanaprof.distill.score.MOST_RECORDED_BYTES", 1)
    found = score_candidates(
        teacher, space, modules, noise, recipe=ScoreRecipe(images=16), progress=seen.append
    )
    assert len(seen) == 8 * (len(modules) + 2)
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], rel=1e-4)


def test_accuracy_and_loss_need_labels(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """Without labels they are refused, with a way out."""
    for metric in ("loss", "accuracy"):
        with pytest.raises(UserError, match="needs labels") as caught:
            score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(metric=metric))
        assert "kl" in caught.value.hint


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_labelled_metrics(
    teacher: Teacher, space: Space, modules: Modules, labelled: DataSource, metric: str
) -> None:
    """loss is the teacher's cross entropy minus the network's, accuracy the network's minus the teacher's."""
    scores = _by_name(score_candidates(teacher, space, modules, labelled, recipe=ScoreRecipe(metric=metric)))
    x, y = next(labelled.iter_heldout(100))
    assert y is not None
    network = _replaced(teacher, "body.first", modules["body.first", "ds"])

    def quality(module: nn.Module) -> float:
        with torch.no_grad():
            logits = module(x)
        if metric == "loss":
            return -float(nn.functional.cross_entropy(logits, y))
        return float((logits.argmax(1) == y).float().mean())

    expected = quality(network) - quality(teacher.module)
    assert scores["body.first", "ds"].score == pytest.approx(expected, abs=1e-5)
    assert scores["body.first", "teacher"].score == 0


def test_own_metric_per_image(teacher: Teacher, space: Space, modules: Modules, noise: DataSource) -> None:
    """A user's function gets the teacher's outputs where there are no labels; its difference is the score."""

    def closeness(outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs - targets).abs().mean(1) + 3

    scores = _by_name(
        score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(metric=closeness, images=16))
    )
    x, _ = next(noise.iter_heldout(16))
    with torch.no_grad():
        there = _replaced(teacher, "body.third", modules["body.third", "ds"])(x)
        expected = -(there - teacher.module(x)).abs().mean().item()
    assert scores["body.third", "ds"].score == pytest.approx(expected, rel=1e-4)
    assert scores["body.third", "ds"].standard_error is not None


def test_own_metric_by_name_with_one_number(
    teacher: Teacher,
    space: Space,
    modules: Modules,
    labelled: DataSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """package.module:function may return one number a batch; labels are passed where there are any."""
    (tmp_path / "own_metric_module.py").write_text(
        "def score(outputs, targets):\n    return (outputs.argmax(1) == targets).float().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = score_candidates(
        teacher,
        space,
        modules,
        labelled,
        recipe=ScoreRecipe(metric="own_metric_module:score", images=2, batch_size=2),
    )
    built_in = score_candidates(
        teacher, space, modules, labelled, recipe=ScoreRecipe(metric="accuracy", images=2, batch_size=2)
    )
    assert [one.score for one in own] == pytest.approx([one.score for one in built_in])
    assert all(one.standard_error is None for one in own if one.operation != "teacher")


def test_metrics_that_cannot_be_used(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """An unknown name lists the known ones; a failing function and a wrong shape are named."""

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ZeroDivisionError("nothing to divide by")

    def shapeless(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    for metric, message in (
        ("f1", "known are kl, loss, accuracy"),
        (failing, "failing failed: ZeroDivisionError"),
        (shapeless, "returned the shape"),
    ):
        with pytest.raises(BadInput, match=message):
            score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(metric=metric, images=4))


def test_network_without_classes(space: Space, modules: Modules, noise: DataSource, teacher: Teacher) -> None:
    """One output is no classifier: its divergence would be 0 for every candidate, so it is refused."""
    teacher.module.head = nn.Linear(16, 1)
    with pytest.raises(UserError, match="not logits"):
        score_candidates(teacher, space, modules, noise, recipe=ScoreRecipe(images=4))


def test_unknown_layer(teacher: Teacher, space: Space, noise: DataSource) -> None:
    """A module for a layer that is not in the space is refused."""
    with pytest.raises(BadArchitecture):
        score_candidates(teacher, space, {("nowhere", "conv"): nn.Identity()}, noise)


def test_progress_ends_at_its_total(
    teacher: Teacher, space: Space, modules: Modules, noise: DataSource
) -> None:
    """There is word after every candidate of every batch, and the last says all is done."""
    seen: list[Progress] = []
    score_candidates(
        teacher, space, modules, noise, recipe=ScoreRecipe(images=40, batch_size=16), progress=seen.append
    )
    assert len(seen) == 3 * (len(modules) + 2)
    assert seen[-1].done == seen[-1].total


def test_taps_show_what_was_there_at_the_moment(teacher: Teacher) -> None:
    """Inputs and outputs are as the layer saw them, though later code changes them in place."""
    x = torch.randn(2, 3, 16, 16)
    _, flowed = Taps(teacher.module, ["body.third", "body.second"]).run(x)
    with torch.no_grad():
        again = teacher.module.get_submodule("body.third")(flowed["body.third"].input)
        second = teacher.module.get_submodule("body.second")(flowed["body.second"].input.clone())
    assert torch.allclose(flowed["body.third"].output, again)
    assert (again < 0).any()  # so that the ReLU behind it would have been seen
    assert torch.allclose(flowed["body.second"].output, second)


def test_taps_name_a_layer_that_is_not_called(teacher: Teacher) -> None:
    """A submodule outside the forward pass is named."""
    teacher.module.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match="the layer unused was not called"):
        Taps(teacher.module, ["unused"]).run(torch.randn(1, 3, 16, 16))


def test_replay_runs_only_what_comes_after() -> None:
    """Modules before the replaced layer are not computed again."""
    x = torch.randn(2, 4)
    network = nn.Sequential(Counted(), Counted(), Counted(), Counted())
    replay = Replay(network, ["1", "2"], sample=x)
    replay.record(x)
    Counted.calls = 0
    replay.run("2", nn.Identity())
    assert Counted.calls == 1


def test_replay_survives_a_candidate_that_works_in_place(teacher: Teacher) -> None:
    """A candidate that overwrites its input spoils neither its own result nor the next one's."""

    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(0.5)

    class Modest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0.5

    x = torch.randn(2, 3, 16, 16)
    replay = Replay(teacher.module, ["body.first", "body.second"], sample=x)
    for _ in range(2):
        replay.record(x)
        for layer in ("body.first", "body.second"):
            greedy = replay.run(layer, Greedy())
            assert torch.allclose(greedy, _replaced(teacher, layer, Modest())(x), atol=1e-6)
