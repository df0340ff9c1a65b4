"""Campaigns beside others: how operators are dealt, whose journals are whose, who holds the locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.profiler.batch import Target, dealt
from lanaprof.profiler.corelock import CoreLocks
from lanaprof.profiler.journal import JournalHeader, open_journal, unfinished_journals
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import WorkerDied

MINE = JournalHeader(environment="e", protocol="hot/1", space="", operators=("a", "b"))
THEIRS = JournalHeader(environment="e", protocol="hot/1", space="", operators=("c", "d"))


def test_every_share_has_its_part_of_every_layer() -> None:
    """Three layers of four candidates on two workers: two of each layer each, none twice."""
    targets = [Target(f"{layer}{number}", (layer,)) for layer in "xyz" for number in range(4)]

    shares = dealt(targets, 2)

    assert [{"x": 2, "y": 2, "z": 2}] * 2 == [
        {layer: sum(t.layers == (layer,) for t in share) for layer in "xyz"} for share in shares
    ]
    assert set(targets) == {target for share in shares for target in share}


def test_shares_are_of_equal_size() -> None:
    """Layers of a single candidate do not all go to the first worker."""
    shares = dealt([Target(f"{number}", (f"layer{number}",)) for number in range(7)], 3)

    assert [3, 2, 2] == [len(share) for share in shares]


def test_an_unfinished_batch_stays_whole() -> None:
    """What an earlier run left unfinished comes into one share, or its rounds would be lost."""
    shares = dealt([Target(key) for key in "abcdef"], 2, kept_together=[("f", "e", "gone")])

    assert {"e", "f"} <= {target.key for target in shares[0]}
    assert [4, 2] == [len(share) for share in shares]


def test_fewer_targets_than_workers_leave_shares_empty() -> None:
    """Nobody is given what another has."""
    assert [1, 1, 0] == [len(share) for share in dealt([Target("a"), Target("b")], 3)]


def test_journals_of_campaigns_beside_this_one_are_left_alone(tmp_path: Path) -> None:
    """What another worker has in hand is neither ours to resume nor stale."""
    for header in (MINE, THEIRS):
        open_journal(tmp_path, header).__exit__(None, None, None)

    found = unfinished_journals(
        tmp_path, environment="e", protocol="hot/1", space="", wanted=["a"], beside=["c"]
    )
    assert (MINE,) == found
    assert 2 == len(list(tmp_path.glob("*.jsonl")))

    unfinished_journals(tmp_path, environment="e", protocol="hot/1", space="", wanted=["a"], beside=None)
    assert 2 == len(list(tmp_path.glob("*.jsonl")))

    unfinished_journals(tmp_path, environment="e", protocol="hot/1", space="", wanted=["a"])
    assert 1 == len(list(tmp_path.glob("*.jsonl")))


def test_a_journal_appears_with_its_header(tmp_path: Path) -> None:
    """No file that another campaign could take for garbage is ever there, and none is left over."""
    with open_journal(tmp_path, MINE) as journal:
        assert [journal.path] == list(tmp_path.iterdir())
        assert journal.path.read_text().endswith("}\n")


def held(cores: tuple[int, ...], folder: Path) -> bool:
    """Say whether another process would have to wait for a core of these."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom lanaprof.profiler.corelock import hold_cores\n"
        "def waiting(holder): sys.exit(7)\n"
        f"with hold_cores({cores!r}, Path({str(folder)!r}), waiting): pass\n"
    )
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 7


def test_locks_are_held_for_all_workers_and_given_back_singly(tmp_path: Path) -> None:
    """Cores of workers that turn out too many are free for others at once."""
    with CoreLocks([(5, 7), (6,)], lambda _holder: None, tmp_path) as locks:
        assert held((6,), tmp_path)
        locks.keep_only([(5, 7)])
        assert (held((6,), tmp_path), held((7,), tmp_path)) == (False, True)
    assert not held((5, 7), tmp_path)


def test_a_killed_rig_answers_with_its_death() -> None:
    """kill() from another thread ends the wait for an answer."""
    cores = (min(os.sched_getaffinity(0)),)
    rig = RemoteRig(WorkerSettings("scripted", 1, cores, locks=None))
    rig.kill()

    with pytest.raises(WorkerDied):
        rig.forget()
    rig.close()
