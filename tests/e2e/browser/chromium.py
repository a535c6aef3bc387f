"""Debian's Chromium, steered by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no Chromium is on this machine's path; on Debian: apt-get install chromium"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser without a window until the context ends; there must be one."""
    # Chromium's sandbox does not work for root, as who containers run.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()
