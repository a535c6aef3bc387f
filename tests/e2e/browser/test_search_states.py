"""What the search page shows before, without and beside results; encoders in this process, so no Ray."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from core.errors import DeadlineExceeded
from core.types import Matched, NamedFile
from deployments.config import PageConfig
from tests.e2e.browser.conftest import NARROW, WIDE, OpenPage, screenshot
from tests.support.browser import found, open_search, put, search_text
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served


@pytest.fixture
def encoders() -> dict[str, LocalEncoder]:
    return {name: LocalEncoder(name) for name in ("first", "second")}


@pytest.fixture
def base_url(tmp_path: Path, encoders: dict[str, LocalEncoder]) -> Iterator[str]:
    with local_service(tmp_path, encoders) as app, served(app) as url:
        yield url


@pytest.fixture
def page(base_url: str, open_page: OpenPage) -> Page:
    return open_page(base_url)


def test_an_empty_catalog_is_reported(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#results")).to_contain_text("The catalog is empty")


def test_until_an_answer_comes_its_place_is_held(base_url: str, page: Page) -> None:
    put(base_url, "a", "red")
    held: list[Route] = []
    page.route("**/v1/products?*", lambda route: held.append(route))
    page.goto("/")
    expect(page.locator(".ghost")).to_have_count(12)
    expect(page.locator("#status")).to_have_text("Searching …")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    (route,) = held
    route.continue_()
    expect(page.locator(".card:not(.ghost)")).to_have_count(1)
    expect(page.locator(".ghost")).to_have_count(0)
    expect(page.locator("#results[aria-busy]")).to_have_count(0)


def test_an_answer_shows_how_long_its_stages_took(base_url: str, page: Page) -> None:
    put(base_url, "a", "red")
    open_search(page)
    with page.expect_response("**/v1/search") as answered:
        search_text(page, "red")
    page.get_by_text("Stages", exact=True).click()
    shown = dict(
        zip(
            page.locator(".timings th").all_text_contents(),
            page.locator(".timings td.number").all_text_contents(),
            strict=True,
        )
    )
    timings = answered.value.json()["timings_ms"]
    assert timings
    assert shown.keys() == timings.keys()
    assert all(abs(float(shown[stage].removesuffix(" ms")) - ms) < 0.06 for stage, ms in timings.items())


def test_sliders_weigh_the_models_of_the_ensemble(base_url: str, page: Page) -> None:
    for color in ("red", "blue"):
        put(base_url, color, color)
    open_search(page)
    search_text(page, "red")
    page.get_by_text("Weights in the ensemble").click()
    with page.expect_response("**/v1/search") as answered:
        page.get_by_role("slider", name="Weight of second").fill("0")
    assert [each["model"] for each in answered.value.json()["models_used"]] == ["first"]
    page.wait_for_url("**second**")
    with page.expect_response("**/v1/search") as answered:
        page.get_by_role("button", name="As configured").click()
    assert {each["model"] for each in answered.value.json()["models_used"]} == {"first", "second"}
    expect(page.get_by_role("button", name="As configured")).to_have_count(0)


def test_a_model_with_a_matching_head_reranks_texts(
    base_url: str, page: Page, encoders: dict[str, LocalEncoder]
) -> None:
    encoders["first"].has_head = False
    for color in ("red", "blue", "green"):
        put(base_url, color, color)
    open_search(page)
    control = page.get_by_label("Re-ranking", exact=True)
    expect(control).to_have_count(0)
    search_text(page, "red")
    expect(page.locator(".match")).to_have_count(0)
    assert control.locator("option").all_text_contents() == ["off", "by second"]
    control.focus()
    with page.expect_response("**/v1/search") as answered:
        control.select_option("second")
    assert json.loads(str(answered.value.request.post_data))["rerank"] == {"model": "second", "depth": 50}
    expect(page.locator(".models-used")).to_contain_text("re-ranked by second: 3")
    expect(page.locator(".match")).to_have_count(3)
    expect(control).to_be_focused()
    depth = page.get_by_label("of the first", exact=True)
    for typed, sent in (("9999", 500), ("2", 2)):
        with page.expect_response("**/v1/search") as answered:
            depth.fill(typed)
            depth.press("Enter")
        assert json.loads(str(answered.value.request.post_data))["rerank"]["depth"] == sent
    expect(page.locator(".match")).to_have_text([re.compile("match"), re.compile("match"), "not re-ranked"])
    page.wait_for_url("**rerank=2*second**")
    open_search(page, page.url)
    expect(control).to_have_value("second")
    expect(depth).to_have_value("2")
    expect(page.locator(".match")).to_have_count(3)
    screenshot(page, "re-ranked")
    with page.expect_response("**/v1/compare") as answered:
        page.get_by_label("Model", exact=True).select_option("all")
    assert json.loads(str(answered.value.request.post_data))["rerank"] == {"model": "second", "depth": 2}
    expect(page.get_by_text("re-ranked by second: 2")).to_have_count(3)


def test_reranking_is_offered_where_a_model_can_and_a_text_is_looked_for(
    base_url: str, page: Page, encoders: dict[str, LocalEncoder]
) -> None:
    for color in ("red", "blue"):
        put(base_url, color, color)
    open_search(page)
    control = page.get_by_label("Re-ranking", exact=True)
    page.get_by_role("button", name="More like red").click()
    expect(page.locator(".part")).to_have_count(1)
    expect(control).to_have_count(0)
    search_text(page, "blue")
    expect(control).to_have_count(1)
    with page.expect_response("**/v1/search") as answered:
        control.select_option("first")
    assert json.loads(str(answered.value.request.post_data))["rerank"] == {"model": "first", "depth": 50}
    found(page)
    with page.expect_response("**/v1/search") as answered:
        page.get_by_role("slider", name="Weight of the text").fill("-1")
    assert "rerank" not in json.loads(str(answered.value.request.post_data))
    expect(control).to_have_count(0)
    for encoder in encoders.values():
        encoder.has_head = False
    open_search(page)
    search_text(page, "red")
    expect(page.get_by_label("Keyword search")).to_have_count(1)
    expect(control).to_have_count(0)


def test_what_was_not_reranked_in_time_is_said_in_one_line(
    base_url: str, page: Page, encoders: dict[str, LocalEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    for color in ("red", "blue", "green"):
        put(base_url, color, color)
    match = encoders["second"].match

    async def late(text: str, images: Sequence[NamedFile]) -> Matched:
        if any(data is not None for _, data in images):
            raise DeadlineExceeded("second did not answer in time")
        return await match(text, images)

    open_search(page, "/?q=red&rerank=1*second")
    expect(page.locator(".models-used")).to_contain_text("re-ranked by second: 1")
    monkeypatch.setattr(encoders["second"], "match", late)
    open_search(page, "/?q=red&rerank=50*second")
    line = page.locator(".problem")
    expect(line).to_have_text("Not re-ranked: 2 products keep their places: second did not answer in time")
    expect(page.locator(".match", has_text="not re-ranked")).to_have_count(2)


COLORS = (
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "orange",
    "navy",
    "pink",
    "gray",
    "teal",
    "maroon",
)
LONG_TITLES = (
    "Wadenlanges Baumwollsommerkleid mit Dreiviertelärmeln und handgestickten Kornblumen",
    "Платье летнее хлопковое с рукавами три четверти и вышивкой ручной работы",
    "手工刺绣矢车菊图案三分袖纯棉夏季连衣裙中长款收腰显瘦新款女装二零二六年春夏系列",
    "فستان صيفي قطني بأكمام ثلاثة أرباع وتطريز يدوي بزهور القنطريون العنبري",
    "ฤดูร้อนชุดผ้าฝ้ายแขนสามส่วนปักลายดอกไม้ด้วยมือสำหรับผู้หญิง",
    "गर्मियों की सूती पोशाक तीन-चौथाई आस्तीन और हाथ की कढ़ाई के साथ",
)
ABOUT = {"material": "organic cotton and linen", "season": "summer", "in_stock": True, "width_cm": 40}


@pytest.fixture
def four_lists(tmp_path: Path) -> Iterator[str]:
    """Products with long titles, three models and so, side by side, four lists."""
    encoders = {name: LocalEncoder(name, name) for name in ("openclip", "dinov2", "blip2")}
    page = PageConfig(attributes=("in_stock", "material", "none"))
    with local_service(tmp_path, encoders, page=page) as app, served(app) as url:
        for index, color in enumerate(COLORS):
            title = LONG_TITLES[index % len(LONG_TITLES)]
            put(
                url,
                f"product-{index}",
                color,
                title=title,
                attributes={"price": 1249.5, "currency": "EUR", **ABOUT},
            )
        yield url


def test_five_results_of_each_model_are_seen_side_by_side(four_lists: str, open_page: OpenPage) -> None:
    page = open_page(four_lists)
    height = 900
    page.set_viewport_size({"width": WIDE, "height": height})
    open_search(page)
    search_text(page, "dress")
    with page.expect_response("**/v1/compare") as answered:
        page.get_by_label("Model", exact=True).select_option("all")
    expect(page.locator(".column")).to_have_count(4)
    lists = {each["model"]: each["results"] for each in answered.value.json()["lists"]}
    for model, results in lists.items():
        column = page.get_by_role("region", name=model, exact=True)
        whole = [box for each in column.locator(".card").all() if (box := each.bounding_box())]
        assert len(whole) == len(results) == len(COLORS)
        assert sum(box["y"] >= 0 and box["y"] + box["height"] <= height for box in whole) >= 5, model
        assert all(box["x"] + box["width"] <= WIDE for box in whole)
        for hit, card in zip(results, column.locator(".card").all(), strict=True):
            expect(card.locator(".price")).to_have_text("Price €1,249.50")
            expect(card.locator(".about")).to_have_text("in stock: yes · organic cotton and linen")
            ranks = {
                other: 1 + [each["product_id"] for each in found].index(hit["product_id"])
                for other, found in lists.items()
                if other != model
            }
            expect(card.locator(".ranks")).to_have_text(
                "Rank elsewhere: " + " ".join(f"{other} #{rank}" for other, rank in ranks.items())
            )
    screenshot(page, "side-by-side-titles")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": NARROW, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    screenshot(page, "side-by-side-titles")


def test_a_price_has_the_configured_currency_and_attributes_are_the_first(
    tmp_path: Path, open_page: OpenPage
) -> None:
    page = PageConfig(currency="CHF")
    with local_service(tmp_path, {"first": LocalEncoder("first")}, page=page) as app, served(app) as url:
        put(url, "number", "red", attributes={"price": 12.5, **ABOUT})
        put(url, "text", "green", attributes={"price": "12 Taler", "currency": "EUR"})
        put(url, "own", "blue", attributes={"price": "8", "currency": "points"})
        put(url, "none", "black")
        opened = open_page(url)
        open_search(opened)
        prices = {"number": "Price CHF\u00a012.50", "text": "Price 12 Taler", "own": "Price 8 points"}
        for product_id, price in prices.items():
            expect(opened.locator(f'[data-product="{product_id}"] .price')).to_have_text(price)
        abouts = opened.locator(".about").all_text_contents()
        assert abouts == ["organic cotton and linen · summer · in stock: yes"]
        expect(opened.locator('[data-product="none"] .price')).to_have_count(0)


SIZES = {"tiny": (8, 6), "icon": (64, 64), "wide": (900, 300), "tall": (120, 600)}
INSIDE = """card => {
    const edges = element => { const box = element.getBoundingClientRect(); return [box.left, box.right]; };
    const place = edges(card.querySelector(".facts"));
    return [...card.querySelectorAll("img, .name")].every(
        each => edges(each).every((edge, index) => Math.abs(edge - place[index]) < 1));
}"""
"""Whether image and title are as wide as the facts below them."""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_images_of_any_size_have_equal_places_and_are_not_enlarged(
    base_url: str, open_page: OpenPage, width: int
) -> None:
    for title, (name, size) in zip(LONG_TITLES, SIZES.items(), strict=False):
        put(base_url, name, "red", size=size, title=title, attributes={"price": 1})
    page = open_page(base_url, width)
    open_search(page)
    cards = page.locator(".card").all()
    assert len(cards) == len(SIZES)
    for card in cards:
        card.scroll_into_view_if_needed()
        assert card.evaluate(INSIDE), card.get_attribute("data-product")
    images = page.locator(".card img")
    assert set(images.evaluate_all("all => all.map(each => getComputedStyle(each).objectFit)")) == {
        "scale-down"
    }
    boxes = images.evaluate_all("all => all.map(each => [each.clientWidth, each.clientHeight])")
    assert len({tuple(each) for each in boxes}) == 1
    assert boxes[0][0] == boxes[0][1]
    screenshot(page, "sizes")


def test_the_count_of_a_long_value_stays_in_one_line(base_url: str, page: Page) -> None:
    for number in range(10):
        put(base_url, f"{number}", "red", attributes={"category": "Travel & Places of the whole World"})
    open_search(page)
    page.locator("#filters summary").click()
    count = page.locator(".values .hint")
    expect(count).to_have_text("10")
    lines = "each => each.getClientRects()[0].height / parseFloat(getComputedStyle(each).fontSize)"
    assert count.evaluate(lines) < 2


LINES = """text => [...text.firstChild.data.matchAll(/[^\\n]+/g)].map(line => {
    const range = document.createRange();
    range.setStart(text.firstChild, line.index);
    range.setEnd(text.firstChild, line.index + line[0].length);
    const box = range.getBoundingClientRect(), all = text.getBoundingClientRect();
    return [Math.round(box.left - all.left), Math.round(all.right - box.right), Math.round(box.top)];
})"""


def test_each_line_of_a_description_has_its_own_direction(base_url: str, page: Page) -> None:
    text = "A frog.\nضفدع.\nצפרדע."
    put(base_url, "frog", "green", title="ضفدع", description=text, attributes={"name": "צפרדע"})
    open_search(page)
    field = page.get_by_label("Text", exact=True)
    field.fill("ضفدع")
    assert field.evaluate("each => getComputedStyle(each).direction") == "rtl"
    title = page.locator(".card .name")
    assert title.evaluate("each => getComputedStyle(each).direction") == "rtl"
    expect(title).to_have_attribute("title", "ضفدع")
    page.locator(".card .open").click()
    (english, arabic, hebrew) = page.locator(".description").evaluate(LINES)
    assert english[0] == 0 < english[1]
    assert arabic[1] == hebrew[1] == 0 < min(arabic[0], hebrew[0])
    assert english[2] < arabic[2] < hebrew[2]
    screenshot(page, "lines")
