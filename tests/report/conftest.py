"""Pages opened in a browser as a reader opens them: from a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.browser import browser

__all__ = ["browser"]
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a file without a network and wait until it is drawn; `problems` are the page's own."""
    contexts = []

    def opened(path: Path, *, width: int = 1100, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: page.problems.append(dialog.message))
        page.on("requestfailed", lambda request: page.problems.append(request.url))
        page.goto(path.absolute().as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=120_000)
        return page

    yield opened
    for context in contexts:
        context.close()
