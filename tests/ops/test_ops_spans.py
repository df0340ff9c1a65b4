"""Operations that stand for several layers: their rules in files, the catalogue's, and G-Ghost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from lanaprof.errors import UnknownOperation
from lanaprof.ops import (
    Shape,
    build_operation,
    fuse,
    match_output,
    parse_operation,
    read_operations,
    why_not_from,
)
from lanaprof.ops.blocks import Basic, MBConv
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.ops.spans import SpanRule, catalogue_spans, read_spans
from lanaprof.profiler.export import exported_model

WIDE, DEEP = (16, 12, 12), (24, 6, 6)


def mobile_run(count: int = 4) -> LayerRun:
    """Return inverted residuals, the first of which strides."""
    torch.manual_seed(0)
    shapes = [(WIDE if number == 0 else DEEP, DEEP) for number in range(count)]
    return LayerRun(
        *(MBConv(*pair, expand=4.0, kernel=3, se=0.0, act="silu", out="none") for pair in shapes)
    ).eval()


def dense_run(count: int = 3) -> LayerRun:
    """Return residual blocks of one shape."""
    torch.manual_seed(0)
    return LayerRun(
        *(Basic(WIDE, WIDE, kernel=3, width=1.0, act="relu", out="relu") for _ in range(count))
    ).eval()


def test_a_file_has_lines_for_layers_and_for_runs(tmp_path: Path) -> None:
    """What stands before a colon names layers; both readers leave the other's lines alone."""
    path = tmp_path / "ops.txt"
    path.write_text("conv  # one: a layer\n\nstage: mbconv( kernel=5 )\nb.2.* : skip  # left out\n")

    assert ["conv"] == [operation.text for operation in read_operations(path)]
    assert [("stage", "mbconv(kernel=5)"), ("b.2.*", "skip")] == [
        (rule.run, rule.operation.text) for rule in read_spans(path)
    ]
    assert read_spans(path)[0] == SpanRule("stage", parse_operation("mbconv(kernel=5)"), f"{path}, line 3")


def test_a_file_may_hold_nothing_but_runs(tmp_path: Path) -> None:
    """Layers then keep the teacher's own unless they are replaced together."""
    path = tmp_path / "ops.txt"
    path.write_text("stage: skip\n")

    assert () == read_operations(path)
    assert 1 == len(read_spans(path))


@pytest.mark.parametrize("line", ["stage: convolute", "stage: teacher", ": skip", "stage:"])
def test_a_line_that_cannot_be_is_named(tmp_path: Path, line: str) -> None:
    """No such operation, the teacher's own, no run, nothing to build."""
    path = tmp_path / "ops.txt"
    path.write_text(f"conv\n{line}\n")

    with pytest.raises(UnknownOperation, match=r"ops\.txt, line 2"):
        read_spans(path)


@pytest.mark.parametrize("ops", ["quick", "lana", "mine:operations"])
def test_only_files_have_rules(ops: str) -> None:
    """Catalogues and functions name no runs."""
    assert read_spans(ops) == ()


def test_the_catalogue_offers_at_most_three_of_the_teachers_kind() -> None:
    """Skip where shapes are equal, one block, G-Ghost; the teacher's activation, its kind of end, nothing dearer."""
    mobile = catalogue_spans(mobile_run(), WIDE, DEEP, macs=10**7, signed=True)
    dense = catalogue_spans(dense_run(), WIDE, WIDE, macs=10**7, signed=False)
    dear = catalogue_spans(mobile_run(), WIDE, DEEP, macs=10, signed=True)

    assert [
        "mbconv(kernel=5,act=silu)",
        "mbconv(expand=3,kernel=5,act=silu)",
        "g_ghost(act=silu)",
    ] == [one.text for one in mobile]
    assert ["skip", "basic", "g_ghost(block=basic,expand=1,out=relu)"] == [one.text for one in dense]
    assert ["g_ghost(act=silu)"] == [one.text for one in dear]


GHOSTS = [
    ("g_ghost", mobile_run, WIDE, DEEP),
    ("g_ghost(share=0.25,end=none,act=silu)", mobile_run, WIDE, DEEP),
    ("g_ghost(block=basic,expand=1,kernel=5,out=relu)", dense_run, WIDE, WIDE),
]


@pytest.mark.parametrize(("text", "run", "input_shape", "output_shape"), GHOSTS)
def test_g_ghost_learns_and_deploys(
    text: str, run: Callable[[], LayerRun], input_shape: Shape, output_shape: Shape
) -> None:
    """Built from a run, started near its output, trained a step, it gives the same in ONNX Runtime."""
    layers = run()
    module = build_operation(parse_operation(text), input_shape, output_shape, teacher=layers)
    x = torch.randn(4, *input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = layers(x)

    assert match_output(module, x, y)
    module.train()
    loss = (module(x) - y).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())

    deployed = fuse(module)
    session = onnxruntime.InferenceSession(
        exported_model(deployed, (1, *input_shape)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (actual,) = session.run(None, {"input": x[:1].numpy()})
    with torch.no_grad():
        expected = deployed(x[:1]).numpy()
    assert (1, *output_shape) == actual.shape
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def test_g_ghost_starts_nearer_to_the_output_than_at_random() -> None:
    """Matching the scale of ghosts and narrow blocks lowers the error before any training."""
    layers = dense_run()
    x = torch.randn(8, *WIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y = layers(x)
    text = "g_ghost(block=basic,expand=1,end=none,out=relu)"
    errors = []
    for matched in (False, True):
        module = build_operation(parse_operation(text), WIDE, WIDE, teacher=layers, seed=3)
        if matched:
            match_output(module, x, y)
        with torch.no_grad():
            errors.append(float((module.train()(x) - y).square().mean()))

    assert errors[1] < errors[0]


def test_g_ghost_keeps_the_ends_and_leaves_the_teacher_alone() -> None:
    """Its first and last layers have the teacher's weights in tensors of their own; so many blocks lie between."""
    layers = mobile_run()
    module = build_operation(parse_operation("g_ghost"), WIDE, DEEP, teacher=layers)

    for name, own in (("first", layers[0]), ("last", layers[3])):
        copied = module.get_submodule(name)
        for one, other in zip(copied.parameters(), own.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()
    assert len(list(module.get_submodule("blocks").children())) == 2
    assert not any(child.training for child in layers.children())


def late_stride() -> LayerRun:
    """Return a run whose first layer keeps the shape and whose second changes it."""
    return LayerRun(
        Basic(WIDE, WIDE, kernel=3, width=1.0, act="relu", out="relu"),
        Basic(WIDE, DEEP, kernel=3, width=1.0, act="relu", out="relu"),
    )


@pytest.mark.parametrize(
    ("text", "layer", "shapes", "message"),
    [
        ("g_ghost", nn.Identity(), (WIDE, WIDE), "it stands for several layers"),
        ("g_ghost", dense_run(2), (WIDE, WIDE), "with end=keep it needs 3 layers, not 2"),
        ("g_ghost(end=none)", late_stride(), (WIDE, DEEP), "layer 1 of the run gives (16, 12, 12)"),
        ("g_ghost(share=0.875)", dense_run(), ((8, 4, 4), (8, 4, 4)), "leaves nothing of 8 channels"),
    ],
)
def test_what_is_no_stage_is_refused(
    text: str, layer: nn.Module, shapes: tuple[Shape, Shape], message: str
) -> None:
    """A single layer, too few, one that changes the shape late, too few channels."""
    reason = why_not_from(parse_operation(text), layer, *shapes)

    assert message in (reason or "")
