"""The frontier explorer as the hub answers it: what a budget chooses, its layers, its neighbours, and its bounds."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from lanaprof.hub.exploring import _slider
from lanaprof.lut import open_store

LATER = "2026-05-01T00:00:00Z"


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "score -0.4 at 5 ms"),
        ({"budget_us": 9000}, "score -0.1 at 8 ms"),
        ({"budget_us": 5000}, "score -0.4 at 5 ms"),
        ({"budget_us": "4999.5"}, "score -0.9 at 3 ms"),
        ({"budget_us": 1}, "none; the fastest takes 3 ms"),
    ],
)
def test_the_frontier_names_the_best_within_a_budget(
    hub: Any, make: Any, budget: dict[str, Any], said: str
) -> None:
    """Of the stored selections that no other one beats; a measured latency comes before the predicted one."""
    rows = [
        make.selection(score=-0.9, predicted_s=0.003),
        make.selection(score=-0.4, predicted_s=0.0051, measured_s=0.005),
        make.selection(score=-0.5, predicted_s=0.006),  # beaten
        make.selection(score=-0.1, predicted_s=0.008),
        make.selection(score=0.0, predicted_s=None),  # says nothing of its latency
        make.selection(score=0.0, predicted_s=0.001, device="gpu"),  # another group, and a smaller one
    ]
    assert not hub.store.add(rows).refused

    with hub.browse() as visitor:
        text = visitor.get("/frontier", params=budget).text

    points = text.partition('aria-label="Points"')[2]
    assert said in text.partition('id="about"')[0]
    assert points.count("<tr") == 1 + 3
    assert make.selection(score=-0.5, predicted_s=0.006).id[:12] not in points


@pytest.fixture
def explored(hub: Any, make: Any) -> Any:
    """A hub with a stored frontier of three points over four layers, and what somebody selected."""
    shared = {"status": "frontier", "environment": "e", "time": "2026-04-01T00:00:00Z"}
    teacher = {f"blocks.{number}": "teacher" for number in (1, 2, 3, 10)}
    spanned = {"blocks.1..blocks.3": "conv", "blocks.10": "skip"}
    slimmed = {**teacher, "blocks.2": "slim", "blocks.10": "skip"}
    points = [
        make.selection(**shared, score=-0.9, predicted_s=1e-3, choices=spanned),
        make.selection(**shared, score=-0.2, predicted_s=2e-3, choices=slimmed),
        make.selection(**shared, score=0.0, predicted_s=4e-3, choices=teacher),
    ]
    chosen = make.selection(score=-0.25, predicted_s=2.1e-3, measured_s=2.2e-3)
    assert not hub.store.add([*points, chosen]).refused
    return hub


def test_the_explorer_shows_layers_and_what_changes(explored: Any) -> None:
    """Of the point a budget chooses, and of its neighbours; layers in natural order, spans with their layers."""
    with explored.browse() as visitor:
        first, middle, last = (
            visitor.get("/frontier", params={"budget_us": budget}).text for budget in (1, 3000, 4000)
        )

    layers = middle.partition('aria-label="Layers"')[2].partition("</table>")[0]
    rows = re.findall("<tr.*?</tr>", layers.partition("<tbody>")[2])
    assert [re.findall("<td>(.*?)</td>", row) for row in rows] == [
        ["blocks.1", "teacher", "kept", "conv over blocks.1..blocks.3", "same"],
        ["blocks.2", "slim", "replaced", "conv over blocks.1..blocks.3", "teacher"],
        ["blocks.3", "teacher", "kept", "conv over blocks.1..blocks.3", "same"],
        ["blocks.10", "skip", "skipped", "same", "teacher"],
    ]
    assert "Of 4 layers: 2 kept, 1 replaced, 1 skipped." in middle
    assert "score 0 at 4 ms" in middle
    assert "it changes 2 layers of 4: blocks.2: slim → teacher; blocks.10: skip → teacher." in middle
    assert "Of 4 layers: 1 skipped, 3 part of a span." in first
    assert "Of 4 layers: 4 kept." in last
    assert "There is no dearer point." in last


def test_a_stored_frontier_is_pushed_and_explored(hub: Any, make: Any, cli: Any) -> None:
    """All of its points, once; pulled, they are still no selection of the one who pulled."""
    points = [
        make.selection(status="frontier", score=-1 / number, predicted_s=number * 1e-3)
        for number in range(1, 9)
    ]
    make.database("lanaprof.db", *points)
    Path("token").write_text(hub.tokens["vision"])
    assert cli("remote", "add", "lab", hub.url, "--token-file", "token").code == 0
    pushed = [cli("push", "--json").json["added"] for _ in range(2)]
    pulled = cli("pull", "--database", "other.db", "--json").json["added"]
    with hub.browse() as visitor:
        page = visitor.get("/frontier").text
    with open_store("other.db") as other:
        chosen, groups = other.selections(), other.selection_groups()

    assert (pushed, pulled) == ([8, 0], 8)
    assert "frontier of 8 points, vision, 2026-03-01 12:00" in page
    assert (chosen, [(each.frontier, each.count) for each in groups]) == ((), [(True, 8)])


@pytest.mark.parametrize(("slimmed", "shown"), [(-0.15, ["0", "-0.15", "0", "-0.05"]), (-0.14, None)])
def test_the_scores_that_a_frontier_was_chosen_by_stand_beside_its_layers(
    explored: Any, make: Any, slimmed: float, shown: list[str] | None
) -> None:
    """Those that add up to the score of every point; others are not shown."""
    scores = [
        make.score("blocks.2", "slim", slimmed), make.score("blocks.10", "skip", -0.05),
        make.score("blocks.1..blocks.3", "conv", -0.85),
    ]  # fmt: skip
    others = [make.score(each.layer, each.operation, -7.0, metric="loss", time=LATER) for each in scores]
    older = make.score("blocks.2", "slim", -0.9, time="2026-02-01T00:00:00Z")
    assert not explored.store.add([*scores, *others, older]).refused
    with explored.browse() as visitor:
        page = visitor.get("/frontier", params={"budget_us": 3000}).text

    layers = page.partition('aria-label="Layers"')[2].partition("</table>")[0].partition("<tbody>")[2]
    found = re.findall('<td class="n">(.*?)</td>', layers)
    assert found == (shown or [])


def test_the_explorer_needs_no_script(explored: Any) -> None:
    """Links lead to the neighbouring points; every stored frontier and group of selections can be chosen."""
    with explored.browse() as visitor:
        page = visitor.get("/frontier", params={"budget_us": 1}).text
        link = html.unescape(re.findall('<a href="([^"]+)">Next dearer</a>', page)[0])
        following = visitor.get(link).text
        groups = re.findall('<option value="([0-9a-f]+)"', page)
        selections = visitor.get("/frontier", params={"group": groups[1]}).text

    assert "Next cheaper" not in page.partition('id="explorer"')[0]
    assert "Within 2 ms: score -0.2 at 2 ms" in following
    assert len(groups) == 2
    assert "at 2.2 ms" in selections


def test_a_page_of_the_explorer_has_bounds(hub: Any, make: Any) -> None:
    """Of very many points or layers some are shown, and it is said."""
    choices = {f"blocks.{number}": "teacher" for number in range(600)}
    points = [
        make.selection(
            status="frontier", score=float(number), predicted_s=1e-3 + number * 1e-6, choices=choices
        )
        for number in range(450)
    ]
    assert not hub.store.add(points).refused
    with hub.browse() as visitor:
        page = visitor.get("/frontier").text

    assert "400 of 450 points are shown. 500 of 600 layers are shown." in page
    assert page.partition('aria-label="Points"')[2].count("<tr") == 1 + 400
    assert page.partition('aria-label="Layers"')[2].partition("</table>")[0].count("<tr") == 1 + 500
    assert "Of 500 layers: 500 kept." in page


@pytest.mark.parametrize(
    "query", ["budget_us=nan", "budget_us=-1", "budget_us=inf", "group=%27", "group=ABC"]
)
def test_odd_questions_to_the_explorer_are_refused(explored: Any, query: str) -> None:
    """Nothing but digits of a group's name and a budget that is a number is taken."""
    with explored.browse() as visitor:
        assert visitor.get(f"/frontier?{query}").status_code == 400


def test_the_first_budget_of_the_slider_reaches_the_fastest_point(hub: Any, make: Any) -> None:
    """And its last the dearest, whatever their latencies: the slider's ends lie on its steps."""
    for fast_s, slow_s in ((1.3e-7, 1.9e-7), (0.003, 0.008), (1.0, 1.0 + 1e-9), (2.5, 812.0)):
        points = [
            make.selection(score=-1.0, predicted_s=fast_s),
            make.selection(score=0.0, predicted_s=slow_s),
        ]
        slider = _slider(points, None)
        steps = (float(slider.most) - float(slider.least)) / float(slider.step)

        assert float(slider.least) <= fast_s * 1e6 <= slow_s * 1e6 <= float(slider.most)
        assert abs(steps - round(steps)) < 1e-6
        assert 1 <= steps < 1000
