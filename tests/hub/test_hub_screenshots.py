"""The pictures in the docs: taken by this test of a hub's pages, as they are.

    LANAPROF_SCREENSHOTS=docs/images LANAPROF_SCREENSHOTS_OF=lab.db pytest tests/hub/test_hub_screenshots.py

takes them of a hub over that database; without these variables, of a small one, and throws them away.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lanaprof.hub.comparing import upgrades_of
from lanaprof.lut import Store

MOST_BYTES = 150_000
DESK = {"width": 1100, "height": 700}
PHONE = {"width": 360, "height": 780}
# name → page, size, colours, a text that is to be seen
PICTURES: dict[str, tuple[str, dict[str, int], str, str]] = {
    "overview": ("overview", DESK, "light", "What is measured here"),
    "measurement": ("measurement", {"width": 1100, "height": 1000}, "light", "Samples"),
    "compare": ("compare", {"width": 1100, "height": 900}, "light", "as a whole B / A"),
    "coverage": ("coverage", DESK, "light", "missing"),
    "drift": ("drift", {"width": 1100, "height": 860}, "light", "as a whole new / old"),
    "explorer": ("frontier", {"width": 1100, "height": 2200}, "light", "All points by layers"),
    "explorer-dark": ("frontier", {"width": 1100, "height": 930}, "dark", "All points by layers"),
    "explorer-phone": ("frontier", PHONE, "light", "The next cheaper point"),
}


def sights_of(store: Store) -> dict[str, str]:
    """Return where the pages are that are worth a picture."""
    holdings = [each for each in store.holdings() if each.newest]
    shared = max(holdings, key=lambda each: (len(each.teams), each.operators))
    teams = (*shared.teams, *shared.teams)[:2]
    rows = store.find_measurements(store.ids("measurement", limit=50)).values()
    timed = max(rows, key=lambda row: (row.cache == shared.cache, len(row.samples), row.id))
    upgrade = upgrades_of(store.environments(), holdings)[0]
    sides = f"a_environment={shared.environment}&a_team={teams[0]}&b_environment={shared.environment}&b_team={teams[1]}"
    return {
        "overview": "/", "coverage": "/coverage", "frontier": "/frontier", "compare": f"/compare?{sides}",
        "measurement": f"/measurements/{timed.id}", "drift": f"/drift?a={upgrade.a.id}&b={upgrade.b.id}",
    }  # fmt: skip


@pytest.fixture
def hub(request: pytest.FixtureRequest, start: Any) -> Any:
    """The hub that pictures are taken of: over the database that is named, else a small one."""
    named = os.environ.get("LANAPROF_SCREENSHOTS_OF")
    return start(named) if named else request.getfixturevalue("sights")


def test_pictures_are_taken_of_the_pages_as_they_are(page_of: Any, hub: Any, tmp_path: Path) -> None:
    """Each shows what it is of, and is a small file."""
    folder = Path(os.environ.get("LANAPROF_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    paths = sights_of(hub.store)
    for scale in (1, 2):
        with page_of(hub, device_scale_factor=scale) as page:
            for name, (place, viewport, colours, text) in PICTURES.items():
                if scale != 1 + (viewport is PHONE):  # phones have fine screens
                    continue
                page.set_viewport_size(viewport)
                page.emulate_media(color_scheme=colours)
                page.goto(paths[place])
                assert text in page.inner_text("main"), name
                picture = Image.open(BytesIO(page.screenshot(animations="disabled")))
                file = folder / f"hub-{name}.png"
                small = picture.convert("RGB").quantize(
                    256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
                )
                small.save(file, optimize=True)

                assert picture.size == (scale * viewport["width"], scale * viewport["height"]), name
                assert file.stat().st_size < MOST_BYTES, name
