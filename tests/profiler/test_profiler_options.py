"""Options of a runtime that a device chooses: read, part of the environment's key, known where it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lanaprof.config import Device, parse_device
from lanaprof.errors import BackendUnavailable, BadInput
from lanaprof.flows.devicing import device_states
from lanaprof.profiler.backends import backend_class
from lanaprof.profiler.environment import is_device, local_environment
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.sample_graphs import relu_graph

EAGER = Device(name="eager", text="eager", backend="torch")
COMPILED = replace(EAGER, name="compiled", options=(("compile", "inductor"),))


def test_a_chosen_option_is_another_environment() -> None:
    """In the place of the default, which said aloud changes nothing."""
    eager, compiled = local_environment(EAGER), local_environment(COMPILED)
    said = local_environment(replace(EAGER, options=(("compile", "eager"),)))

    assert dict(compiled.options)["compile"] == "inductor"
    assert eager.id == said.id != compiled.id


def test_environments_are_told_apart_by_options() -> None:
    """What one device measured does not answer for the other."""
    eager, compiled = local_environment(EAGER), local_environment(COMPILED)

    assert [is_device(EAGER, eager), is_device(EAGER, compiled)] == [True, False]
    assert [is_device(COMPILED, eager), is_device(COMPILED, compiled)] == [False, True]


def test_an_environment_older_than_an_option_had_its_default() -> None:
    """It says nothing of the option; a device that chooses another value is not it."""
    old = replace(local_environment(EAGER), options=(("denormals", "flushed"),))

    assert is_device(EAGER, old)
    assert not is_device(COMPILED, old)


def test_of_an_unknown_runtime_the_texts_are_compared() -> None:
    """It is another package's, which is not here."""
    device = Device(name="x", text="x", backend="abacus", options=(("beads", "10"),))
    told = replace(local_environment(EAGER), backend="abacus", options=(("beads", "10"), ("wood", "oak")))

    assert is_device(device, told)
    assert not is_device(device, replace(told, options=(("wood", "oak"),)))


def test_sizes_are_written_in_one_way() -> None:
    """2GiB and 2048MiB are one environment."""
    backend = backend_class("tensorrt")
    found = [dict(backend.options_with(1, (("workspace", text),))) for text in ("2GiB", "2048MiB")]

    assert [options["workspace_mib"] for options in found] == ["2048", "2048"]
    assert "workspace" not in found[0]


def test_what_changes_no_number_is_in_no_key() -> None:
    """How often an operator is built, and whether plans are kept."""
    backend = backend_class("tensorrt")

    assert backend.options_with(1, (("builds", "1"), ("plans", "reuse"))) == backend.options(1)


def test_a_wrong_option_stands_in_nobodys_way() -> None:
    """Other devices' tables can be read; the device itself is listed with the reason."""
    wrong = replace(EAGER, name="wrong", options=(("compile", "jit"),))

    (state,) = device_states([wrong])

    assert not is_device(wrong, local_environment(EAGER))
    assert "is eager or inductor, not 'jit'" in state.problem


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("onnxruntime", {"tf32": "on"}, "onnxruntime has no option 'tf32'; known: builds"),
        ("torch", {"compile": "jit"}, "option compile of the backend torch is eager or inductor, not 'jit'"),
        ("torch", {"builds": "0"}, "builds .* is a whole number from 1 to 20, not '0'"),
    ],
)
def test_what_a_runtime_does_not_have_is_refused(backend: str, options: dict[str, str], words: str) -> None:
    """Before any work, with what there is."""
    device = replace(EAGER, backend=backend, options=tuple(options.items()))

    with pytest.raises(BadInput, match=words):
        local_environment(device)


def test_yaml_reads_on_and_off_as_truth(tmp_path: Path) -> None:
    """They are words here, as numbers are."""
    (tmp_path / "devices.yaml").write_text(
        "lab: {backend: tensorrt, options: {tf32: on, optimization_level: 5, timing_cache: off}}\n"
    )

    device = parse_device("lab", tmp_path)

    assert device.options == (("optimization_level", "5"), ("tf32", "on"), ("timing_cache", "off"))


@pytest.mark.parametrize("options", ["[tf32]", "{tf32: [on]}", "{tf32: null}"])
def test_options_are_names_with_a_value_each(tmp_path: Path, options: str) -> None:
    """Anything else names the device and the file."""
    (tmp_path / "devices.yaml").write_text(f"lab: {{backend: tensorrt, options: {options}}}\n")

    with pytest.raises(BadInput, match=r"devices\.yaml: device 'lab': "):
        parse_device("lab", tmp_path)


def test_options_reach_the_process_that_measures(tmp_path: Path) -> None:
    """It refuses what its runtime does not have, in the same words."""
    settings = WorkerSettings("torch", 1, (), options=(("compile", "jit"),), locks=tmp_path)

    with pytest.raises(BackendUnavailable, match="is eager or inductor, not 'jit'") as caught:
        RemoteRig(settings)

    rig = RemoteRig(replace(settings, options=(("compile", "eager"),)))
    rig.build("relu", relu_graph(1, 8), seed=0)
    rig.close()

    assert caught.value.hint == "correct `options` of the device in devices.yaml"
