"""Scores with batch norm re-estimated behind the candidate, in the teacher and in another host."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lanaprof.distill import CandidateScore, DataSource, ScoreRecipe, reestimate_batch_norm, score_candidates
from lanaprof.distill.batchnorm import RunningStatistics, find_batch_norms
from lanaprof.distill.taps import Replay
from lanaprof.errors import BadInput
from lanaprof.space import Layer, Space
from lanaprof.teachers import Teacher, set_submodule, state_digest

CHANNELS, SIZE, BATCH, LEARNT = 8, 16, 32, 64
PLAIN = ScoreRecipe(images=64, batch_size=BATCH, power=1)
LAYERS = ("blocks.0", "blocks.1", "blocks.2", "last")


def _block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU())


class NormNet(nn.Module):
    """Batch norms before, inside, between and behind layers; none behind the last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 1, 1), nn.BatchNorm2d(CHANNELS))
        self.blocks = nn.ModuleList(_block() for _ in range(3))
        self.between = nn.BatchNorm2d(CHANNELS)
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.last = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.BatchNorm1d(CHANNELS))
        self.head = nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 5) logits."""
        x = self.blocks[0](self.stem(x))
        x = self.blocks[2](self.between(self.blocks[1](x)))
        logits: Tensor = self.head(self.last(self.norm(x.mean((2, 3)))))
        return logits


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanaprof.distill.score.STATISTICS_IMAGES", LEARNT)


@pytest.fixture
def teacher() -> Teacher:
    generator = torch.Generator().manual_seed(3)
    module = NormNet()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    batches = (torch.randn(BATCH, 3, SIZE, SIZE, generator=generator) for _ in range(4))
    reestimate_batch_norm(module, batches)
    return Teacher(
        text="norms:make",
        module=module.eval(),
        input_shape=(3, SIZE, SIZE),
        weights="made up",
        weights_digest=state_digest(module),
        seeded=False,
        preprocessing={},
    )


@pytest.fixture
def space() -> Space:
    layers = []
    for name in LAYERS:
        shape = (CHANNELS,) if name == "last" else (CHANNELS, SIZE, SIZE)
        layers.append(Layer(name, shape, shape, 1, "structure", ("teacher", "skip", "conv")))
    return Space("norms:make", (3, SIZE, SIZE), tuple(layers))


@pytest.fixture
def modules() -> dict[tuple[str, str], nn.Module]:
    """Candidates that shift what comes behind them, each with statistics of its own."""
    torch.manual_seed(1)
    found: dict[tuple[str, str], nn.Module] = {}
    for name in LAYERS:
        last = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.BatchNorm1d(CHANNELS))
        module = last if name == "last" else nn.Sequential(*_block(), nn.Conv2d(CHANNELS, CHANNELS, 1))
        for norm in find_batch_norms(module).values():
            assert norm.running_mean is not None
            norm.running_mean.add_(0.3)
        found[name, "conv"] = module.eval()
    return found


def _learning_batches(data: DataSource) -> list[Tensor]:
    batches = data.batches("train", BATCH)
    found = [next(batches)[0] for _ in range(LEARNT // BATCH)]
    batches.close()
    return found


def _reestimated(network: nn.Module, data: DataSource, kept: tuple[str, ...]) -> nn.Module:
    """Return the network with all its statistics taken anew but those whose names begin so."""
    for name, norm in find_batch_norms(network).items():
        if name.startswith(kept):
            set_submodule(network, name, _Frozen(norm))
    reestimate_batch_norm(network, _learning_batches(data))
    return network.eval()


class _Frozen(nn.Module):
    """A batch norm that nothing finds and nothing changes."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.call = norm.eval().forward

    def forward(self, x: Tensor) -> Tensor:
        """Return what the norm makes of it."""
        result: Tensor = self.call(x)
        return result


def _kl(teacher: Teacher, network: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        wanted, got = torch.log_softmax(teacher.module(x), 1), torch.log_softmax(network(x), 1)
    return (wanted.exp() * (wanted - got)).sum(1).mean().item()


def _by_name(scores: tuple[CandidateScore, ...]) -> dict[tuple[str, str], float]:
    return {(one.layer, one.operation): one.score for one in scores}


def _heldout(data: DataSource) -> Tensor:
    return torch.cat([x for x, _ in data.iter_heldout(64, 64)])


def test_scores_equal_naive_reestimation(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """Statistics behind the candidate are taken anew, those before it and its own stay; so for the teacher."""
    scores = _by_name(score_candidates(teacher, space, modules, noise, recipe=PLAIN))
    before = {
        "blocks.0": ("stem", "blocks.0"),
        "blocks.1": ("stem", "blocks.0", "blocks.1"),
        "blocks.2": ("stem", "blocks", "between"),
        "last": ("stem", "blocks", "between", "norm", "last"),
    }
    x = _heldout(noise)
    for layer, kept in before.items():
        quality = []
        for module in (modules[layer, "conv"], teacher.module.get_submodule(layer)):
            network = copy.deepcopy(teacher.module)
            set_submodule(network, layer, copy.deepcopy(module))
            quality.append(-_kl(teacher, _reestimated(network, noise, kept), x))
        assert scores[layer, "conv"] == pytest.approx(quality[0] - quality[1], rel=1e-3, abs=1e-5)


def test_scores_in_another_host(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """A host's own layer is replaced like the teacher's; the candidate's statistics are taken anew, too."""
    host = copy.deepcopy(teacher.module)
    set_submodule(host, "blocks.0", copy.deepcopy(modules["blocks.0", "conv"]))
    set_submodule(host, "blocks.2", copy.deepcopy(modules["blocks.2", "conv"]))
    recipe = replace(PLAIN, host="average")
    scores = _by_name(score_candidates(teacher, space, modules, noise, recipe=recipe, host=host))
    quality = []
    for module in (modules["blocks.1", "conv"], teacher.module.get_submodule("blocks.1")):
        network = copy.deepcopy(host)
        set_submodule(network, "blocks.1", copy.deepcopy(module))
        network = _reestimated(network, noise, ("stem", "blocks.0"))
        quality.append(-_kl(teacher, network, _heldout(noise)))
    expected = pytest.approx(quality[0] - quality[1], rel=1e-3, abs=1e-5)
    assert scores["blocks.1", "conv"] == expected


def test_statistics_kept_are_the_teachers(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """With batch_norm="keep" the network is judged as assembled."""
    recipe = replace(PLAIN, batch_norm="keep")
    scores = _by_name(score_candidates(teacher, space, modules, noise, recipe=recipe))
    network = copy.deepcopy(teacher.module)
    set_submodule(network, "blocks.1", modules["blocks.1", "conv"])
    assert scores["blocks.1", "conv"] == pytest.approx(-_kl(teacher, network, _heldout(noise)), rel=1e-4)


def test_a_copy_of_the_teachers_layer_scores_zero_exactly(
    teacher: Teacher, space: Space, noise: DataSource
) -> None:
    """What estimating statistics costs is in both sides of the difference."""
    copied = {("blocks.0", "conv"): copy.deepcopy(teacher.module.get_submodule("blocks.0"))}
    scores = _by_name(score_candidates(teacher, space, copied, noise, recipe=PLAIN))
    assert scores["blocks.0", "conv"] == 0.0


def test_scores_do_not_depend_on_what_else_is_scored(
    teacher: Teacher,
    space: Space,
    modules: dict[tuple[str, str], nn.Module],
    noise: DataSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layer by layer, or in turns because memory is short: the same scores; only the layers asked for."""
    recipe = PLAIN
    together = score_candidates(teacher, space, modules, noise, recipe=recipe)
    apart = [
        score
        for name in LAYERS
        for score in score_candidates(
            teacher, space, {(name, "conv"): modules[name, "conv"]}, noise, recipe=recipe, layers=[name]
        )
    ]
    assert apart == list(together)
    monkeypatch.setattr("lanaprof.distill.score.MOST_GROUP_BYTES", 1)
    assert score_candidates(teacher, space, modules, noise, recipe=recipe) == together


def test_a_layer_without_batch_norm_behind_it_is_judged_for_itself(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """The last layer's candidates are compared with its own teacher's layer, not with that of a layer before."""
    set_submodule(teacher.module, "norm", nn.Identity())
    recipe = PLAIN
    together = score_candidates(teacher, space, modules, noise, recipe=recipe)

    alone = score_candidates(teacher, space, modules, noise, recipe=recipe, layers=["blocks.2"])

    assert alone == tuple(score for score in together if score.layer == "blocks.2")


def test_reestimating_leaves_no_trace(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """Teacher, candidates and host keep every weight and statistic."""
    host = copy.deepcopy(teacher.module)
    before = [state_digest(module) for module in (teacher.module, host, *modules.values())]
    recipe = replace(PLAIN, host="average")
    score_candidates(teacher, space, modules, noise, recipe=recipe, host=host)
    assert [state_digest(module) for module in (teacher.module, host, *modules.values())] == before


def test_replay_restores_statistics_after_an_error(teacher: Teacher) -> None:
    """A candidate that fails in the middle leaves the network as it was for the next one."""

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("nothing to divide by")

    x = torch.randn(4, 3, SIZE, SIZE)
    replay = Replay(teacher.module, LAYERS, sample=x)
    expected = replay.record(x)
    with pytest.raises(ZeroDivisionError):
        replay.run("blocks.0", Failing(), statistics=RunningStatistics(), learning=True)
    own = copy.deepcopy(teacher.module.get_submodule("blocks.0"))
    assert torch.equal(replay.run("blocks.0", own), expected)


def test_unknown_ways_of_judging_are_refused() -> None:
    """Names that are not known list those that are."""
    with pytest.raises(BadInput, match="known are reestimate, keep"):
        ScoreRecipe(batch_norm="drop")
    with pytest.raises(BadInput, match="known are teacher, average"):
        ScoreRecipe(host="student")


def test_scores_by_kl_are_roots(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """By default minus the root of the divergence, its error that of the root across the interval."""
    plain = score_candidates(teacher, space, modules, noise, recipe=PLAIN)
    roots = score_candidates(teacher, space, modules, noise, recipe=replace(PLAIN, power=None))
    for one, root in zip(plain, roots, strict=True):
        assert root.score == pytest.approx(-math.sqrt(-one.score))
        assert one.standard_error is not None
        far, near = (math.sqrt(max(0.0, side * one.standard_error - one.score)) for side in (1, -1))
        assert root.standard_error == pytest.approx((far - near) / 2)
    assert any(one.score < -0.01 for one in roots)


def test_other_metrics_are_not_reshaped(
    teacher: Teacher, space: Space, modules: dict[tuple[str, str], nn.Module], noise: DataSource
) -> None:
    """Only a divergence grows with the square of a disturbance; other metrics stay as they are."""

    def closeness(outputs: Tensor, wanted: Tensor) -> Tensor:
        return -(outputs - wanted).square().mean(1)

    recipe = replace(PLAIN, metric=closeness, power=None)
    found = score_candidates(teacher, space, modules, noise, recipe=recipe)
    assert found == score_candidates(teacher, space, modules, noise, recipe=replace(recipe, power=1))


def test_powers_that_are_none_are_refused() -> None:
    """A power is above 0 and at most 1."""
    for power in (0.0, -1.0, 2.0):
        with pytest.raises(BadInput, match="power"):
            ScoreRecipe(power=power)


def test_the_name_of_a_score_says_what_is_not_default() -> None:
    """Scores of another kind are kept under another name."""
    assert ScoreRecipe("kl").text == ScoreRecipe("kl", power=0.5).text == "kl"
    assert ScoreRecipe("kl", power=1).text == "kl(power=1)"
    assert ScoreRecipe("loss", power=1).text == "loss"
    assert ScoreRecipe("kl", batch_norm="keep", host="average").text == "kl(batch_norm=keep, host=average)"
