"""Progress lines: what they say of the time left."""

from __future__ import annotations

import re
import time

import pytest

from lanaprof.cli.base import Meter


def test_what_starting_took_is_not_extrapolated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A minute of loading before the first of a hundred says nothing about the other ninety-nine."""
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    meter = Meter("exporting")
    for now_s[0], done in ((60.0, 1), (80.0, 11)):
        meter(done, 111)
    first, second = capsys.readouterr().err.splitlines()

    assert first == "exporting: 1 of 111"
    assert re.fullmatch(r"exporting: 11 of 111, 3 min 20 s left", second)
