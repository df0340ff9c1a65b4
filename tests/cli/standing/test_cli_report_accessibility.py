"""An accessibility checker, axe-core, finds nothing on reports and charts, in no colours and at no width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_checker_finds_nothing_on_a_report_and_a_chart(
    stages: Any, cli: Any, browser: Any, look: dict[str, Any], barriers: Callable[[Any], Any]
) -> None:
    """A finished project's report, and the frontier's chart; what is folded away is unfolded first."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    stages.selected()
    assert (cli("report").code, cli("frontier", "--plot", "frontier.html").code) == (0, 0)

    context = browser.new_context(**look)
    context.set_default_timeout(300_000)  # milliseconds: a busy machine is slow, not broken
    page = context.new_page()
    found = {}
    for name in ("report.html", "frontier.html"):
        page.goto(Path(name).absolute().as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        found[name] = (barriers(page), max(0, wide))
    context.close()

    assert found == {name: ([], 0) for name in found}
