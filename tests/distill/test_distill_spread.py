"""Groups of layers, machines and messages of a cluster; the cluster itself is in tests/flows/spreading."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from lanaprof import __version__
from lanaprof.distill import Progress
from lanaprof.distill.cluster import open_cluster
from lanaprof.distill.groups import Share, Together, balanced_groups
from lanaprof.distill.nodes import answer_probe, check_reachable, find_trouble, slots_of
from lanaprof.errors import BackendUnavailable, BadInput, UserError

NONCE = "5f0c"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / f"cluster-{NONCE}"
    path.write_text(NONCE)
    return path


def test_groups_hold_each_layer_once() -> None:
    """Nothing is lost or doubled, whatever the work of each."""
    work = {f"layer{number}": float(number % 5) for number in range(23)}

    groups = balanced_groups(work, 6)

    assert sorted(work) == sorted(name for group in groups for name in group)
    assert 6 == len(groups)


def test_groups_are_balanced_and_begin_with_the_largest() -> None:
    """9; 4 + 3 + 2 = 9; 5 + 3 = 8: always the largest left to the lightest group, layers in their order."""
    groups = balanced_groups({"a": 3.0, "b": 9.0, "c": 5.0, "d": 4.0, "e": 3.0, "f": 2.0}, 3)

    assert (("b",), ("a", "d", "f"), ("c", "e")) == groups


def test_there_are_no_empty_groups() -> None:
    """Fewer layers than asked for groups: one group each."""
    assert (("b",), ("a",)) == balanced_groups({"a": 1.0, "b": 2.0}, 9)
    assert () == balanced_groups({}, 3)


def test_time_left_is_at_the_pace_of_all_groups() -> None:
    """After 10 s, two groups of work 100 are half done each: one half of 200 took 10 s, the other takes 10 s."""
    clock = Clock()
    together = Together({"a": Share(4, 100.0), "b": Share(2, 100.0)}, stage="distilling", clock=clock)
    together.note("a", Progress("", 0, 10, None))
    together.note("b", Progress("", 0, 10, None))
    clock.now_s = 10.0
    together.note("a", Progress("", 5, 10, 3.0))
    together.note("b", Progress("", 5, 10, 3.0))

    assert Progress("distilling", 3, 6, 10.0) == together.progress()


def test_what_a_checkpoint_saved_is_not_counted_as_pace() -> None:
    """A group that begins at 80 % and gains 10 % in 5 s needs another 5 s."""
    clock = Clock()
    together = Together({"a": Share(10, 1.0)}, stage="distilling", clock=clock)
    together.note("a", Progress("", 80, 100, None))
    clock.now_s = 5.0
    together.note("a", Progress("", 90, 100, None))

    assert together.progress().seconds_left == pytest.approx(5.0)


def test_the_longest_group_sets_the_time_left() -> None:
    """One group alone at the end takes what it says, however fast the others were."""
    clock = Clock()
    together = Together({"a": Share(1, 1.0), "b": Share(1, 1.0)}, stage="distilling", clock=clock)
    together.note("a", Progress("", 0, 10, None))
    together.note("b", Progress("", 0, 10, None))
    clock.now_s = 2.0
    together.finish("a")
    together.note("b", Progress("", 5, 10, 60.0))

    assert 60.0 == together.progress().seconds_left


def test_before_anything_is_done_no_time_is_told() -> None:
    """Nothing is extrapolated from nothing."""
    together = Together({"a": Share(3, 1.0)}, stage="distilling", clock=Clock())

    assert Progress("distilling", 0, 3, None) == together.progress()


def test_a_node_without_gpu_is_one_slot() -> None:
    """Candidates share its cores, and one pass of the teacher."""
    (slot,) = slots_of("4d3c", "trainer", {"CPU": 16.0})

    assert (16, 0, 1) == (slot.threads, slot.gpus, slot.per_node)


def test_each_gpu_is_a_slot() -> None:
    """With its share of cores and memory."""
    slots = slots_of("4d3c", "trainer", {"CPU": 16.0, "GPU": 4.0})

    assert [(4, 1, 4)] * 4 == [(slot.threads, slot.gpus, slot.per_node) for slot in slots]
    assert 4 == len(set(slots))


def test_a_node_that_sees_the_folder_can_be_used(probe: Path) -> None:
    """It reads what was written, writes itself, and leaves nothing behind."""
    assert find_trouble("trainer", answer_probe(str(probe)), probe) is None
    assert [probe] == list(probe.parent.iterdir())


def test_a_node_without_the_folder_is_named(probe: Path) -> None:
    """The message says which node lacks which folder, and why."""
    seen = answer_probe(str(probe.parent / "elsewhere" / probe.name))

    trouble = find_trouble("trainer (10.0.0.7)", seen, probe)

    assert trouble is not None
    assert f"trainer (10.0.0.7) does not see {probe.parent}: No such file" in trouble.message


def test_a_node_with_another_folder_of_this_name_is_refused(probe: Path) -> None:
    """A file of that name that holds something else is somebody else's."""
    seen = {**answer_probe(str(probe)), "read": "77ab"}

    trouble = find_trouble("trainer", seen, probe)

    assert trouble is not None
    assert "another folder lies there" in trouble.message


def test_a_node_that_cannot_write_is_refused(probe: Path) -> None:
    """Weights are written where they are trained."""
    seen = {**answer_probe(str(probe)), "written": "", "error": "Permission denied"}

    trouble = find_trouble("trainer", seen, probe)

    assert trouble is not None
    assert "cannot write" in trouble.message


def test_a_node_with_another_version_is_refused(probe: Path) -> None:
    """Other versions may train other weights under the same key."""
    trouble = find_trouble("trainer", {**answer_probe(str(probe)), "lanaprof": "0.0.9"}, probe)

    assert trouble is not None
    assert f"runs lanaprof 0.0.9, this machine {__version__}" in trouble.message


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.1", "10.0.0.1:", ":6379", "ray://10.0.0.1:10001"])
def test_an_address_is_host_and_port(address: str) -> None:
    """Anything else is refused before anything is tried."""
    with pytest.raises(BadInput, match="is not the address of a Ray cluster"):
        check_reachable(address)


def test_an_address_where_nobody_listens() -> None:
    """The hint says how to start a cluster there."""
    with socket.socket() as taken:  # bound, so that nobody else listens at it, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"nobody answers at 127.0.0.1:{port}") as caught:
            check_reachable(f"127.0.0.1:{port}")

    assert f"ray start --head --port {port}" in caught.value.hint


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)

    with (
        pytest.raises(BackendUnavailable) as caught,
        open_cluster("auto", tmp_path, tell=print),
    ):
        pass

    assert "lanaprof[ray]" in caught.value.hint
