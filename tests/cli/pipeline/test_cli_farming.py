"""A project measured by a farm: in the relay of its space, by a worker that knows neither project nor teacher."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import StoreError
from lanaprof.lut import open_store
from lanaprof.lut.testing import throw_away_server

pytest.importorskip("procrastinate", reason="the extra farm is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("project", ["bench", "spanned"])
def test_a_farm_measures_what_measure_would(
    project: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is enqueued in the project and measured elsewhere is all that ``measure`` wants: nothing is left for it.

    Candidates for several layers are measured in the relay, too: they stand where those layers would.
    """
    bench: Any = request.getfixturevalue(project)
    elsewhere: Path = tmp_path_factory.mktemp("elsewhere")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(throw_away_server()).url()
        except StoreError as error:
            pytest.skip(f"no PostgreSQL server: {error.message}")
        enqueued = bench.run("measure", "--device", "cpu", "--queue", "--database", url)
        with monkeypatch.context() as patched:
            patched.chdir(elsewhere)
            worked = bench.run("worker", "--device", "cpu", "--once", "--database", url)
        measured = bench.run("measure", "--device", "cpu", "--database", url)
        store = stack.enter_context(open_store(url))
        caches = {row.cache for row in store.measurements()}
        space = bench.run("space")
        keys = {span["operator"] for span in space["spans"]} - {None}
        spans = {row.cache for row in store.measurements() if row.operator in keys}

    assert "relay" == enqueued["cache"]
    assert enqueued["enqueued"] == worked["measured"] > 0
    assert (0, True) == (measured["measured"], measured["complete"])
    assert {"relay", "hot"} == caches  # the teacher as a whole is timed beside its pieces
    assert ({"relay"} if space["spans"] else set()) == spans
