"""Operations of the user's own module, as docs/howto/new-operation.md shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
import torch

from lanaprof.config import ProjectConfig
from lanaprof.errors import BadInput, LanaprofError, UnknownOperation
from lanaprof.flows.project import load_project
from lanaprof.flows.starting import init_project
from lanaprof.ops import (
    build_operation,
    fuse,
    get_family,
    load_own_operations,
    operations_for,
    parse_operation,
    registry,
)
from lanaprof.profiler.export import exported_model

REGISTER = registry._REGISTER
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "new-operation.md"
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        block = lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(block(), block())

    def forward(self, x):
        return self.blocks(x).mean((2, 3))
"""
EQUAL = ((16, 8, 8), (16, 8, 8))


@pytest.fixture(autouse=True)
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the families of these tests afterwards."""
    monkeypatch.setattr(REGISTER, "families", dict(REGISTER.families))
    monkeypatch.setattr(REGISTER, "own", set(REGISTER.own))
    yield
    parse_operation.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the two files that the page shows."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.py").write_text(blocks[0], encoding="utf-8")
    (tmp_path / "mine_modules.py").write_text(blocks[1], encoding="utf-8")
    return tmp_path


def test_the_example_of_the_page_offers_its_operations(project: Path) -> None:
    """What fits the layer comes in the order given, behind the teacher."""
    equal = operations_for("mine:operations", *EQUAL, search_path=project)
    other = operations_for("mine:operations", (16, 8, 8), (32, 4, 4), search_path=project)

    assert [one.text for one in equal] == [
        "teacher", "skip", "mbconv(expand=2)", "strip", "strip(kernel=11,act=silu)",
    ]  # fmt: skip
    assert [one.text for one in other] == ["teacher", "mbconv(expand=2)"]


def test_the_example_of_the_page_is_built_and_exported(project: Path) -> None:
    """Its family is known once the module is loaded; ONNX Runtime computes what its module does."""
    load_own_operations("mine:operations", search_path=project)
    module = fuse(build_operation(parse_operation("strip(kernel=5)"), *EQUAL))
    x = torch.randn(1, *EQUAL[0], generator=torch.Generator().manual_seed(0))
    model = exported_model(module, x.shape)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": x.numpy()})

    torch.testing.assert_close(torch.from_numpy(actual), module(x).detach(), rtol=1e-4, atol=1e-4)


def test_families_may_join_the_wide_catalogue(project: Path) -> None:
    """The parameter sets that a family names for lana are among lana's operations."""
    load_own_operations("mine:operations", search_path=project)
    texts = [one.text for one in operations_for("lana", *EQUAL)]

    assert {"strip", "strip(kernel=11)"} <= set(texts)


def test_another_projects_family_of_the_same_name_takes_its_place(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What counts is the module loaded last; lanaprof's own families are not replaced."""
    load_own_operations("mine:operations", search_path=project)
    parse_operation("strip(kernel=9)")
    other = tmp_path_factory.mktemp("other")
    text = (project / "mine.py").read_text(encoding="utf-8")
    (other / "mine.py").write_text(text.replace("(5, 7, 9, 11)", "(7, 13)"), encoding="utf-8")
    load_own_operations("mine:operations", search_path=other)

    assert get_family("strip").parameters[0].allowed == (7, 13)
    with pytest.raises(UnknownOperation, match="strip has no kernel=9"):
        parse_operation("strip(kernel=9)")

    (other / "bad.py").write_text(text.replace('name="strip"', 'name="conv"'), encoding="utf-8")
    with pytest.raises(BadInput, match="an operation family 'conv' already"):
        load_own_operations("bad:operations", search_path=other)


def test_families_may_be_returned_themselves(project: Path) -> None:
    """A returned family stands for its sets of parameters."""
    (project / "whole.py").write_text(
        "from mine import STRIP\ndef operations(i, o):\n    return [STRIP]\n", encoding="utf-8"
    )

    found = operations_for("whole:operations", *EQUAL, search_path=project)

    assert [one.text for one in found] == ["teacher", "strip", "strip(kernel=11)"]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("def operations(i, o): return ['mbconf']", UnknownOperation, "no operation family 'mbconf'"),
        ("def operations(i, o): return [3]", BadInput, "own:operations returned 3, which is no operation"),
        (
            "def operations(i, o): return 1 / 0",
            BadInput,
            r"own:operations fails for a layer \(16, 8, 8\).*ZeroDiv",
        ),
        ("operations = 5", BadInput, "own:operations is no function but int"),
        ("", BadInput, "has no 'operations'"),
    ],
)
def test_wrong_functions_are_refused_in_words(
    tmp_path: Path, body: str, error: type[LanaprofError], message: str
) -> None:
    """The message names the function and what is wrong with it."""
    (tmp_path / "own.py").write_text(body + "\n", encoding="utf-8")

    with pytest.raises(error, match=message):
        operations_for("own:operations", *EQUAL, search_path=tmp_path)


def test_a_project_knows_its_own_families_when_it_is_opened(project: Path) -> None:
    """A later command, in another process, builds what the space names."""
    (project / "net.py").write_text(NET, encoding="utf-8")
    config = ProjectConfig(teacher="net:Net", input="8x6x6", ops="mine:operations")
    init_project(project, config)
    for name in REGISTER.own:
        del REGISTER.families[name]
    REGISTER.own.clear()
    parse_operation.cache_clear()

    opened = load_project(project)

    assert opened.config.ops == "mine:operations"
    assert "strip(kernel=11,act=silu)" in opened.space.layers[0].candidates
    assert parse_operation("strip").family == "strip"
