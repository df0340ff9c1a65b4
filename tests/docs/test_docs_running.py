"""Every block of the pages is run, page by page, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from docs_blocks import blocks, pages
from docs_pages import page_of, reason_for
from docs_running import read_page

from lanaprof.errors import StoreError
from lanaprof.lut import open_store
from lanaprof.lut.testing import throw_away_server

SERVER = "postgresql://ann@db.lab/lanaprof"
RUN = [name for name in pages() if any(reason_for(block) is None for block in blocks(name))]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_what_a_page_shows_works(name: str, ground: Callable[[str], Path]) -> None:
    """Commands end well and print the lines that the page shows; Python runs; files are what is read."""
    page = page_of(name)
    with ExitStack() as stack:
        elsewhere = {}
        if page.server:
            try:
                elsewhere[SERVER] = url = stack.enter_context(throw_away_server()).url()
            except StoreError as error:
                pytest.skip(f"no PostgreSQL server: {error.message}")
            open_store(url, create=True).close()
        read_page(page, ground(page.ground), elsewhere=elsewhere)
