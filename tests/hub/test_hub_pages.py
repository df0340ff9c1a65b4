"""The hub's pages: who may see them, that they say what is stored, and that nothing stored becomes markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from lanaprof.hub.exploring import _slider
from lanaprof.hub.limits import Limits

PATHS = ("/", "/devices", "/environments", "/operators", "/coverage", "/compare", "/drift", "/frontier")
EVIL = "<script>alert(1)</script>"


def browser(hub: Any) -> httpx.Client:
    """Return a client that behaves like a browser: cookies, redirects, Origin with forms."""
    headers = {"Origin": hub.url, "Accept": "text/html"}
    return httpx.Client(
        base_url=hub.url, headers=headers, follow_redirects=True, timeout=300.0, trust_env=False
    )


@contextmanager
def signed_in(hub: Any, who: str = "reader") -> Iterator[httpx.Client]:
    with browser(hub) as visitor:
        assert visitor.post("/signin", data={"token": hub.tokens[who]}).status_code == 200
        yield visitor


@pytest.fixture
def filled(hub: Any, make: Any) -> Any:
    """A hub with two teams' measurements."""
    rows = [make.measurement(), make.measurement(team="robots", latency_s=2e-3)]
    assert not hub.store.add([*make.base(), *rows]).refused
    return hub


def test_every_page_shows_what_is_stored(filled: Any, make: Any) -> None:
    """Environments, operators, an operator, a measurement with its samples, two teams side by side."""
    key, row = make.operator().id, make.measurement()
    with signed_in(filled) as visitor:
        pages = {path: visitor.get(path) for path in PATHS}
        environment = visitor.get(f"/environments/{make.environment().id}").text
        operator = visitor.get(f"/operators/{key}").text
        measurement = visitor.get(f"/measurements/{row.id}").text
        compared = visitor.get("/compare", params={"a_team": "vision", "b_team": "robots"}).text

    assert [page.status_code for page in pages.values()] == [200] * len(PATHS)
    assert "robots, vision" in pages["/"].text.replace("<wbr>", "")
    assert key[:12] in pages["/operators"].text
    assert f"/measurements/{row.id}" in environment
    assert ">2 ms<" in operator
    assert measurement.count("<svg") == 2
    assert "2 samples between 1 ms and 1.1 ms" in measurement
    assert ">2.000<" in compared
    assert "<svg" in compared


@pytest.mark.parametrize("path", [*PATHS, f"/operators/{'0' * 32}", f"/measurements/{'0' * 32}"])
def test_pages_ask_for_a_token_first(filled: Any, path: str) -> None:
    """Without a session every page leads to the form."""
    with browser(filled) as visitor:
        answer = visitor.get(path)

    assert str(answer.url).endswith("/signin")
    assert 'type="password"' in answer.text


def test_a_public_hub_shows_its_pages_and_nothing_else(start: Any, make: Any) -> None:
    """The API and the metrics still ask for a token."""
    hub = start(public=True)
    with browser(hub) as visitor:
        pages = [visitor.get(path).status_code for path in PATHS]
        others = [visitor.get(path).status_code for path in ("/api/v1/environments", "/metrics")]

    assert (pages, others) == ([200] * len(PATHS), [401] * 2)


def test_the_cookie_is_no_use_to_scripts_and_other_sites(filled: Any) -> None:
    """HttpOnly, SameSite, not the token itself, and not good for the API; Secure behind a proxy."""
    with browser(filled) as visitor:
        visitor.follow_redirects = False
        said = visitor.post("/signin", data={"token": filled.tokens["admin"]}).headers["set-cookie"]
        api = visitor.get("/api/v1/environments")

    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in said.split(";")}
    assert filled.tokens["admin"] not in said
    assert api.status_code == 401


def test_cookies_go_over_https_alone_behind_a_proxy(start: Any) -> None:
    """The proxy speaks https."""
    hub = start(secure=True)
    with browser(hub) as visitor:
        visitor.follow_redirects = False
        said = visitor.post("/signin", data={"token": hub.tokens["reader"]}).headers["set-cookie"]

    assert "Secure" in said


def test_a_session_ends_with_its_token_and_by_signing_out(filled: Any) -> None:
    """A revoked token's browsers are out at once."""
    identity = next(each.id for each in filled.ledger.tokens() if each.name == "reader")
    with signed_in(filled) as one, signed_in(filled, "admin") as two:
        two.post("/signout")
        filled.ledger.revoke(identity)
        after = [str(each.get("/").url) for each in (one, two)]

    assert after == [f"{filled.url}/signin"] * 2


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}],
    ids=["origin", "fetch", "null"],
)
@pytest.mark.parametrize("path", ["/signin", "/signout"])
def test_forms_of_other_sites_are_refused(filled: Any, path: str, headers: dict[str, str]) -> None:
    """Nobody is signed in as somebody else, or out, by a page elsewhere."""
    with browser(filled) as visitor:
        answer = visitor.post(path, data={"token": filled.tokens["reader"]}, headers=headers)

    assert answer.status_code == 403


def test_tokens_are_not_guessed_by_the_form(start: Any) -> None:
    """The form takes no more wrong ones than the API."""
    hub = start(limits=Limits(failures_per_s=1e-9))  # none flows back, however slow this is
    with browser(hub) as visitor:
        tries = [
            visitor.post("/signin", data={"token": f"wrong{number}"}).status_code for number in range(21)
        ]

    assert tries == [*[401] * 20, 429]


def test_what_is_stored_never_becomes_markup(hub: Any, make: Any) -> None:
    """Names that are scripts are shown as text, on every page."""
    place = make.environment(cpu_model=EVIL, backend=EVIL)
    row = make.measurement(team=EVIL, environment=place.id, message=EVIL, host=EVIL)
    assert not hub.store.add([*make.base(), place, row]).refused
    hub.tokens["evil"] = hub.ledger.new_token(EVIL, scope="read")[1]

    with signed_in(hub, "evil") as visitor:
        texts = [visitor.get(path).text for path in PATHS]
        texts.append(visitor.get(f"/measurements/{row.id}").text)
        texts.append(visitor.get(f"/operators/{row.operator}").text)
        texts.append(visitor.get(f"/environments/{place.id}").text)
        texts.append(visitor.get("/compare", params={"a_team": EVIL, "b_team": f'"{EVIL}'}).text)

    assert all(EVIL not in text for text in texts)
    assert all("&lt;script&gt;" in text for text in texts)


def test_errors_are_pages_for_browsers(filled: Any) -> None:
    """What is not there is said in the hub's own look, with the status it has."""
    with signed_in(filled) as visitor:
        answer = visitor.get(f"/measurements/{'0' * 32}")
        wrong = visitor.get("/measurements/no-id")

    assert (answer.status_code, wrong.status_code) == (404, 400)
    assert "<h1>the hub has no measurement" in answer.text


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

    with signed_in(hub) as visitor:
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
    with signed_in(explored) as visitor:
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


def test_the_explorer_needs_no_script(explored: Any) -> None:
    """Links lead to the neighbouring points; every stored frontier and group of selections can be chosen."""
    with signed_in(explored) as visitor:
        page = visitor.get("/frontier", params={"budget_us": 1}).text
        link = html.unescape(re.findall('<a href="([^"]+)">Next dearer</a>', page)[0])
        following = visitor.get(link).text
        groups = re.findall('<option value="([0-9a-f]+)"', page)
        selections = visitor.get("/frontier", params={"group": groups[1]}).text

    assert "Next cheaper" not in page.partition('id="explorer"')[0]
    assert "Within 2 ms: score -0.2 at 2 ms" in following
    assert len(groups) == 2
    assert "at 2.2 ms" in selections


@pytest.mark.parametrize(
    "query", ["budget_us=nan", "budget_us=-1", "budget_us=inf", "group=%27", "group=ABC"]
)
def test_odd_questions_to_the_explorer_are_refused(explored: Any, query: str) -> None:
    """Nothing but digits of a group's name and a budget that is a number is taken."""
    with signed_in(explored) as visitor:
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
