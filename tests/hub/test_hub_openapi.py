"""Requests made from the hub's own OpenAPI: whatever is sent, nothing breaks and nothing leaks.

`benchmarks/hub_fuzz.py` does the same with many more requests.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from lanaprof.hub.limits import Limits

WIDE = Limits(
    token_per_s=1e6, token_burst=10**9, address_per_s=1e6, address_burst=10**9, failures_burst=10**6
)
EXAMPLES = 3  # of each operation and mode


def operations(hub: Any) -> list[Any]:
    with hub.client() as client:
        document = client.get("/api/v1/openapi.json").json()
    schema: Any = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=hub.url)
    return [each.ok() for each in schema.get_all_operations()]


def test_every_operation_is_described(hub: Any) -> None:
    """Everything but health asks for a token, and every error has the one form."""
    with hub.client() as client:
        document = client.get("/api/v1/openapi.json").json()

    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (path != "/healthz")
            assert "422" not in operation["responses"]
            problem = operation["responses"]["503"]["content"]["application/json"]["schema"]["$ref"]
            assert problem.endswith("/ProblemBody")


@pytest.mark.parametrize("who", ["", "vision"])
def test_nothing_that_is_sent_breaks_the_hub(start: Any, make: Any, who: str) -> None:
    """No answer is a fault of the hub; without a token nothing is read; with one that reads nothing is written."""
    hub = start(limits=WIDE)
    hub.store.add([*make.base(), make.measurement()])
    before = hub.store.counts()
    headers = {"Authorization": f"Bearer {hub.tokens[who]}"} if who else {}
    seen: list[tuple[str, int]] = []

    for operation in operations(hub):
        for mode in GenerationMode:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            def ask(case: Any) -> None:
                answer = case.call(headers=headers, timeout=300)
                seen.append((f"{case.method} {case.path}", answer.status_code))
                assert answer.status_code < 500
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"type", "message", "hint"}

            with suppress(Unsatisfiable):  # what has no parameters cannot be asked wrongly
                ask()

    reached = {status for path, status in seen if path != "GET /healthz"}
    assert len(seen) >= EXAMPLES
    if who:
        assert 200 in reached
    else:
        assert reached <= {401, 400, 405, 413}
    assert hub.store.counts() == before


def test_the_client_library_is_not_needed(hub: Any) -> None:
    """Whoever speaks HTTP can ask: the answer is plain JSON."""
    answer = httpx.get(
        f"{hub.url}/api/v1/whoami",
        headers={"Authorization": f"Bearer {hub.tokens['vision']}"},
        timeout=300.0,
        trust_env=False,
    )

    assert (answer.json()["scope"], answer.json()["team"]) == ("write", "vision")
