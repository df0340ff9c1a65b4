"""A real browser, and an accessibility checker in it, for all that makes pages; one thread for whoever uses torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Before torch is imported, here and in the processes that tests start. Its threads wait for each other by spinning:
# with a test on every core, or other programs beside them, two of them took more than twice the time of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(
    scope="module"
)  # no longer: while it is open, nothing else can run an event loop in this thread
def browser() -> Iterator[Any]:
    """The Chromium of this machine, without a window."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],
            timeout=300_000,  # milliseconds: a busy machine is slow, not broken
        )
        yield opened
        opened.close()


@pytest.fixture
def barriers() -> Callable[[Any], list[tuple[str, str, str]]]:
    """Return what lists what axe-core finds on a page, by all its rules: (rule, impact, the first element)."""
    checker = pytest.importorskip("axe_playwright_python.sync_playwright")

    def found(page: Any) -> list[tuple[str, str, str]]:
        violations = checker.Axe().run(page).response["violations"]
        return [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in violations]

    return found


@pytest.fixture(params=["light", "dark", "phone"])
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How a page is looked at: options of a browser's context."""
    if request.param == "phone":
        return {"viewport": {"width": 360, "height": 740}}
    return {"color_scheme": request.param}
