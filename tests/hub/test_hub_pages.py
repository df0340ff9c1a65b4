"""The hub's pages: who may see them, that they say what is stored, and that nothing stored becomes markup."""

from __future__ import annotations

from typing import Any

import pytest

from lanaprof.hub.limits import Limits

PATHS = ("/", "/devices", "/environments", "/operators", "/coverage", "/compare", "/drift", "/frontier")
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def filled(hub: Any, make: Any) -> Any:
    """A hub with two teams' measurements."""
    rows = [make.measurement(), make.measurement(team="robots", latency_s=2e-3)]
    assert not hub.store.add([*make.base(), *rows]).refused
    return hub


def test_every_page_shows_what_is_stored(filled: Any, make: Any) -> None:
    """Environments, operators, an operator, a measurement with its samples, two teams side by side."""
    key, row = make.operator().id, make.measurement()
    with filled.browse() as visitor:
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
    assert ("team vision" in compared, "team robots" in compared) == (True, True)
    assert "Choose two environments" in pages["/compare"].text
    assert "<svg" in compared


def test_teams_of_several_environments_are_told_to_choose_one(sights: Any) -> None:
    """A team that measured in two is compared in neither until one is chosen."""
    with sights.browse() as visitor:
        compared = visitor.get("/compare", params={"a_team": "vision", "b_team": "robots"}).text

    assert "several environments" in compared
    assert "Choose the environment of each side." in compared
    assert "the only one of the team" in compared


@pytest.mark.parametrize("path", [*PATHS, f"/operators/{'0' * 32}", f"/measurements/{'0' * 32}"])
def test_pages_ask_for_a_token_first(filled: Any, path: str) -> None:
    """Without a session every page leads to the form."""
    with filled.anybody() as visitor:
        answer = visitor.get(path)

    assert str(answer.url).endswith("/signin")
    assert 'type="password"' in answer.text


def test_a_public_hub_shows_its_pages_and_nothing_else(start: Any, make: Any) -> None:
    """The API and the metrics still ask for a token."""
    hub = start(public=True)
    with hub.anybody() as visitor:
        pages = [visitor.get(path).status_code for path in PATHS]
        others = [visitor.get(path).status_code for path in ("/api/v1/environments", "/metrics")]

    assert (pages, others) == ([200] * len(PATHS), [401] * 2)


def test_the_cookie_is_no_use_to_scripts_and_other_sites(filled: Any) -> None:
    """HttpOnly, SameSite, not the token itself, and not good for the API; Secure behind a proxy."""
    with filled.anybody() as visitor:
        visitor.follow_redirects = False
        said = visitor.post("/signin", data={"token": filled.tokens["admin"]}).headers["set-cookie"]
        api = visitor.get("/api/v1/environments")

    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {part.strip() for part in said.split(";")}
    assert filled.tokens["admin"] not in said
    assert api.status_code == 401


def test_cookies_go_over_https_alone_behind_a_proxy(start: Any) -> None:
    """The proxy speaks https."""
    hub = start(secure=True)
    with hub.anybody() as visitor:
        visitor.follow_redirects = False
        said = visitor.post("/signin", data={"token": hub.tokens["reader"]}).headers["set-cookie"]

    assert "Secure" in said


def test_a_session_ends_with_its_token_and_by_signing_out(filled: Any) -> None:
    """A revoked token's browsers are out at once."""
    identity = next(each.id for each in filled.ledger.tokens() if each.name == "reader")
    with filled.browse() as one, filled.browse("admin") as two:
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
    with filled.anybody() as visitor:
        answer = visitor.post(path, data={"token": filled.tokens["reader"]}, headers=headers)

    assert answer.status_code == 403


def test_tokens_are_not_guessed_by_the_form(start: Any) -> None:
    """The form takes no more wrong ones than the API."""
    hub = start(limits=Limits(failures_per_s=1e-9))  # none flows back, however slow this is
    with hub.anybody() as visitor:
        tries = [
            visitor.post("/signin", data={"token": f"wrong{number}"}).status_code for number in range(21)
        ]

    assert tries == [*[401] * 20, 429]


def test_what_is_stored_never_becomes_markup(hub: Any, make: Any) -> None:
    """Names that are scripts are shown as text, on every page."""
    place = make.environment(cpu_model=EVIL, backend=EVIL)
    row = make.measurement(team=EVIL, environment=place.id, message=EVIL, host=EVIL)
    newer = make.environment(cpu_model=EVIL, backend=EVIL, backend_version=EVIL)
    again = make.measurement(team=EVIL, environment=newer.id)
    named = {"device": EVIL, "space": EVIL, "team": EVIL, "choices": {EVIL: EVIL, f"{EVIL}..z": EVIL}}
    chosen = [
        make.selection(**named),
        make.selection(**named, status="frontier", score=-1.0, predicted_s=1e-3),
    ]
    scores = [make.score(EVIL, EVIL, -0.5), make.score(f"{EVIL}..z", EVIL, -0.5)]
    assert not hub.store.add([*make.base(), place, newer, row, again, *chosen, *scores]).refused
    hub.tokens["evil"] = hub.ledger.new_token(EVIL, scope="read")[1]

    with hub.browse("evil") as visitor:
        texts = [visitor.get(path).text for path in PATHS]
        texts.append(visitor.get(f"/measurements/{row.id}").text)
        texts.append(visitor.get(f"/operators/{row.operator}").text)
        texts.append(visitor.get(f"/environments/{place.id}").text)
        texts.append(visitor.get("/compare", params={"a_team": EVIL, "b_team": f'"{EVIL}'}).text)
        texts.append(visitor.get("/drift", params={"a": place.id, "b": newer.id}).text)
        texts.append(visitor.get("/coverage", params={"text": EVIL}).text)
        texts.append(visitor.get("/operators", params={"text": EVIL}).text)
        texts.append(visitor.get(f"/environments/{place.id}", params={"team": EVIL}).text)

    assert all(EVIL not in text for text in texts)
    assert all("&lt;script&gt;" in text for text in texts)


def test_errors_are_pages_for_browsers(filled: Any) -> None:
    """What is not there is said in the hub's own look, with the status it has."""
    with filled.browse() as visitor:
        answer = visitor.get(f"/measurements/{'0' * 32}")
        wrong = visitor.get("/measurements/no-id")

    assert (answer.status_code, wrong.status_code) == (404, 400)
    assert "<h1>the hub has no measurement" in answer.text
