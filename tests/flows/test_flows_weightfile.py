"""The file of the teacher's weights: known again, missed, and told from another one."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lanaprof.cli.init import init
from lanaprof.config import ProjectConfig, read_config
from lanaprof.errors import BadProject
from lanaprof.flows.project import load_project
from lanaprof.flows.starting import init_project
from lanaprof.flows.stating import next_step, project_steps
from lanaprof.flows.weightfile import describe_file, describe_state, init_command, is_described

NAME = "teacher.safetensors"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of some weights."""
    path = tmp_path / NAME
    save_file({"w": torch.ones(2)}, path)
    return path


@pytest.fixture
def noted(weights: Path) -> Mapping[str, Any]:
    """What it is known by again."""
    return describe_file(weights)


def later(path: Path) -> None:
    """Give a file another time of change."""
    os.utime(path, ns=(1, 1))


def test_an_untouched_file_is_known(weights: Path, noted: Mapping[str, Any]) -> None:
    """Nothing is wrong with it."""
    assert describe_state(weights.parent, NAME, noted) == ""


def test_a_copy_of_the_file_is_known(weights: Path, noted: Mapping[str, Any]) -> None:
    """Only its time of change is another: the content decides."""
    later(weights)

    assert is_described(weights, noted)


@pytest.mark.parametrize("values", [torch.zeros(2), torch.ones(300)])
def test_another_content_is_noticed(weights: Path, noted: Mapping[str, Any], values: torch.Tensor) -> None:
    """Of the same size or of another."""
    save_file({"w": values}, weights)
    later(weights)

    assert describe_state(weights.parent, NAME, noted) == f"the weights {NAME} have changed since"


def test_a_deleted_file_is_noticed(weights: Path, noted: Mapping[str, Any]) -> None:
    """With a note of what it was, or without one, as projects of earlier versions are."""
    weights.unlink()

    assert describe_state(weights.parent, NAME, noted) == f"the weights {NAME} are gone"
    assert describe_state(weights.parent, NAME, None) == f"the weights {NAME} are gone"


@pytest.mark.parametrize("named", ["", "pretrained"])
def test_without_a_file_nothing_is_missed(tmp_path: Path, named: str) -> None:
    """Seeded weights, and those that the source is asked for."""
    assert describe_state(tmp_path, named, None) == ""


def test_the_command_of_a_project_makes_it_again(tmp_path: Path) -> None:
    """Every option of lanaprof.toml is one that init takes, under the name it has there."""
    config = ProjectConfig(
        teacher="timm:resnet18", weights="a b.pt", input="3x32x32", layers=("layer1.*", "layer2.0"), ops="lana",
        precisions=("int8",), data="random", devices=("cpu",), database="x.db", team="vision",
        costs=("params",), seed=7,
    )  # fmt: skip
    words = shlex.split(init_command(config))
    parsed = init.make_context("init", words[2:]).params

    assert words[:3] == ["lanaprof", "init", "--force"]
    for option, key in (
        ("shape", "input"),
        *((name, name) for name in ("weights", "layers", "precisions", "data")),
    ):
        assert parsed[option] == getattr(config, key)
    for key in ("ops", "devices", "database", "team", "costs", "seed"):
        assert parsed[key] == getattr(config, key)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose teacher has its weights from a file."""
    import timm

    folder = tmp_path_factory.mktemp("weighed")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), folder / NAME)
    config = ProjectConfig(
        teacher="timm:test_resnet",
        weights=str(folder / NAME),
        input="3x32x32",
        data="random",
        devices=("cpu",),
    )
    init_project(folder, config)
    return folder


def test_status_says_that_weights_have_changed(made: Path) -> None:
    """The first step is stale; what to type starts anew with the same options."""
    path = made / NAME
    original = path.read_bytes()
    before = project_steps(load_project(made), None, team="local")
    path.write_bytes(original[:-4] + b"\x00\x00\x00\x40")
    later(path)
    after = project_steps(load_project(made), None, team="local")
    path.write_bytes(original)
    following = next_step(after)

    assert not before[0].stale
    assert after[0].stale
    assert f"the weights {NAME} have changed since" in after[0].detail
    assert following is not None
    assert following.command == init_command(read_config(made))
    assert f"--weights {NAME}" in str(following.command)


def test_the_same_weights_in_another_file_are_noted(made: Path) -> None:
    """Saved again in another order the file differs; the teacher, once loaded, is the project's all the same."""
    path = made / NAME
    tensors = load_file(path)
    save_file({name: tensors[name] for name in reversed(tensors)}, path, metadata={"saved": "again"})
    before = project_steps(load_project(made), None, team="local")[0]
    load_project(made).load_teacher()
    after = project_steps(load_project(made), None, team="local")[0]

    assert (before.stale, after.stale) == (True, False)


def test_other_weights_are_refused_with_the_command(made: Path) -> None:
    """Loading them says what to type."""
    path = made / NAME
    original = path.read_bytes()
    path.write_bytes(original[:-4] + b"\x00\x00\x00\x40")
    with pytest.raises(BadProject, match="not those this project was made with") as caught:
        load_project(made).load_teacher()
    path.write_bytes(original)

    assert init_command(read_config(made)) in caught.value.hint
    assert "sha256" in json.loads((made / ".lanaprof" / "teacher.json").read_text())["weights_file"]
