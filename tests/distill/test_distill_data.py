"""Data specs, splits and batches."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lanaprof.distill import DataSource, load_data
from lanaprof.distill.fashion_mnist import FOLDER_VARIABLE, find_fashion_mnist, read_idx
from lanaprof.errors import BadInput

SHAPE = (3, 16, 16)


def _images(folder: Path, count: int, *, size: tuple[int, int] = (24, 20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    for number in range(count):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def _idx(path: Path, values: Any) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def _fashion(folder: Path, *, train: int = 40, test: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        _idx(
            folder / f"{name}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        _idx(folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return folder


def _module(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(f"import torch\n{text}\n")
    return name


def test_batches_depend_on_seed_and_step_alone(noise: DataSource) -> None:
    """Starting at step 5 gives what step 5 of the whole run gives; passes and seeds differ."""
    whole = noise.batches("train", 3, seed=1)
    first = [next(whole)[0] for _ in range(7)]
    later = noise.batches("train", 3, seed=1, start_step=5)
    assert all(torch.equal(next(later)[0], first[step]) for step in (5, 6))
    assert not torch.equal(next(noise.batches("train", 3, seed=2))[0], first[0])


def test_every_pass_sees_every_sample_once(labelled: DataSource) -> None:
    """Batches run on over the end of a pass: any 22 consecutive samples from its start are all of them."""
    count = labelled.train_count
    batches = labelled.batches("train", 4, seed=0)
    stream = torch.cat([next(batches)[0] for _ in range(-(-2 * count // 4))])
    passes = [stream[:count], stream[count : 2 * count]]
    assert [len({x.sum().item() for x in one}) for one in passes] == [count, count]
    assert not torch.equal(passes[0], passes[1])


def test_splits_do_not_overlap(labelled: DataSource) -> None:
    """A tenth is held out, and no image is in both splits."""
    assert (labelled.train_count, labelled.heldout_count) == (22, 2)
    train, heldout = (
        {x.sum().item() for x in labelled.batch(split, range(labelled.count(split)))[0]}
        for split in ("train", "heldout")
    )
    assert len(train | heldout) == 24


def test_heldout_stops_at_the_limit(noise: DataSource) -> None:
    """At most so many, the last batch smaller."""
    assert [len(x) for x, _ in noise.iter_heldout(8, 20)] == [8, 8, 4]


def test_unknown_split(noise: DataSource) -> None:
    """A split that the data lacks is named with those it has."""
    with pytest.raises(BadInput, match="no split 'test'; it has train, heldout"):
        next(noise.iter_split("test"))


def test_class_folders_give_labels(labelled: DataSource) -> None:
    """Labels are the places of the sorted folder names."""
    _, y = labelled.batch("train", range(labelled.train_count))
    assert labelled.labelled
    assert y is not None
    assert set(y.tolist()) == {0, 1}


def test_flat_folder_gives_no_labels(tmp_path: Path) -> None:
    """Images without class folders are fine for distilling."""
    data = load_data(f"imagefolder:{_images(tmp_path / 'flat', 10)}", input_shape=SHAPE)
    x, y = data.batch("train", [0, 1])
    assert not data.labelled
    assert y is None
    assert x.shape == (2, *SHAPE)
    assert x.dtype == torch.float32


def test_train_and_val_folders_are_the_splits(tmp_path: Path) -> None:
    """A folder with train and val keeps its own split instead of taking them for classes."""
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            _images(tmp_path / split / name, count)
    data = load_data(f"imagefolder:{tmp_path}", input_shape=SHAPE)
    assert (data.train_count, data.heldout_count, data.count("test")) == (12, 6, 4)


def test_images_are_resized_cropped_and_normalised(tmp_path: Path) -> None:
    """The shorter side fits, the centre stays; mean and std are the teacher's."""
    folder = tmp_path / "one"
    folder.mkdir()
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255  # the middle third is white
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(folder / name)
    preprocessing = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    data = load_data(f"imagefolder:{folder}", input_shape=(3, 8, 8), preprocessing=preprocessing)
    assert torch.equal(data.batch("train", [0])[0], torch.full((1, 3, 8, 8), 2.0))
    assert data.preprocessing["mean"] == (0.5, 0.5, 0.5)


def test_grey_input_makes_images_grey(tmp_path: Path) -> None:
    """One channel asks for grey images."""
    data = load_data(f"imagefolder:{_images(tmp_path / 'x', 4)}", input_shape=(1, 16, 16))
    assert data.batch("train", [0])[0].shape == (1, 1, 16, 16)


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    """A moved folder is the same data; another pixel, input size or seed is not."""
    folder = _images(tmp_path / "here", 12)
    digest = load_data(f"imagefolder:{folder}", input_shape=SHAPE).digest
    moved = folder.rename(tmp_path / "there")
    assert load_data(f"imagefolder:{moved}", input_shape=SHAPE).digest == digest
    others = {
        load_data(f"imagefolder:{moved}", input_shape=(3, 8, 8)).digest,
        load_data(f"imagefolder:{moved}", input_shape=SHAPE, seed=1).digest,
    }
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(moved / "000.png")
    others.add(load_data(f"imagefolder:{moved}", input_shape=SHAPE).digest)
    assert len(others | {digest}) == 4


def test_relative_paths_start_in_the_project(tmp_path: Path) -> None:
    """The project's folder is looked in first."""
    _images(tmp_path / "photos", 4)
    assert load_data("imagefolder:photos", input_shape=SHAPE, search_path=tmp_path).train_count == 3


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    """A broken file is an error that names it, when it is read."""
    folder = _images(tmp_path / "broken", 3)
    (folder / "000.png").write_bytes(b"no image")
    data = load_data(f"imagefolder:{folder}", input_shape=SHAPE)
    with pytest.raises(BadInput, match=r"cannot read the image .*000\.png"):
        _ = data.digest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagefolder:nowhere", "there is no folder nowhere"),
        ("imagefolder:", "names no folder"),
        ("webdataset:x.tar", "no module 'webdataset'|is no data spec"),
        ("cifar", "is no data spec; known are imagefolder:PATH"),
        ("torchvision:ImageNet:root", "with NAME one of CIFAR10"),
        ("torchvision:CIFAR10", "is not torchvision:NAME:ROOT"),
        ("no_such_module_here:data", "no module 'no_such_module_here'"),
    ],
)
def test_wrong_specs(spec: str, message: str) -> None:
    """What cannot be found is named, and so is what is known."""
    with pytest.raises(BadInput, match=message):
        load_data(spec, input_shape=SHAPE)


def test_torchvision_data_is_never_downloaded(tmp_path: Path) -> None:
    """A folder without the data set is an error with the command that would download it."""
    with pytest.raises(BadInput, match="does not hold torchvision's CIFAR10") as caught:
        load_data(f"torchvision:CIFAR10:{tmp_path}", input_shape=SHAPE)
    assert "download=True" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_torchvision_data_is_read(tmp_path: Path) -> None:
    """The official training images are split, the official test images are the test split."""
    _fashion(tmp_path / "FashionMNIST" / "raw")
    for path in (tmp_path / "FashionMNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    data = load_data(f"torchvision:FashionMNIST:{tmp_path}", input_shape=SHAPE)
    assert (data.train_count, data.heldout_count, data.count("test")) == (36, 4, 10)
    assert data.batch("test", [0, 1])[0].shape == (2, *SHAPE)


def test_empty_and_mixed_folders(tmp_path: Path) -> None:
    """No images, or some in class folders and some beside them: refused."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="there are no images"):
        load_data(f"imagefolder:{tmp_path / 'empty'}", input_shape=SHAPE)
    _images(tmp_path / "mixed", 2)
    _images(tmp_path / "mixed" / "cat", 2)
    with pytest.raises(BadInput, match="holds 2 images and, in folders beside them, 2 more"):
        load_data(f"imagefolder:{tmp_path / 'mixed'}", input_shape=SHAPE)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    """Something must be left to hold out."""
    with pytest.raises(BadInput, match=r"has 1 sample\(s\)"):
        load_data(f"imagefolder:{_images(tmp_path / 'one', 1)}", input_shape=SHAPE)


@pytest.mark.parametrize("shape", [(16, 16), (4, 16, 16)])
def test_images_need_an_image_input(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A network for something else is told to bring its own data."""
    with pytest.raises(BadInput, match="is none"):
        load_data(f"imagefolder:{_images(tmp_path / 'x', 2)}", input_shape=shape)


def test_function_with_splits(tmp_path: Path) -> None:
    """A function with a parameter split is asked for both; pairs give labels."""
    _module(
        tmp_path,
        "split_data_module",
        "def data(split):\n"
        "    for number in range(6 if split == 'train' else 2):\n"
        "        yield torch.full((3, 16, 16), float(number)), number % 2",
    )
    data = load_data("split_data_module:data", input_shape=SHAPE, search_path=tmp_path)
    x, y = data.batch("train", [5])
    assert (data.train_count, data.heldout_count, data.labelled) == (6, 2, True)
    assert x.mean().item() == 5
    assert y is not None
    assert y.tolist() == [1]


def test_function_without_splits(tmp_path: Path) -> None:
    """Without it a seeded tenth is held out."""
    _module(
        tmp_path,
        "plain_data_module",
        "def data():\n    return [torch.full((3, 16, 16), float(number)) for number in range(20)]",
    )
    data = load_data("plain_data_module:data", input_shape=SHAPE, search_path=tmp_path)
    assert (data.train_count, data.heldout_count, data.labelled) == (18, 2, False)


def test_endless_function_stops_when_memory_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is left out, and said so."""
    _module(
        tmp_path,
        "endless_data_module",
        "def data():\n    while True:\n        yield torch.zeros(3, 16, 16)",
    )
    monkeypatch.setattr("lanaprof.distill.userdata.MOST_BYTES", 10 * 3 * 16 * 16 * 4)
    data = load_data("endless_data_module:data", input_shape=SHAPE, search_path=tmp_path)
    assert data.train_count + data.heldout_count == 10
    assert "only the first 10 samples" in data.note


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return", "yields nothing"),
        ("yield torch.zeros(3, 8, 8)", r"has the shape \(3, 8, 8\)"),
        ("yield torch.zeros(3, 16, 16, dtype=torch.uint8)", "and type torch.uint8"),
        ("yield torch.zeros(3, 16, 16), 'cat'", "is 'cat', not a class number"),
        ("yield torch.zeros(3, 16, 16), 1, 2", "a tuple of 3"),
        ("raise OSError('disk gone')", "failed: OSError: disk gone"),
    ],
)
def test_functions_that_yield_what_does_not_fit(body: str, message: str, tmp_path: Path) -> None:
    """Shape, type, label and failure are named."""
    lines = "\n    ".join([body, "yield torch.zeros(3, 16, 16)"])
    name = _module(tmp_path, "wrong_data_module", f"def data():\n    {lines}")
    with pytest.raises(BadInput, match=message):
        load_data(f"{name}:data", input_shape=SHAPE, search_path=tmp_path)


def test_later_samples_are_checked_too(tmp_path: Path) -> None:
    """The sample that does not fit is named by its number."""
    _module(
        tmp_path,
        "late_data_module",
        "def data():\n    return [torch.zeros(3, 16, 16)] * 4 + [torch.zeros(1, 16, 16)]",
    )
    data = load_data("late_data_module:data", input_shape=SHAPE, search_path=tmp_path)
    with pytest.raises(BadInput, match="sample 4 of"):
        _ = [data.batch(split, range(data.count(split))) for split in data.splits]


def test_random_data_is_reproducible_noise() -> None:
    """The same sample each time, train and held-out ones differ, and a note says what it is worth."""
    one, other = (load_data("random", input_shape=SHAPE) for _ in range(2))
    assert torch.equal(one.batch("train", [3])[0], other.batch("train", [3])[0])
    assert not torch.equal(one.batch("train", [3])[0], one.batch("heldout", [3])[0])
    assert "mean nothing" in one.note
    assert not one.images


def test_fashion_mnist_from_a_named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable's folder wins; its test images are a split of their own."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(_fashion(tmp_path / "fm")))
    data = load_data("fashion-mnist", input_shape=(1, 28, 28))
    assert (data.train_count, data.heldout_count, data.count("test")) == (36, 4, 10)
    assert data.preprocessing["mean"] == (0.286,)
    x, y = data.batch("test", [3])
    assert y is not None
    assert y.tolist() == [3]
    assert x.shape == (1, 1, 28, 28)


def test_fashion_mnist_is_resized_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colour network of another size gets grey images as colour ones of its size."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(_fashion(tmp_path / "fm")))
    x, _ = load_data("fashion-mnist", input_shape=(3, 32, 32)).batch("train", [0])
    assert x.shape == (1, 3, 32, 32)
    assert torch.equal(x[:, 0], x[:, 2])


def test_fashion_mnist_subset_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the full set, the shipped subset is found from a folder inside the checkout."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("lanaprof.distill.fashion_mnist._SYSTEM_FOLDER", tmp_path / "none")
    checkout = Path(__file__).parents[2]
    monkeypatch.chdir(checkout / "tests" / "distill")
    data = load_data("fashion-mnist", input_shape=(1, 28, 28))
    assert (data.train_count, data.heldout_count, data.count("test")) == (13500, 1500, 4000)
    _, y = data.batch("test", range(4000))
    assert y is not None
    assert torch.bincount(y).tolist() == [400] * 10


def test_fashion_mnist_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, the error says how to get it."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("lanaprof.distill.fashion_mnist._SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr("lanaprof.distill.fashion_mnist._SUBSET", Path("none"))
    with pytest.raises(BadInput, match="not on this machine") as caught:
        find_fashion_mnist()
    assert "dataset-fashion-mnist" in caught.value.hint


def test_fashion_mnist_named_folder_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names the wrong folder is told, not passed over."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(BadInput, match="lacks train-images-idx3-ubyte"):
        find_fashion_mnist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot read"),
        (gzip.compress(b"hello"), "not an idx file"),
        (gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2])), "cut off"),
    ],
    ids=["no gzip", "no idx", "cut off"],
)
def test_damaged_idx_files(content: bytes, message: str, tmp_path: Path) -> None:
    """Each way of being broken has its message."""
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_idx(path)
