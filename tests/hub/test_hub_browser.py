"""The hub's pages in a real browser: keyboard, contrast, narrow screens, and nothing that the policy forbids."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

PHONE = {"width": 360, "height": 740}

# Contrast as WCAG 2 defines it, of every text on the page against what is painted behind it; the least one.
LEAST_CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let least = 21;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim()) continue;
    if (["SCRIPT", "STYLE", "TITLE", "DESC"].includes(node.tagName.toUpperCase())) continue;
    const style = getComputedStyle(node);
    const a = light(parse(node instanceof SVGElement ? style.fill : style.color)), b = light(behind(node));
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}"""

# Where the marks of the chosen point are drawn, on their sheets.
PLACES_OF = """(all) => all.flatMap((each) => {
  const box = each.getBBox(), moved = each.transform.baseVal.numberOfItems ? each.transform.baseVal[0].matrix.f : 0;
  return [box.x, box.y + moved];
})"""


def test_signing_in_and_out_needs_no_mouse(page_of: Any, sights: Any) -> None:
    """Tab leads from the skip link to the field; Enter sends; the button in the navigation ends the session."""
    with page_of(sights) as page:
        page.context.clear_cookies()
        page.goto("/operators")
        assert page.url.endswith("/signin")
        page.keyboard.press("Tab")
        first = page.evaluate("document.activeElement.className")
        page.keyboard.press("Tab")
        second = page.evaluate("document.activeElement.id")
        page.keyboard.type(sights.tokens["vision"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{sights.url}/")
        page.focus("nav button")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{sights.url}/signin")
        page.goto("/")

        assert (first, second) == ("skip", "token")
        assert page.url.endswith("/signin")


def test_nothing_on_the_pages_breaks_their_policy(page_of: Any, sights: Any) -> None:
    """No script or style but the hub's own runs, and none is missed."""
    with page_of(sights) as page:
        for name, path in sights.paths.items():
            page.goto(path)
            heard = [text for text in page.complaints if not (name == "missing" and "404" in text)]
            assert heard == [], name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_the_paper(page_of: Any, sights: Any, scheme: str) -> None:
    """Contrast is at least 4.5 (WCAG 2 AA) on every page, in both colour schemes."""
    with page_of(sights, color_scheme=scheme) as page:
        for name, path in sights.paths.items():
            page.goto(path)
            assert page.evaluate(LEAST_CONTRAST) >= 4.5, name


def test_pages_fit_a_phone(page_of: Any, sights: Any) -> None:
    """Nothing makes the page wider than a narrow screen: tables and charts scroll in their own boxes."""
    with page_of(sights, viewport=PHONE) as page:
        for name, path in sights.paths.items():
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name


def test_tables_are_sorted_by_their_heads(page_of: Any, sights: Any) -> None:
    """By keyboard too; what is sorted is told to screen readers."""
    with page_of(sights) as page:
        page.goto("/operators")
        head = page.locator("th", has_text="parameters")
        read: Callable[[], list[str]] = lambda: page.locator("tbody td:nth-child(3)").all_inner_texts()  # noqa: E731
        head.locator("button").focus()
        page.keyboard.press("Enter")
        up, said = read(), head.get_attribute("aria-sort")
        page.keyboard.press("Enter")

        assert (up, said) == (["64", "256", "576"], "ascending")
        assert read() == up[::-1]


def test_long_tables_are_filtered_while_typing(page_of: Any, sights: Any, make: Any) -> None:
    """Rows that hold all the words stay, and how many is told; short tables and pages of longer ones have no field."""
    places = [make.environment(cpu_model=f"{('Alpha', 'Beta')[number % 2]} {number}") for number in range(20)]
    rows = [make.measurement(environment=place.id) for place in places]
    assert not sights.store.add([*places, *rows]).refused
    with page_of(sights) as page:
        page.goto("/environments")
        page.get_by_label("Filter: Environments").press_sequentially("beta")
        page.keyboard.type(" hot")
        shown = page.locator("tbody tr:visible")

        assert shown.count() == 10
        assert page.inner_text(".filter") == "10 of 22"
        assert [
            page.goto(path) and page.locator(".filter").count() for path in ("/devices", "/operators")
        ] == [0, 0]


def test_two_teams_are_compared_by_keyboard(page_of: Any, sights: Any, make: Any) -> None:
    """The form is filled and sent without a mouse; its answer keeps what was chosen."""
    with page_of(sights) as page:
        page.goto("/compare")
        for side, team in (("a", "vision"), ("b", "robots")):
            page.select_option(f"#{side}_environment", make.environment().id)
            page.focus(f"#{side}_team")
            page.keyboard.type(team)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("dl")

        assert "1.100" in page.inner_text("dl")
        assert [page.input_value(f"#{side}_team") for side in "ab"] == ["vision", "robots"]
        assert page.locator("figure svg").count() == 1


def test_coverage_is_filtered_by_its_links_and_its_form(page_of: Any, sights: Any) -> None:
    """A number leads to the operators it counts; the form asks for others."""
    with page_of(sights) as page:
        page.goto("/coverage")
        page.locator("[aria-label=Environments] a", has_text=re.compile("^1$")).click()
        page.wait_for_url("**/coverage?*state=missing*")
        lacking = page.locator("[aria-label=Operators] tbody tr").count()
        page.select_option("#state", "measured")
        page.select_option("#environment", "")
        page.keyboard.press("Tab")
        page.fill("#text", "16×4×4")
        page.keyboard.press("Enter")
        page.wait_for_url("**/coverage?*state=measured*")

        assert lacking == 1
        assert page.locator("[aria-label=Operators] tbody tr").count() == 1


def test_errors_lead_back_to_the_pages(page_of: Any, sights: Any) -> None:
    """What is not there is said as a heading, in the same look, with the way to everything else."""
    with page_of(sights) as page:
        answer = page.goto(sights.paths["missing"])
        heading = page.inner_text("h1")
        page.get_by_role("link", name="Overview").click()
        page.wait_for_url(f"{sights.url}/")

        assert (answer.status, heading.startswith("the hub has no measurement")) == (404, True)
        assert page.inner_text("h1") == "What is measured here"


def test_every_field_and_chart_has_a_name(page_of: Any, sights: Any) -> None:
    """Screen readers are told what a field asks for and what a chart shows; each page has one heading of its own."""
    with page_of(sights) as page:
        for name, path in sights.paths.items():
            page.goto(path)
            nameless = page.evaluate(
                "[...document.querySelectorAll('select,input,svg[role=img]')]"
                ".filter(each => !(each.labels?.length || each.getAttribute('aria-label'))).length"
            )
            assert (nameless, page.locator("h1").count(), page.locator("main").count()) == (0, 1, 1), name


def test_the_slider_moves_the_mark(page_of: Any, sights: Any) -> None:
    """By keyboard, without asking the hub again; the words beside it say the same."""
    with page_of(sights) as page:
        page.goto("/frontier")
        page.focus("#budget")
        page.keyboard.press("Home")
        read: Callable[[], tuple[str, str]] = lambda: (  # noqa: E731
            page.locator("[aria-label=Points] tr.own td").first.text_content(), page.inner_text("#said")
        )  # fmt: skip
        least = read()
        page.keyboard.press("End")
        most = read()

        assert page.get_attribute("#budget", "aria-valuetext") == "5 ms"
        assert ["score -1 at 1 ms" in least[1], "score -0.2 at 5 ms" in most[1]] == [True, True]
        assert [one[0] in one[1] for one in (least, most)] == [True, True]


def test_the_explorer_says_the_same_with_and_without_its_script(page_of: Any, sights: Any) -> None:
    """Wherever the slider is moved, the script shows what the hub answers for that budget."""
    parts = ("#said", "#about", "[aria-label=Layers] table", "#links")
    with page_of(sights) as moved, page_of(sights, java_script_enabled=False) as asked:
        moved.goto("/frontier")
        moved.focus("#budget")
        for key in ("Home", "PageUp", "End", "PageDown", "ArrowLeft"):
            moved.keyboard.press(key)
            asked.goto(f"/frontier?budget_us={moved.input_value('#budget')}")
            for part in parts:
                assert moved.inner_text(part).split() == asked.inner_text(part).split(), (key, part)
            places = [page.locator(".chosen").evaluate_all(PLACES_OF) for page in (moved, asked)]
            assert places[0] == pytest.approx(places[1], abs=0.2)
