"""Pages in a real browser, whose console must stay silent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from demo.service import DemoService
from tests.support.browser import CHROMIUM, MISSING, chromium

SCREENSHOTS = Path(__file__).parents[3] / "out" / "screenshots"
WIDE, NARROW = 1280, 390
PATIENCE_MS = 60_000
"""Three models and a browser share what cores there are; what is quick waits for nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ended with its module: while Playwright is open, its event loop is in the way of other tests'."""
    if CHROMIUM is None:
        pytest.skip(MISSING)
    # Expectations have a patience of their own, of 5 s, whatever the page's is.
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as opened:
        yield opened


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages in a context of their own; none may write an error to the console."""
    problems: list[str] = []
    contexts = []

    def opened(base_url: str, width: int = WIDE, expected: str = "") -> Page:
        context = browser.new_context(
            base_url=base_url, viewport={"width": width, "height": 844}, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)

        def listen(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not (expected and expected in message.text):
                problems.append(f"{message.type}: {message.text}")

        page.on("console", listen)
        page.on("pageerror", lambda error: problems.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


# The service comes first: its fixture runs an event loop, which it could not while Playwright is open.
@pytest.fixture
def page(service: DemoService, open_page: OpenPage) -> Page:
    return open_page(service.base_url)


def screenshot(page: Page, name: str) -> None:
    """Keep how the page looks, for people."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    assert page.viewport_size is not None
    page.screenshot(path=SCREENSHOTS / f"{name}-{page.viewport_size['width']}.png", full_page=True)
