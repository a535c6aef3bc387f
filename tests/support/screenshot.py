"""`python -m tests.support.screenshot FILE`: docs/search-page.png, the search page on the demo's catalog."""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from core.tcp_ports import free_port
from demo.run import READY_TIMEOUT_S, fill
from demo.service import DemoService, on_interrupts
from tests.support.browser import IMAGE, chromium, found, open_search, search_text

PRODUCTS = 500
SIZE = {"width": 1280, "height": 900}
COLORS = 256


def pose(page: Page) -> None:
    """Search by an image and a text, and let all thumbnails come."""
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    found(page)
    search_text(page, "in green")
    page.wait_for_load_state("networkidle")


def main(file: Path) -> None:
    """Fill a demo in a temporary folder, and write the screenshot as a PNG of few colors."""
    on_interrupts()
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-") as home,
        DemoService(Path(home), free_port()) as service,
    ):
        service.wait_until_ready(READY_TIMEOUT_S)
        fill(service.base_url, PRODUCTS, None)
        with chromium() as browser:
            page = browser.new_page(base_url=service.base_url, viewport=SIZE)
            pose(page)
            taken = Image.open(io.BytesIO(page.screenshot()))
    taken.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
