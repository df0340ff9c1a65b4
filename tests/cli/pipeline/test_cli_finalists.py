"""select --finalists: several architectures timed, judged on held-out data, the best of them selected."""

from __future__ import annotations

import json
from typing import Any

import pytest

FEW = ("--finalists", "3", "--tuned", "2", "--tune-steps", "3", "--tune-batch-size", "16")
UNPROVED = ("select", "--no-verify", "--confidence", "0.5", *FEW)


def test_the_best_finalist_is_proved_and_selected(bench: Any) -> None:
    """Inside the measured budget, of least divergence after the short fine-tune, stored as the latest selection."""
    document = bench.run("select", "--budget", "300%", *FEW)  # inside on a machine however busy
    finalists = document["finalists"]
    (winner,) = [row for row in finalists if row["chosen"]]
    tuned = [row for row in finalists if row["tuned_kl"] is not None]
    inside = [row for row in finalists if row["inside"]]

    assert document["status"] == "verified"
    assert document["choices"] == winner["choices"]
    assert document["measured_s"] == winner["measured_s"]
    assert winner["ci_high_s"] <= document["budget_s"]
    assert winner["tuned_kl"] == min(row["tuned_kl"] for row in tuned)
    assert len(tuned) == min(2, len(inside))
    assert sorted(row["kl"] for row in tuned) == sorted(row["kl"] for row in inside)[: len(tuned)]
    assert all(row["kl"] is None and row["measured_s"] for row in finalists if not row["inside"])
    latest = json.loads(
        (bench.folder / ".lanaprof/finalists/selections" / f"{document['id']}.json").read_text()
    )
    assert latest == finalists
    assert bench.run("export", "--selection", "latest", "--out", "a.onnx")["kind"] == "onnx"
    rows = bench.query("select id from selections order by time desc limit 1")
    assert rows == [(document["id"],)]


def test_finalists_without_a_device_to_prove_on(bench: Any) -> None:
    """--no-verify ranks by quality among those predicted inside; nothing is measured, the status says so."""
    document = bench.run(*UNPROVED, "--budget", "50%")
    finalists = document["finalists"]
    names = [list(row["choices"].items()) for row in finalists]
    shared = [len(set(a) & set(b)) for i, a in enumerate(names) for b in names[:i]]

    assert document["status"] == "unverified"
    assert document["measured_s"] is None
    assert [row["measured_s"] for row in finalists] == [None] * 3
    assert all(row["predicted_s"] <= document["budget_s"] for row in finalists)
    assert all(row["kl"] > 0 and row["kl_standard_error"] > 0 for row in finalists)
    assert max(shared) <= 2  # of three layers
    assert document["choices"] == finalists[0]["choices"]


def test_what_is_judged_is_not_judged_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call reads the divergences and fine-tunes of the first, even where the teacher is gone."""
    first = bench.run(*UNPROVED, "--budget", "90%")
    monkeypatch.setattr("lanaprof.flows.project.Project.load_teacher", None)
    again = bench.run(*UNPROVED, "--budget", "90%")

    assert again["finalists"] == first["finalists"]
    assert not list((bench.folder / ".lanaprof/finalists/tuning").iterdir())


def test_another_recipe_tunes_again(bench: Any) -> None:
    """More steps: the networks as assembled are known, the fine-tunes are others."""
    first = bench.run(*UNPROVED, "--budget", "90%")
    more = bench.run(*UNPROVED, "--budget", "90%", "--tune-steps", "6")

    def by_choices(document: Any, key: str) -> dict[str, Any]:
        return {json.dumps(row["choices"]): row[key] for row in document["finalists"]}

    assert by_choices(more, "kl") == by_choices(first, "kl")
    assert by_choices(more, "tuned_kl") != by_choices(first, "tuned_kl")


def test_no_short_fine_tune(bench: Any) -> None:
    """--tuned 0: the network of least divergence as assembled is selected."""
    document = bench.run(*UNPROVED, "--budget", "90%", "--tuned", "0")
    finalists = document["finalists"]

    assert [row["tuned_kl"] for row in finalists] == [None] * 3
    assert [row["kl"] for row in finalists] == sorted(row["kl"] for row in finalists)
    assert [row["chosen"] for row in finalists] == [True, False, False]


def test_a_list_and_a_pick_at_once_are_refused(bench: Any) -> None:
    """--top and --finalists answer different questions."""
    assert "leave one of the two out" in bench.refuse("select", "--budget", "90%", *FEW, "--top", "2")


def test_finalists_need_data(bench: Any) -> None:
    """Without data there is nothing to judge by; this is said before anything is timed."""
    path = bench.folder / "lanaprof.toml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("data")))

    assert "names no data" in bench.refuse("select", "--budget", "90%", *FEW)


def test_finalists_are_shown(bench: Any, cli: Any) -> None:
    """People get a table, the best first, with standard errors."""
    ran = cli(*UNPROVED, "--budget", "90%")

    assert ran.code == 0
    assert "KL fine-tuned" in ran.out
    assert "selected" in ran.out
    assert ran.out.count("±") >= 5  # three as assembled, two fine-tuned


def test_run_holds_finalists(bench: Any) -> None:
    """run --finalists hands them on to select, and selects anew where an earlier run held none."""
    words = (
        "run", "--budget", "300%", "--steps", "4", "--batch-size", "16", "--images", "32", "--finetune-steps", "2",
    )  # fmt: skip
    bench.run(*words)
    document = bench.run(*words, "--finalists", "1")

    assert len(document["steps"]["select"]["finalists"]) >= 1
    assert document["steps"]["select"]["id"] == document["selection"]
