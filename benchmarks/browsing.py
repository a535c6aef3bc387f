"""A visitor's wait in a real browser, and the same search without one, in turns."""

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
from playwright.sync_api import Browser, Page, expect

LIMIT = 12
"""Products of the page's first list."""

_DROP = """async (image) => {
  const bytes = Uint8Array.from(atob(image), (each) => each.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
  const frame = () => new Promise(requestAnimationFrame);
  const started = performance.now();
  document.querySelector("#drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }),
  );
  let card = null;
  while ((card = document.querySelector("#results .score")?.closest(".card") ?? null) === null) await frame();
  const listed = performance.now() - started;
  const image = card.querySelector("img");
  while (!image.complete || image.naturalWidth === 0) await frame();
  // What is ready in one frame is on the screen in the next.
  await frame();
  return { listed, shown: performance.now() - started };
}"""
_WEIGHT = """() => {
  const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const own = files.filter((each) => !new URL(each.name).pathname.includes("/v1/"));
  const sum = (size) => own.reduce((total, each) => total + each[size], 0);
  return { files: own.length, plain: sum("decodedBodySize"), sent: sum("encodedBodySize") };
}"""


@dataclass(frozen=True, slots=True)
class Wait:
    """Milliseconds from the drop of an image until the first result is listed, and until its image shows;
    and of a bare call of the API with another image.
    """

    listed_ms: float
    shown_ms: float
    api_ms: float


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes that the browser loads of the page, without images of products."""

    files: int
    plain: int
    sent: int


def waits(browser: Browser, base_url: str, images: Sequence[bytes]) -> Iterator[Wait]:
    """Measure with two images at a time, that no model has seen before, in a browser with an empty cache."""
    with httpx.Client(base_url=base_url, timeout=60) as client:
        for dropped, called in zip(images[::2], images[1::2], strict=True):
            page = _fresh_page(browser, base_url)
            found = page.evaluate(_DROP, base64.b64encode(dropped).decode())
            page.context.close()
            yield Wait(found["listed"], found["shown"], _call(client, called))


def weight(browser: Browser, base_url: str) -> Weight:
    """Weigh the search page."""
    page = _fresh_page(browser, base_url)
    found = page.evaluate(_WEIGHT)
    page.context.close()
    return Weight(**found)


def _fresh_page(browser: Browser, base_url: str) -> Page:
    page = browser.new_context(base_url=base_url, viewport={"width": 1280, "height": 844}).new_page()
    page.goto("/")
    expect(page.get_by_label("Model", exact=True)).to_be_visible()
    page.wait_for_load_state("networkidle")
    return page


def _call(client: httpx.Client, image: bytes) -> float:
    request = {"query": [{"type": "image", "upload": "image"}], "limit": LIMIT}
    started = time.perf_counter()
    answer = client.post("/v1/search", data={"request": json.dumps(request)}, files={"image": image})
    answer.raise_for_status()
    return (time.perf_counter() - started) * 1e3
