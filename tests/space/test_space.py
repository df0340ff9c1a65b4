"""The space and architectures as plain data."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof import space as module
from lanaprof.errors import BadArchitecture, BadProject
from lanaprof.space import (
    Architecture,
    Layer,
    Space,
    Span,
    architecture_to_json,
    load_architecture,
    load_space,
    random_architecture,
    recipe,
    save_architecture,
    save_space,
    space_from_json,
    space_to_json,
)

LAYERS = (
    Layer("blocks.0", (8, 16, 16), (16, 8, 8), 1000, "a" * 32, ("teacher", "conv", "ds(kernel=5)")),
    Layer(
        "blocks.1", (16, 8, 8), (16, 8, 8), 2000, "b" * 32, ("teacher", "skip", "conv", "mbconv(expand=2)")
    ),
)
SPACE = Space("timm:tiny", (3, 32, 32), LAYERS)


def changed(document: Mapping[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    """Return a deep copy of a document with one value replaced; ``...`` removes it."""
    copied: dict[str, Any] = json.loads(json.dumps(document))
    target: Any = copied
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return copied


def test_a_saved_space_is_read_back(tmp_path: Path) -> None:
    """Every field survives the file, spans too."""
    saved = replace(SPACE, spans=(Span("blocks.0", "blocks.1", "conv"),))
    save_space(saved, tmp_path / "space.json")

    assert load_space(tmp_path / "space.json") == saved


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    """The folder holds the space and nothing else, after a second save too."""
    save_space(SPACE, tmp_path / "space.json")
    save_space(SPACE, tmp_path / "space.json")

    assert [path.name for path in tmp_path.iterdir()] == ["space.json"]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    """What cannot be written as JSON does not spoil what is there."""
    save_space(SPACE, tmp_path / "space.json")
    broken = replace(SPACE, teacher=object())  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        save_space(broken, tmp_path / "space.json")

    assert load_space(tmp_path / "space.json") == SPACE
    assert len(list(tmp_path.iterdir())) == 1


def test_size_is_the_product_of_the_candidates() -> None:
    """log10 of 3 × 4 architectures."""
    assert math.isclose(SPACE.log10_size, math.log10(12))
    assert SPACE.candidate_count == 7


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), "lanaprof-space/2", "has the format 'lanaprof-space/2'; this lanaprof reads"),
        (("format",), "something", "has the format 'something' instead of 'lanaprof-space/1'"),
        (("teacher",), ..., "lacks 'teacher'"),
        (("teacher",), 5, "'teacher' is no text"),
        (("input_shape",), [3, -1], "'input_shape' is no list of sizes"),
        (("layers",), {}, "'layers' is no list"),
        (("layers",), [], "has no layers"),
        (("layers", 1, "output_shape"), ..., "layer 1 lacks 'output_shape'"),
        (("layers", 0, "output_shape"), [], "layer 0: 'output_shape' is no list of sizes"),
        (("layers", 0, "params"), "many", "layer 0: 'params' is no whole number"),
        (("layers", 0, "candidates"), ["teacher", 5], "layer 0: 'candidates' is no list of texts"),
        (("layers", 0, "candidates"), ["conv"], "first candidate of 'blocks.0' is not teacher"),
        (("layers", 0, "candidates"), ["teacher", "conv", "conv"], "has the candidate 'conv' twice"),
        (("layers", 1, "name"), "blocks.0", "names the layer 'blocks.0' twice"),
        (("layers", 0), 7, "layer 0 lacks 'name'"),
        (("spans",), [{"first": "blocks.0"}], "lacks 'last'"),
    ],
)
def test_a_broken_space_says_what_is_wrong(path: tuple[str | int, ...], value: Any, message: str) -> None:
    """The message names the place, and the hint what to type."""
    with pytest.raises(BadProject) as caught:
        space_from_json(changed(space_to_json(SPACE), *path, value=value))

    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("{", "is no JSON"), ("[]", "no JSON object")]
)
def test_an_unreadable_space_says_so(tmp_path: Path, content: str | None, message: str) -> None:
    """No file, no JSON, no object: each in words."""
    path = tmp_path / "space.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(BadProject, match=message):
        load_space(path)


def test_relay_context_is_shapes_batch_and_type_alone() -> None:
    """Spaces over the same shapes share measurements, whatever their names, teachers and candidates are."""
    other = Space(
        "timm:other",
        (1, 64, 64),
        tuple(replace(one, name=f"x.{one.name}", candidates=("teacher",), structure="c") for one in LAYERS),
    )
    base = SPACE.relay_digest(1)

    assert other.relay_digest(1) == base
    assert SPACE.relay_digest(8) != base
    assert SPACE.relay_digest(1, precision="fp16") != base
    assert replace(SPACE, layers=LAYERS[:1]).relay_digest(1) != base
    assert replace(SPACE, layers=LAYERS[::-1]).relay_digest(1) != base


def test_a_recipe_knows_what_decides_the_graph() -> None:
    """Shapes, batch, precision and parameters count; names and other candidates do not."""
    layer = LAYERS[1]
    base = recipe(layer, "mbconv(expand=2)", batch=1, precision="fp32")
    different = {
        recipe(layer, "mbconv(expand=3)", batch=1, precision="fp32"),
        recipe(layer, "mbconv(expand=2)", batch=2, precision="fp32"),
        recipe(layer, "mbconv(expand=2)", batch=1, precision="fp16"),
        recipe(layer, "conv", batch=1, precision="fp32"),
        recipe(LAYERS[0], "mbconv(expand=2)", batch=1, precision="fp32"),
    }

    assert (
        recipe(replace(layer, name="other", params=1), "mbconv(kernel=3,expand=2)", batch=1, precision="fp32")
        == base
    )
    assert base not in different
    assert len(different) == 5


def test_an_operations_own_precision_comes_first() -> None:
    """``conv@fp16`` is the same operator on every device."""
    on_fp32, on_fp16 = (recipe(LAYERS[1], "conv@fp16", batch=1, precision=p) for p in ("fp32", "fp16"))

    assert on_fp32 == on_fp16 == recipe(LAYERS[1], "conv", batch=1, precision="fp16")


def test_a_teachers_recipe_is_its_structure() -> None:
    """Two teacher layers share an operator only if their modules are alike."""
    alike = replace(LAYERS[0], name="elsewhere")
    unlike = replace(LAYERS[0], structure="d" * 32)
    base = recipe(LAYERS[0], "teacher", batch=1, precision="fp32")

    assert recipe(alike, "teacher", batch=1, precision="fp32") == base
    assert recipe(unlike, "teacher", batch=1, precision="fp32") != base
    assert recipe(unlike, "conv", batch=1, precision="fp32") == recipe(
        alike, "conv", batch=1, precision="fp32"
    )


def test_what_is_made_from_the_teachers_layer_has_its_structure_in_the_recipe() -> None:
    """Half of one block and half of another of the same shapes are two operators."""
    alike = replace(LAYERS[0], name="elsewhere")
    unlike = replace(LAYERS[0], structure="d" * 32)
    base = recipe(LAYERS[0], "slim", batch=1, precision="fp32")

    assert recipe(alike, "slim", batch=1, precision="fp32") == base
    assert recipe(unlike, "slim", batch=1, precision="fp32") != base
    assert recipe(LAYERS[0], "slim(width=0.25)", batch=1, precision="fp32") != base


def test_layers_not_named_keep_the_teacher() -> None:
    """An architecture says only what changes; other ways to write an operation are understood."""
    architecture = Architecture("timm:tiny", (("blocks.1", "mbconv( kernel=3, expand=2 )"),))

    assert architecture.complete(SPACE) == ("teacher", "mbconv(expand=2)")


@pytest.mark.parametrize(
    ("architecture", "message", "hint"),
    [
        (Architecture("timm:tiny", (("block.1", "conv"),)), "no layer 'block.1'", "did you mean blocks.1"),
        (Architecture("timm:tiny", (("zzz", "conv"),)), "no layer 'zzz'", "its layers: blocks.0, blocks.1"),
        (
            Architecture("timm:tiny", (("blocks.0", "skip"),)),
            "'skip' is no candidate",
            "teacher, conv, ds(kernel=5)",
        ),
        (
            Architecture("timm:tiny", (("blocks.0", "nonsense"),)),
            "'nonsense' is no candidate",
            "teacher, conv",
        ),
        (
            Architecture("timm:big", ()),
            "for the teacher 'timm:big', the space for 'timm:tiny'",
            "own project",
        ),
        (
            Architecture("timm:tiny", (("blocks.0..blocks.1", "conv"),)),
            "spans several layers",
            "one layer per choice",
        ),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(
    architecture: Architecture, message: str, hint: str
) -> None:
    """The message says what was asked, the hint what there is."""
    with pytest.raises(BadArchitecture) as caught:
        architecture.complete(SPACE)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_saved_architecture_is_read_back(tmp_path: Path) -> None:
    """From the file and from the document."""
    architecture = Architecture("timm:tiny", (("blocks.1", "skip"), ("blocks.0", "conv")))
    save_architecture(architecture, tmp_path / "arch.json")

    assert load_architecture(tmp_path / "arch.json") == architecture
    assert load_architecture(architecture_to_json(architecture)) == architecture


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        (
            '{"format": "lanaprof-architecture/9", "choices": {}}',
            "this lanaprof reads 'lanaprof-architecture/1'",
        ),
        ('{"choices": {}}', "has the format None"),
        ('{"format": "lanaprof-architecture/1"}', "choices is missing"),
        ('{"format": "lanaprof-architecture/1", "teacher": 1, "choices": {}}', "teacher is no text"),
        ('{"format": "lanaprof-architecture/1", "choices": {"a": 1}}', "the choice for 'a' is no text"),
        (
            '{"format": "lanaprof-architecture/1", "choices": {"a": "x", "a": "y"}}',
            "the key 'a' stands twice",
        ),
    ],
)
def test_a_broken_architecture_file_says_what_is_wrong(
    tmp_path: Path, content: str | None, message: str
) -> None:
    """Each defect in words, with a hint."""
    path = tmp_path / "arch.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(BadArchitecture, match=message) as caught:
        load_architecture(path)

    assert caught.value.hint


def test_an_architecture_names_a_layer_once() -> None:
    """Two choices for one layer are refused."""
    with pytest.raises(BadArchitecture, match=r"names the layer 'blocks\.0' twice"):
        Architecture("", (("blocks.0", "conv"), ("blocks.0", "teacher")))


def test_random_architectures_follow_their_seed() -> None:
    """Equal seeds draw equal architectures, and in the long run every candidate is drawn."""
    first, second = (random_architecture(SPACE, random.Random(7)) for _ in range(2))
    rng = random.Random(0)
    drawn = {random_architecture(SPACE, rng).complete(SPACE) for _ in range(300)}

    assert first == second
    assert len(drawn) == 12


def test_random_architectures_draw_from_what_is_allowed() -> None:
    """Layers not named draw from all of theirs."""
    rng = random.Random(0)
    drawn = {random_architecture(SPACE, rng, {"blocks.1": ["skip"]}).complete(SPACE) for _ in range(100)}

    assert drawn == {("teacher", "skip"), ("conv", "skip"), ("ds(kernel=5)", "skip")}


@pytest.mark.parametrize(
    ("allowed", "message"),
    [({"nowhere": ["conv"]}, "no layer 'nowhere'"), ({"blocks.0": []}, "no candidate of the layer")],
)
def test_random_architectures_refuse_what_cannot_be(allowed: Mapping[str, list[str]], message: str) -> None:
    """A layer that does not exist, or nothing to draw from."""
    with pytest.raises(BadArchitecture, match=message):
        random_architecture(SPACE, random.Random(0), allowed)


def test_public_names_are_sorted_and_there() -> None:
    """``__all__`` holds names that exist, constants first as the linter sorts them."""
    assert all(hasattr(module, name) for name in module.__all__)
    assert set(module.__all__) >= {"Architecture", "Layer", "Space", "load_space", "recipe"}
