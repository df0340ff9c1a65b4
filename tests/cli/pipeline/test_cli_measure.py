"""measure beyond one project: ONNX files, the database's gaps, and operators that several projects share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

at = pytest.mark.parametrize
INIT = (
    "init", "--teacher", "tiny:network", "--input", "1x12x12", "--layers", "1.*", "--device", "cpu", "--ops", "ops.txt",
)  # fmt: skip


def relu_file(path: Path, size: int = 16) -> Path:
    """Write a network of one node."""
    image = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, size, size]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", image[:1], image[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def second_project(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *operations: str) -> Path:
    """Make another project of the same teacher with other operations; work in it."""
    folder = tmp_path / "second"
    folder.mkdir()
    for name in ("tiny.py", "devices.yaml"):
        shutil.copy(bench.folder / name, folder)
    (folder / "ops.txt").write_text("\n".join(operations) + "\n")
    monkeypatch.chdir(folder)
    bench.run(*INIT, "--database", bench.folder / "lanaprof.db")
    return folder


@at("bench", ["empty"], indirect=True)
def test_files_are_timed_outside_a_project(bench: Any) -> None:
    """Each ONNX file gets its latency; the same file again is reused."""
    files = [relu_file(bench.folder / "a.onnx"), relu_file(bench.folder / "b.onnx", 32)]
    first = bench.run("measure", *files)
    again = bench.run("measure", *files)
    row = first["files"][0]

    assert [f["file"] for f in first["files"]] == [str(path) for path in files]
    assert row["status"] in ("ok", "noisy")
    assert 0 < row["ci_low_s"] <= row["latency_s"] <= row["ci_high_s"]
    assert (first["measured"], again["measured"], again["reused"]) == (2, 0, 2)
    assert again["files"] == first["files"]


@at("bench", ["fresh"], indirect=True)
def test_files_in_a_project_go_into_its_database(bench: Any) -> None:
    """lanaprof.toml's database and team hold for files, too; the project's operators are left alone."""
    with (bench.folder / "lanaprof.toml").open("a") as file:
        file.write('database = "shared.db"\nteam = "vision"\n')
    document = bench.run("measure", relu_file(bench.folder / "a.onnx"))

    assert (document["measured"], document["exported"]) == (1, 0)
    assert (bench.folder / "shared.db").exists()
    assert not (bench.folder / "lanaprof.db").exists()


@at("bench", ["fresh"], indirect=True)
def test_gaps_are_measured_outside_the_project(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --plan stored is measured elsewhere, without the teacher; the second time nothing is left."""
    bench.run("measure", "--plan")
    monkeypatch.chdir(tmp_path)
    database = bench.folder / "lanaprof.db"
    operators = bench.query("select count(*) from operators")[0][0]
    planned = bench.run("measure", "--plan", "--database", database)
    first = bench.run("measure", "--database", database)
    again = bench.run("measure", "--database", database)

    assert (planned["measured"], planned["complete"]) == (0, False)
    assert (first["measured"], first["cache"]) == (operators, "hot")
    assert (again["measured"], again["reused"]) == (0, operators)


@at("bench", ["measured"], indirect=True)
def test_another_project_reuses_shared_operators(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same teacher, other operations, one database: only the operators nobody timed are timed."""
    folder = second_project(bench, tmp_path, monkeypatch, "conv", "ds", "conv(kernel=1)")
    document = bench.run("measure")

    assert (document["measured"], document["reused"]) == (2, 6)  # conv(kernel=1) in layers of two shapes
    assert bench.run("space")["operators"] == 8
    assert not (folder / "lanaprof.db").exists()


@at("bench", ["measured"], indirect=True)
def test_both_exporters_give_the_same_operators(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--exporter dynamo writes other graphs; their operators are those measured already."""
    bench.query("delete from recipes")  # or the operators would be found without an export
    second_project(bench, tmp_path, monkeypatch, "conv")
    document = bench.run("measure", "--exporter", "dynamo")

    assert (document["exported"], document["measured"], document["reused"]) == (4, 0, 4)


@at("bench", ["measured"], indirect=True)
def test_the_pinned_environment_is_used(bench: Any) -> None:
    """--environment takes the beginning of a key."""
    key = bench.query("select id from environments")[0][0]
    document = bench.run("predict", "--architecture", bench.architecture(), "--environment", key[:8])

    assert document["latency_s"] > 0


@at("bench", ["empty"], indirect=True)
def test_garbage_is_no_onnx_file(bench: Any) -> None:
    """A missing file, a text and a half model are refused by name."""
    whole = relu_file(bench.folder / "a.onnx").read_bytes()
    (bench.folder / "text.onnx").write_text("hello, I am no network")
    (bench.folder / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (bench.folder / "empty.onnx").write_bytes(b"")
    bench.run("measure", "--plan", code=0)  # makes the database that a refusal must not change

    for name in ("missing.onnx", "text.onnx", "half.onnx", "empty.onnx", "."):
        assert name in bench.refuse("measure", name)


@at("bench", ["fresh"], indirect=True)
def test_workers_on_cores_of_their_own_measure_everything_once(bench: Any) -> None:
    """Two workers, or one where they slow each other: the same operators, one record each, and it is said which."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("two workers need two cores; this process may use one")
    (bench.folder / "devices.yaml").write_text(
        f"cpu: {{backend: onnxruntime, threads: 1, cores: {cores[-2:]}}}\n"
    )
    document = bench.run("measure", "--workers", "2")
    again = bench.run("measure")
    rows = bench.query("select operator, cache, space, count(*) from measurements group by 1, 2, 3")

    assert (document["measured"], document["complete"]) == (8, True)
    assert (document["workers"], document["slowdown"] is None) in ((2, False), (1, True))
    assert {row[3] for row in rows} == {1}
    assert (again["measured"], again["reused"], again["workers"]) == (0, 8, 1)
    assert bench.query("select count(*) from environments") == [(1,)]
    assert not list((bench.folder / ".lanaprof" / "journals").glob("*"))


@at("bench", ["fresh"], indirect=True)
def test_more_workers_than_core_sets_are_refused(bench: Any) -> None:
    """The device names one core: two workers do not fit, and the message says how many do."""
    message = bench.refuse("measure", "--workers", "2")

    assert "there are 1 such sets of cores" in message
    assert "--workers 1" in message


@at("bench", ["fresh"], indirect=True)
def test_few_operators_are_left_to_one_worker(bench: Any) -> None:
    """auto takes no second worker for eight operators, however many cores there are."""
    cores = sorted(os.sched_getaffinity(0))
    (bench.folder / "devices.yaml").write_text(f"cpu: {{backend: onnxruntime, threads: 1, cores: {cores}}}\n")
    document = bench.run("measure", "--workers", "auto")

    assert (document["measured"], document["workers"], document["slowdown"]) == (8, 1, None)
