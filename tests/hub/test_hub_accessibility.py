"""An accessibility checker, axe-core, finds nothing on any page, in no colours and at no width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_a_checker_finds_nothing_on_any_page(
    page_of: Any, sights: Any, make: Any, look: dict[str, Any], barriers: Callable[[Any], Any]
) -> None:
    """By every rule it has, the best practices included; what is folded away is unfolded first, and tables are long."""
    places = [make.environment(cpu_model=f"Example {number}") for number in range(12)]
    rows = [make.measurement(environment=place.id, status="noisy") for place in places]
    assert not sights.store.add([*places, *rows]).refused
    found = {}
    with page_of(sights, **look) as page:
        for name, path in {**sights.paths, "sign-in": "/signin"}.items():
            page.goto(path)
            page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
            found[name] = barriers(page)
        page.goto("/environments")
        assert page.get_by_label("Filter: Environments").count() == 1

    assert found == {name: [] for name in found}
