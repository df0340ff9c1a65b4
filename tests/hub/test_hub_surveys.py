"""The pages on what is lacking and what changed: coverage of a space, and drift after an upgrade."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import pytest

from lanaprof.hub.comparing import upgrades_of
from lanaprof.lut import Environment

SPACE = "5" * 32
LATER = "2026-04-01T00:00:00Z"


def cells(page: str, label: str) -> list[list[str]]:
    """Return the texts of a table's rows."""
    part = page.partition(f'aria-label="{label}"')[2].partition("</table>")[0].partition("<tbody>")[2]
    rows = re.findall("<tr.*?</tr>", part)
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<td.*?</td>", row)] for row in rows
    ]


@pytest.fixture
def old(make: Any) -> Environment:
    environment: Environment = make.environment(backend_version="1.9.0")
    return environment


@pytest.fixture
def new(make: Any) -> Environment:
    environment: Environment = make.environment(backend_version="1.10.0")
    return environment


@pytest.fixture
def surveyed(hub: Any, make: Any, old: Environment, new: Environment) -> Any:
    """Three operators of a space, all measured in an old environment; in the new one, one failed and one is missing."""
    relay = {"cache": "relay", "space": SPACE, "protocol": "relay/2"}
    rows = [
        make.measurement(8, environment=old.id, **relay),
        make.measurement(16, environment=old.id, **relay, status="noisy"),
        make.measurement(24, environment=old.id, **relay),
        make.measurement(8, environment=new.id, **relay, latency_s=2e-3, time=LATER),
    ]
    nothing = {"latency_s": None, "ci_low_s": None, "ci_high_s": None, "samples": (), "rounds": ()}
    failed = replace(rows[1], environment=new.id, status="unsupported", time=LATER, **nothing)
    assert not hub.store.add([*make.base(), old, new, *rows, failed]).refused
    return hub


def test_coverage_counts_every_operator_of_a_space(surveyed: Any) -> None:
    """Per environment, the newest first; what another environment measured is missing where it was not."""
    with surveyed.browse() as visitor:
        page = visitor.get("/coverage").text

    rows = [(row[0].split(", ")[-2], *row[1:]) for row in cells(page, "Environments")]
    assert rows == [("onnxruntime 1.10.0", "1", "0", "1", "1"), ("onnxruntime 1.9.0", "2", "1", "0", "0")]
    assert {tuple(row[2:]) for row in cells(page, "Operators")} == {
        ("measured", "measured"), ("unsupported", "noisy"), ("missing", "measured"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "states"),
    [
        ({"state": "failed"}, [("unsupported", "noisy")]),
        ({"state": "missing"}, [("missing", "measured")]),
        ({"state": "noisy", "environment": "new"}, []),
        ({"state": "measured", "environment": "new"}, [("measured", "measured")]),
        ({"text": "nothing has this name"}, []),
    ],
)
def test_coverage_is_filtered_by_state_environment_and_text(
    surveyed: Any, new: Environment, query: dict[str, str], states: list[tuple[str, str]]
) -> None:
    """A state is looked for in one environment or in any."""
    asked = {name: new.id if value == "new" else value for name, value in query.items()}
    with surveyed.browse() as visitor:
        page = visitor.get("/coverage", params=asked).text

    assert [tuple(row[2:]) for row in cells(page, "Operators")] == states


def test_coverage_finds_an_operator_by_its_key(surveyed: Any, make: Any) -> None:
    """The beginning of a key is enough; the filter stands in the field again, as text."""
    key = make.operator(8).id
    with surveyed.browse() as visitor:
        page = visitor.get("/coverage", params={"text": key[:9]}).text
        odd = visitor.get("/coverage", params={"text": '"><script>'}).text

    assert [row[0] for row in cells(page, "Operators")] == [key[:12]]
    assert 'value="&#34;&gt;&lt;script&gt;"' in odd


def test_hot_numbers_have_a_coverage_of_their_own(surveyed: Any, make: Any) -> None:
    """They are of no space, hence another choice of the same page."""
    assert not surveyed.store.add([make.measurement(24)]).refused
    with surveyed.browse() as visitor:
        groups = re.findall('<option value="([0-9a-f]{12})"', visitor.get("/coverage").text)
        page = visitor.get("/coverage", params={"group": groups[1]}).text

    assert [row[2:] for row in cells(page, "Operators")] == [["measured"]]


def test_many_operators_come_in_pages(hub: Any, make: Any) -> None:
    """A hundred at a time; the link to the rest keeps the filter."""
    keys = [make.operator(channels) for channels in range(1, 131)]
    rows = [make.measurement(channels) for channels in range(1, 131)]
    assert not hub.store.add([make.environment(), *keys, *rows]).refused
    with hub.browse() as visitor:
        first = visitor.get("/coverage", params={"state": "measured"}).text
        link = html.unescape(re.findall('<a href="([^"]+)">More operators', first)[0])
        second = visitor.get(link).text

    seen = [row[0] for page in (first, second) for row in cells(page, "Operators")]
    assert seen == sorted(key.id[:12] for key in keys)
    assert "state=measured" in link
    assert "More operators" not in second


@pytest.mark.parametrize(
    "path",
    [
        "/coverage?state=odd",
        "/coverage?group=%22",
        "/drift?a=xyz",
        "/coverage?text=%00",
        "/operators?text=%01",
    ],
)
def test_odd_questions_are_refused(surveyed: Any, path: str) -> None:
    """Only what the page itself asks is taken."""
    with surveyed.browse() as visitor:
        assert visitor.get(path).status_code == 400


def test_drift_lists_an_upgrade_by_itself(surveyed: Any) -> None:
    """Versions are compared as numbers: 1.10 comes after 1.9."""
    with surveyed.browse() as visitor:
        page = visitor.get("/drift").text

    assert cells(page, "Upgrades") == [
        ["runtime version 1.9.0 → 1.10.0", "Example CPU", "onnxruntime", "2.000", "1", "2026-04-01"]
    ]


def test_drift_shows_what_changed_beyond_its_interval(
    surveyed: Any, old: Environment, new: Environment
) -> None:
    """The ratio as a whole, its distribution, and the operators that changed."""
    with surveyed.browse() as visitor:
        page = visitor.get("/drift", params={"a": old.id, "b": new.id}).text
        other = visitor.get("/drift", params={"a": new.id, "b": old.id}).text

    assert "1: 1 slower, 0 faster" in page
    assert page.count("<svg") == 1
    assert [row[3] for row in cells(page, "What changed")] == ["2.000"]
    assert "no upgrade of each other" in other


def test_upgrades_differ_in_versions_alone(make: Any, surveyed: Any) -> None:
    """Other threads, options or hardware make no pair; a version among the options does; each version has its next."""
    plain = [make.environment(backend_version=version) for version in ("1.22.0", "1.9.0", "1.10.0")]
    others = [
        make.environment(threads=2, backend_version="2.0"),
        make.environment(cpu_model="B", backend_version="2.0"),
    ]
    engines = [make.environment(gpu_model="G", options={"tensorrt": text}) for text in ("10.4.0", "10.11.1")]
    modes = [make.environment(gpu_model="H", options={"mode": text}) for text in ("fast", "slow")]
    everything = [*plain, *others, *engines, *modes]
    surveyed.store.add(
        [*make.base(), *everything, *(make.measurement(environment=each.id) for each in everything)]
    )

    found = upgrades_of(surveyed.store.environments(), surveyed.store.holdings())
    assert {each.text for each in found} == {
        "runtime version 1.9.0 → 1.10.0", "runtime version 1.10.0 → 1.22.0", "option tensorrt 10.4.0 → 10.11.1",
    }  # fmt: skip
