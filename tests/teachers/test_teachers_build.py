"""Spaces of teachers, networks built from them, the skeleton."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from lanaprof.errors import BadArchitecture
from lanaprof.space import Space, random_architecture
from lanaprof.teachers import (
    Teacher,
    assemble,
    build_candidate,
    find_layers,
    load_teacher,
    make_space,
    set_submodule,
    skeleton,
    state_digest,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The feature will be removed:DeprecationWarning"
)  # torch's own call


def ones(teacher: Teacher) -> torch.Tensor:
    return torch.randn(2, *teacher.input_shape, generator=torch.Generator().manual_seed(0))


def test_a_space_has_the_teachers_layers_and_their_candidates(resnet: Teacher, resnet_space: Space) -> None:
    """Names and shapes are the teacher's; each layer has about a dozen candidates."""
    assert resnet_space.teacher == resnet.text
    assert resnet_space.input_shape == (3, 32, 32)
    assert [layer.name for layer in resnet_space.layers] == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    assert all(
        layer.candidates[0] == "teacher" and len(layer.candidates) >= 9 for layer in resnet_space.layers
    )


def test_teacher_everywhere_is_the_teacher_bit_for_bit(mobilenet: Teacher) -> None:
    """The network of all ``teacher`` computes what the teacher computes."""
    space = make_space(mobilenet, find_layers(mobilenet))
    network = assemble(mobilenet, [(layer.name, "teacher") for layer in space.layers], space=space)
    x = ones(mobilenet)
    with torch.no_grad():
        assert torch.equal(network(x), mobilenet.module(x))


def test_random_architectures_run(resnet: Teacher, resnet_space: Space) -> None:
    """Any mix of candidates gives the teacher's output shape, and equal seeds give equal networks."""
    rng = random.Random(0)
    x = ones(resnet)
    for _ in range(5):
        choices = random_architecture(resnet_space, rng).choices
        network, same = (assemble(resnet, choices, space=resnet_space, seed=3) for _ in range(2))
        with torch.no_grad():
            assert network(x).shape == (2, 10)
        assert not network.training
        assert state_digest(network) == state_digest(same)


def test_a_built_network_shares_nothing(resnet: Teacher, resnet_space: Space) -> None:
    """Training it changes neither the teacher nor the candidates it was made of."""
    layer = resnet_space.layers[0]
    trained = build_candidate(resnet, layer, "conv", seed=5)
    before = state_digest(resnet.module), state_digest(trained)
    network = assemble(
        resnet, [(layer.name, "conv")], space=resnet_space, modules={(layer.name, "conv"): trained}
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)

    assert (state_digest(resnet.module), state_digest(trained)) == before


def test_trained_candidates_are_used(resnet: Teacher, resnet_space: Space) -> None:
    """The given module's weights stand in the layer."""
    layer = resnet_space.layers[0]
    trained = build_candidate(resnet, layer, "conv", seed=5)
    network = assemble(
        resnet, [(layer.name, "conv")], space=resnet_space, modules={(layer.name, "conv"): trained}
    )

    assert state_digest(network.get_submodule(layer.name)) == state_digest(trained)


def test_the_teacher_at_another_precision_stays_a_copy(resnet: Teacher, tmp_path: Path) -> None:
    """``teacher@fp16`` is left to the exporter; the network shares no module with the teacher."""
    ops = tmp_path / "ops.txt"
    ops.write_text("teacher@fp16\n")
    space = make_space(resnet, find_layers(resnet), ops)
    network = assemble(resnet, [("layer1.0", "teacher@fp16")], space=space)

    assert network.get_submodule("layer1.0") is not resnet.module.get_submodule("layer1.0")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([("layer9.0", "conv")], "no layer 'layer9.0'"),
        ([("layer2.0", "skip")], "'skip' is no candidate"),
    ],
)
def test_choices_that_do_not_fit_are_refused(
    resnet: Teacher, resnet_space: Space, choices: list[tuple[str, str]], message: str
) -> None:
    """Layer and candidate must exist."""
    with pytest.raises(BadArchitecture, match=message):
        assemble(resnet, choices, space=resnet_space)


def test_a_space_of_another_teacher_is_refused(mobilenet: Teacher, resnet_space: Space) -> None:
    """A teacher that lacks the space's layers has changed since."""
    with pytest.raises(BadArchitecture, match=r"has no submodule 'layer1\.0', but the space has"):
        assemble(mobilenet, [("layer1.0", "conv")], space=resnet_space)


def test_submodules_are_replaced_by_name() -> None:
    """Nested names work; a name that does not exist is refused."""
    root = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()))
    new = nn.Identity()
    set_submodule(root, "0.1", new)

    assert root.get_submodule("0.1") is new
    with pytest.raises(KeyError, match="weight"):
        set_submodule(root, "0.weight", new)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    ("text", "layers", "rest"),
    [
        (
            "timm:tf_efficientnet_lite0",
            16,
            {"Conv": 2, "Clip": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
        (
            "timm:resnet18",
            8,
            {"Conv": 1, "Relu": 1, "MaxPool": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
        (
            "timm:mobilenetv3_large_100",
            16,
            {"Conv": 2, "HardSwish": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
        (
            "torchvision:resnet18",
            8,
            {"Conv": 1, "Relu": 1, "MaxPool": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
    ],
)
def test_the_skeleton_exports_one_node_a_layer(
    text: str, layers: int, rest: dict[str, int], tmp_path: Path
) -> None:
    """What is left are stem and head; each layer is a marker with its name and its output's shape."""
    teacher = load_teacher(text, input_shape=(3, 64, 64))
    space = make_space(teacher, find_layers(teacher))
    path = tmp_path / "skeleton.onnx"
    torch.onnx.export(skeleton(teacher, space), (ones(teacher)[:1],), path, dynamo=False, opset_version=18)
    graph = onnx.load(path).graph
    markers = [node for node in graph.node if node.domain == "lanaprof"]
    others = Counter(
        node.op_type for node in graph.node if node.domain != "lanaprof" and node.op_type != "Constant"
    )
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }

    assert len(markers) == layers
    assert [node.attribute[0].s.decode() for node in markers] == [layer.name for layer in space.layers]
    assert {node.op_type for node in markers} == {"Layer"}
    assert [shapes[node.output[0]] for node in markers] == [
        (1, *layer.output_shape) for layer in space.layers
    ]
    assert others == rest


def test_the_skeleton_runs_in_torch(resnet: Teacher, resnet_space: Space) -> None:
    """It takes any batch and gives the teacher's output shape, from zeros in every layer."""
    with torch.no_grad():
        assert skeleton(resnet, resnet_space)(ones(resnet)).shape == (2, 10)
