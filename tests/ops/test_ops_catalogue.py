"""Catalogues: quick, files, and the page made from the register."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from lanaprof.errors import BadInput, UnknownOperation, UserError
from lanaprof.ops import get_family, operations_for, operations_markdown

RESNET = ((64, 28, 28), (64, 28, 28), 2 * 64 * 64 * 9 * 28 * 28, False)
MBCONV = ((24, 28, 28), (24, 28, 28), 144 * (24 + 9 + 24) * 28 * 28, True)
STRIDED = ((40, 28, 28), (80, 14, 14), 240 * 40 * 28 * 28 + 240 * (9 + 80) * 14 * 14, True)


def texts(case: tuple[tuple[int, ...], tuple[int, ...], int, bool]) -> list[str]:
    input_shape, output_shape, macs, signed = case
    found = operations_for("quick", input_shape, output_shape, teacher_macs=macs, signed=signed)
    return [operation.text for operation in found]


@pytest.mark.parametrize("case", [RESNET, MBCONV])
def test_quick_gives_twelve_with_teacher_and_skip_first(
    case: tuple[tuple[int, ...], tuple[int, ...], int, bool],
) -> None:
    """A layer whose shapes are equal gets teacher, skip and ten others, each once."""
    found = texts(case)

    assert found[:2] == ["teacher", "skip"]
    assert len(found) == len(set(found)) == 12


def test_quick_has_no_skip_between_different_shapes() -> None:
    """The identity is no candidate where the layer strides."""
    found = texts(STRIDED)

    assert found[0] == "teacher"
    assert "skip" not in found
    assert len(found) >= 8


@pytest.mark.parametrize("case", [RESNET, MBCONV, STRIDED])
def test_quick_spans_the_costs_below_the_teacher(
    case: tuple[tuple[int, ...], tuple[int, ...], int, bool],
) -> None:
    """There is one with at most a fifth of the teacher's arithmetic, one in the middle, and none far above."""
    input_shape, output_shape, macs, signed = case
    shares = []
    for operation in operations_for("quick", input_shape, output_shape, teacher_macs=macs, signed=signed):
        count = get_family(operation.family).macs
        if operation.family not in ("teacher", "skip") and count is not None:
            shares.append(count(input_shape, output_shape, dict(operation.parameters)) / macs)

    assert min(shares) <= 0.2
    assert any(0.25 <= share <= 0.75 for share in shares)
    assert max(shares) <= 2.0


def test_quick_ends_as_the_teacher_does() -> None:
    """Where the teacher's outputs are never negative, candidates end with a ReLU; elsewhere none does."""
    assert {"ds(out=relu)", "basic(width=0.5)", "conv"} <= set(texts(RESNET))
    assert {"ds", "basic(width=0.5,out=none)", "conv(act=none)"} <= set(texts(MBCONV))


def test_quick_gives_token_layers_a_dozen_cheaper_ones() -> None:
    """A transformer's half gets teacher, skip and about ten operations on tokens, none as dear as itself."""
    shape, macs = (197, 192), 8 * 192 * 192 * 197
    found = operations_for("quick", shape, shape, teacher_macs=macs)

    assert [operation.text for operation in found[:2]] == ["teacher", "skip"]
    assert 11 <= len(found) <= 14
    for operation in found[2:]:
        count = get_family(operation.family).macs
        assert count is not None
        assert count(shape, shape, dict(operation.parameters)) < macs


def test_a_file_names_one_operation_a_line(tmp_path: Path) -> None:
    """Comments and empty lines are skipped, repetitions and the teacher too; teacher comes first."""
    path = tmp_path / "ops.txt"
    path.write_text("# mine\nconv( kernel=1 )  # cheap\n\nskip\nconv(kernel=1)\nteacher\nds\n")

    found = operations_for(path, (8, 4, 4), (16, 4, 4))

    assert [operation.text for operation in found] == ["teacher", "conv(kernel=1)", "ds"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("conv\nmbconf\n", UnknownOperation, "line 2: there is no operation family 'mbconf'"),
        ("# nothing\n", BadInput, "holds no operation"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, content: str, error: type[UserError], message: str
) -> None:
    """The message says where in the file."""
    path = tmp_path / "ops.txt"
    path.write_text(content)

    with pytest.raises(error, match=message):
        operations_for(str(path), (8, 4, 4), (8, 4, 4))


def test_an_unknown_catalogue_says_what_there_is(tmp_path: Path) -> None:
    """Neither a catalogue nor a readable file: the hint names both ways."""
    with pytest.raises(BadInput, match="there is no catalogue 'fast'") as caught:
        operations_for("fast", (8, 4, 4), (8, 4, 4))

    assert "--ops quick, --ops lana, --ops package.module:function, or --ops FILE" in caught.value.hint


def test_the_page_is_the_one_the_register_gives() -> None:
    """docs/operations.md is up to date; write it anew with the command in its test."""
    page = Path(__file__).parents[2] / "docs" / "operations.md"

    assert page.read_text(encoding="utf-8") == operations_markdown()


def test_slices_that_round_to_the_same_are_offered_once(tmp_path: Path) -> None:
    """Five eighths and three quarters of 24 inner channels are both 16: the file's first one stays."""
    block = nn.Sequential(nn.Conv2d(8, 24, 1), nn.ReLU(), nn.Conv2d(24, 8, 1))
    lines = tmp_path / "ops.txt"
    lines.write_text("slim(width=0.625)\nslim(width=0.75)\nslim(width=0.25)\nconv\n", encoding="utf-8")
    found = operations_for(lines, (8, 4, 4), (8, 4, 4), teacher=block)

    assert ["teacher", "slim(width=0.625)", "slim(width=0.25)", "conv"] == [one.text for one in found]
