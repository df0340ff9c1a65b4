"""Where teachers come from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lanaprof.errors import BadInput, LanaprofError, UnknownTeacher
from lanaprof.teachers import Teacher, load_attribute, load_teacher, read_weights, state_digest

SMALL = "timm:resnet10t"
FACTORY = """
import torch
from helper import WIDTH

def teacher():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, WIDTH, 3, padding=1), torch.nn.BatchNorm2d(WIDTH))
    network.preprocessing = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return network.train()

def broken():
    raise RuntimeError("no such disk")

def wrong():
    return 5

constant = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a factory and its helper; imports are undone afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mynet.py").write_text(FACTORY)
    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import no_such_package_at_all\n")
    yield tmp_path
    for name in ("mynet", "helper", "failing", "needy"):
        sys.modules.pop(name, None)


def outputs(teacher: Teacher) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = teacher.module(torch.ones(1, *teacher.input_shape))
    return result


def test_a_named_network_without_weights_is_seeded(resnet: Teacher) -> None:
    """Random weights follow the seed, and the caller is told to warn."""
    same = load_teacher(resnet.text, input_shape=(3, 32, 32))
    other = load_teacher(resnet.text, input_shape=(3, 32, 32), seed=1)

    assert resnet.seeded
    assert resnet.weights == "seeded random (seed 0)"
    assert same.weights_digest == resnet.weights_digest != other.weights_digest
    assert torch.equal(outputs(same), outputs(resnet))


def test_loading_leaves_global_randomness_alone() -> None:
    """Random numbers drawn after loading are those that would have come without."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_teacher(SMALL, input_shape=(3, 32, 32))

    assert torch.equal(torch.rand(3), expected)


def test_a_teacher_is_in_eval_mode_and_float32(resnet: Teacher) -> None:
    """No dropout, no batch statistics, one type."""
    assert not any(child.training for child in resnet.module.modules())
    assert {parameter.dtype for parameter in resnet.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("timm:mobilenetv3_small_050", (3, 224, 224)),
        ("timm:test_efficientnet", (3, 160, 160)),
        ("torchvision:mobilenet_v3_small", (3, 224, 224)),
        ("timm:mobilenetv3_small_050?in_chans=1", (1, 224, 224)),
    ],
)
def test_the_input_defaults_to_the_networks_own(text: str, shape: tuple[int, ...]) -> None:
    """Size and channels come from the library's own description."""
    assert load_teacher(text).input_shape == shape


def test_options_reach_the_network() -> None:
    """num_classes sets the head's size, in both libraries."""
    assert outputs(load_teacher("timm:resnet10t?num_classes=17", input_shape=(3, 32, 32))).shape == (1, 17)
    assert outputs(load_teacher("torchvision:resnet18?num_classes=5", input_shape=(3, 32, 32))).shape == (
        1,
        5,
    )


def test_input_channels_follow_the_input_shape() -> None:
    """``--input 1x32x32`` makes a grey network."""
    assert outputs(load_teacher(SMALL, input_shape=(1, 32, 32))).shape == (1, 1000)


def test_preprocessing_is_the_librarys() -> None:
    """Mean and standard deviation are those the network is published with."""
    assert load_teacher("torchvision:resnet18", input_shape=(3, 32, 32)).preprocessing["mean"] == (
        0.485, 0.456, 0.406,
    )  # fmt: skip
    assert load_teacher(SMALL, input_shape=(3, 32, 32)).preprocessing["std"] == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_weights_come_from_a_file_and_say_the_heads_size(
    tmp_path: Path, resnet: Teacher, ending: str
) -> None:
    """The number of classes is read off the weights; the network computes what the first one did."""
    path = tmp_path / f"weights.{ending}"
    state = resnet.module.state_dict()
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)

    loaded = load_teacher(SMALL, weights=path, input_shape=(3, 32, 32), seed=9)

    assert not loaded.seeded
    assert loaded.weights == str(path)
    assert loaded.weights_digest == resnet.weights_digest
    assert torch.equal(outputs(loaded), outputs(resnet))


def test_weights_say_the_input_channels(tmp_path: Path) -> None:
    """A grey network's weights make a grey network."""
    grey = load_teacher(f"{SMALL}?in_chans=1&num_classes=4", input_shape=(1, 32, 32))
    save_file(grey.module.state_dict(), tmp_path / "grey.safetensors")

    loaded = load_teacher(SMALL, weights=tmp_path / "grey.safetensors")

    assert loaded.input_shape[0] == 1
    assert loaded.weights_digest == grey.weights_digest


def test_torchvisions_head_follows_the_weights_too(tmp_path: Path) -> None:
    """The inference does not depend on the library."""
    small = load_teacher("torchvision:mobilenet_v3_small?num_classes=3", input_shape=(3, 32, 32))
    torch.save({"model": small.module.state_dict()}, tmp_path / "w.pt")

    loaded = load_teacher(
        "torchvision:mobilenet_v3_small", weights=tmp_path / "w.pt", input_shape=(3, 32, 32)
    )

    assert torch.equal(outputs(loaded), outputs(small))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("resnet18", "'resnet18' is no teacher", "timm:NAME, torchvision:NAME or package.module:factory"),
        ("timm:resnet81", "timm has no network 'resnet81'", "did you mean timm:resnet"),
        ("timm:", "timm has no network ''", "networks, e.g."),
        (
            "timm:resnet18.no_such_tag",
            "timm has no network 'resnet18.no_such_tag'",
            "write timm:resnet18, or one of timm:resnet18.a1_in1k",
        ),
        ("timm:hf-hub:someone/something", "timm has no network", "networks"),
        ("torchvision:resnet81", "torchvision has no network 'resnet81'", "did you mean torchvision:resnet"),
        ("torchvision:fcn_resnet50", "torchvision has no network 'fcn_resnet50'", "networks"),
        ("timm:resnet10t?pretrained=true", "pretrained is not an option here", "--weights"),
        ("torchvision:resnet18?weights=DEFAULT", "weights is not an option here", "--weights"),
        ("timm:resnet10t?classes", "'classes' is not NAME=VALUE", "?num_classes=17"),
        (
            "timm:resnet10t?no_such_option=1",
            "cannot make 'timm:resnet10t?no_such_option=1'",
            "options after the ?",
        ),
        ("torchvision:resnet18?in_chans=1", "with in_chans=1", "options after the ?"),
    ],
)
def test_an_unknown_teacher_says_what_there_is(text: str, message: str, hint: str) -> None:
    """Misspelt networks are guessed, misplaced options explained."""
    with pytest.raises(UnknownTeacher) as caught:
        load_teacher(text)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_input_the_network_cannot_take_is_refused() -> None:
    """Not a shape error from deep inside, but the size that was asked for."""
    with pytest.raises(BadInput, match="cannot take an input of 1x32x32"):
        load_teacher("torchvision:resnet18", input_shape=(1, 32, 32))


def test_weights_of_another_network_are_refused(tmp_path: Path, mobilenet: Teacher) -> None:
    """The first few differences are named."""
    save_file(mobilenet.module.state_dict(), tmp_path / "other.safetensors")

    with pytest.raises(UnknownTeacher, match=r"do not fit the network \(missing: .* and \d+ more; unknown: "):
        load_teacher(SMALL, weights=tmp_path / "other.safetensors")


def test_weights_of_another_size_are_refused(tmp_path: Path, resnet: Teacher) -> None:
    """A given number of classes is not overruled by the weights."""
    save_file(resnet.module.state_dict(), tmp_path / "ten.safetensors")

    with pytest.raises(UnknownTeacher, match=r"other shapes: fc.weight is \(10, 512\) instead of \(7, 512\)"):
        load_teacher(f"{SMALL}?num_classes=7", weights=tmp_path / "ten.safetensors")


def test_unreadable_weights_are_refused(tmp_path: Path) -> None:
    """Missing, truncated, of another kind, or holding code: each in words."""
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "weights.h5").write_bytes(b"")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pth")
    expected = {
        "missing.pt": "there are no weights at",
        "cut.safetensors": "no readable safetensors file",
        "cut.pt": "no readable PyTorch file",
        "weights.h5": "unknown ending '.h5'",
        "whole.pt": "holds more than tensors",
        "list.pth": "holds no mapping of names to tensors",
    }
    for name, message in expected.items():
        with pytest.raises(UnknownTeacher, match=message) as caught:
            read_weights(tmp_path / name)

        assert caught.value.hint


def test_pretrained_without_network_is_a_plain_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source cannot be reached: the user may give a file instead."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(UnknownTeacher, match="timm has no weights of 'resnet10t' for us") as caught:
        load_teacher(SMALL, weights="pretrained")

    assert "--weights F.safetensors" in caught.value.hint


def test_a_factorys_module_is_taken_as_it_returns(project: Path) -> None:
    """In eval mode, with its own preprocessing, from the project folder and its neighbours."""
    teacher = load_teacher("mynet:teacher", input_shape=(3, 8, 8), search_path=project)

    assert not teacher.module.training
    assert not teacher.seeded
    assert outputs(teacher).shape == (1, 4, 8, 8)
    assert teacher.preprocessing == {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def test_a_factory_takes_weights_when_given(project: Path, tmp_path: Path) -> None:
    """``--weights`` goes into the factory's module."""
    first = load_teacher("mynet:teacher", input_shape=(3, 8, 8), search_path=project)
    save_file(first.module.state_dict(), tmp_path / "mine.safetensors")
    second = load_teacher(
        "mynet:teacher", weights=tmp_path / "mine.safetensors", input_shape=(3, 8, 8), search_path=project
    )

    assert second.weights_digest == first.weights_digest


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("mynet:teacher", None, "does not say its input shape"),
        ("mynet:teacher", (3, 0, 8), "is no shape"),
        ("mynet:teacher", (7, 8, 8), "cannot take an input of 7x8x8"),
        ("mynet:missing", (3, 8, 8), "has no 'missing'"),
        ("mynet:broken", (3, 8, 8), "fails: RuntimeError: no such disk"),
        ("mynet:wrong", (3, 8, 8), "returns int instead of a torch.nn.Module"),
        ("mynet:constant", (3, 8, 8), "cannot be called"),
        ("no_such_module_here:teacher", (3, 8, 8), "there is no module 'no_such_module_here'"),
        ("failing:teacher", (3, 8, 8), "fails while it is imported: ZeroDivisionError"),
        ("needy:teacher", (3, 8, 8), "needs another: No module named 'no_such_package_at_all'"),
        ("my net:teacher", (3, 8, 8), "names no Python object"),
    ],
)
def test_a_factory_that_does_not_work_says_why(
    project: Path, text: str, shape: tuple[int, ...] | None, message: str
) -> None:
    """The user's own code fails in the user's words."""
    with pytest.raises(LanaprofError) as caught:
        load_teacher(text, input_shape=shape, search_path=project)

    assert message in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_factory_is_no_source_of_pretrained_weights(project: Path) -> None:
    """``--weights pretrained`` means nothing to a factory, and that is said."""
    with pytest.raises(UnknownTeacher, match="no source of pretrained weights"):
        load_teacher("mynet:teacher", weights="pretrained", input_shape=(3, 8, 8), search_path=project)


def test_two_projects_may_use_the_same_module_name(project: Path, tmp_path: Path) -> None:
    """The module of the project that is asked for is the one that answers."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "mynet.py").write_text("import helper\nconstant = helper.WIDTH\n")
    (other / "helper.py").write_text("WIDTH = 'other'\n")
    first = load_attribute("mynet:constant", search_path=project)
    second = load_attribute("mynet:constant", search_path=other)
    third = load_attribute("mynet:constant", search_path=project)

    assert (first, second, third) == (3, "other", 3)


def test_the_digest_sees_every_bit() -> None:
    """One weight changed by the least amount is another teacher."""
    linear = nn.Linear(3, 3)
    network = nn.Sequential(linear, nn.BatchNorm1d(3))
    before = state_digest(network)
    with torch.no_grad():
        weight = linear.weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))

    assert state_digest(network) != before
