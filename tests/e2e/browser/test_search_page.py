"""The search page in a real browser, on the demo's service."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from demo.service import DemoService
from tests.e2e.browser.conftest import NARROW, WIDE, OpenPage, screenshot
from tests.support.browser import IMAGE, found, open_search, search_text, shown


def test_a_visitor_sees_products_before_asking_for_any(page: Page) -> None:
    open_search(page)
    expect(page.locator(".card")).to_have_count(12)
    expect(page.locator("#status")).to_contain_text("12 products")


def test_search_by_text(page: Page) -> None:
    open_search(page)
    first = search_text(page, "a red dress")[0]
    assert first.startswith("dress-red")
    assert "q=a+red+dress" in page.url


def test_search_by_upload(page: Page) -> None:
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    assert found(page)[0].startswith("dress")
    page.get_by_role("button", name="Remove dress.jpg").click()
    expect(page.locator("#results .score")).to_have_count(0)


def with_file(page: Page, event: str, data: str, name: str, place: str) -> None:
    """Let something happen to the page that carries the image as a file."""
    page.evaluate(
        """async ([event, data, name, place, bytes]) => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
            const happens = new globalThis[event](event === "DragEvent" ? "drop" : "paste",
                { [data]: held, bubbles: true, cancelable: true });
            document.querySelector(place).dispatchEvent(happens);
        }""",
        [event, data, name, place, list(IMAGE.read_bytes())],
    )


def test_an_image_can_be_dropped(page: Page) -> None:
    open_search(page)
    with_file(page, "DragEvent", "dataTransfer", "dropped.jpg", "#drop")
    assert found(page)[0].startswith("dress")
    expect(page.get_by_role("article", name="Uploaded image: dropped.jpg")).to_be_visible()


def test_several_images_are_pasted_and_chosen_and_other_files_refused(page: Page) -> None:
    open_search(page)
    with_file(page, "ClipboardEvent", "clipboardData", "pasted.jpg", "body")
    found(page)
    image = {"mimeType": "image/jpeg", "buffer": IMAGE.read_bytes()}
    other = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}
    page.get_by_label("choose images").set_input_files(
        [{"name": "first.jpg", **image}, other, {"name": "second.jpg", **image}]
    )
    found(page)
    kinds = [part.get_attribute("aria-label") for part in page.locator(".part").all()]
    assert kinds == [f"Uploaded image: {name}.jpg" for name in ("pasted", "first", "second")]
    expect(page.locator("#refused")).to_have_text("Not an image: notes.pdf")


def test_a_box_is_sent_as_shares_of_the_image(page: Page) -> None:
    # Playwright shows no body that holds a file, so the page itself keeps what it sends.
    page.add_init_script(
        "const send = fetch; window.fetch = (url, options) => {"
        " if (options?.body instanceof FormData) window.sent = options.body.get('request');"
        " return send(url, options); }"
    )
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    found(page)
    page.get_by_role("button", name="Draw a box").click()
    image = page.get_by_alt_text("The image to draw on")
    place = image.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] * 0.25, place["y"] + place["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.75, place["y"] + place["height"] * 0.9, steps=4)
    page.mouse.up()
    page.get_by_label("Height").fill("45")
    page.get_by_role("button", name="Use this part").click()
    assert found(page)
    (part,) = json.loads(page.evaluate("window.sent"))["query"]
    sides = [part["box"][side] for side in ("x", "y", "width", "height")]
    assert sides == pytest.approx([0.25, 0.5, 0.5, 0.45], abs=0.02)
    expect(page.get_by_role("button", name="Change the box")).to_be_visible()


def test_more_like_this_and_less_like_that(page: Page) -> None:
    open_search(page)
    results = search_text(page, "a red dress")
    page.locator(f'[data-product="{results[0]}"]').get_by_role("button", name="More like").click()
    expect(page.locator(f'#results [data-product="{results[0]}"]')).to_have_count(0)
    liked = search_text(page, "")
    assert results[0] not in liked
    page.locator(f'[data-product="{liked[0]}"]').get_by_role("button", name="Less like").click()
    expect(page.locator(f'#results [data-product="{liked[0]}"]')).to_have_count(0)
    assert f"product=1**{results[0]}" in page.url
    assert f"product=-0.5**{liked[0]}" in page.url


def test_models_side_by_side_join_what_they_share(page: Page) -> None:
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    found(page)
    page.get_by_label("Model", exact=True).select_option("all")
    expect(page.locator(".column")).to_have_count(4)
    titles = [title.text_content() for title in page.locator(".column h2").all()]
    assert sorted(map(str, titles)) == ["blip2", "dinov2", "ensemble", "openclip"]
    lists = [shown(column) for column in page.locator(".column").all()]
    shared = {each for each in lists[0] if any(each in other for other in lists[1:])}
    assert shared
    for product_id in shared:
        classes = {
            re.sub(r"\s*\blit\b", "", str(card.get_attribute("class")))
            for card in page.locator(f'[data-product="{product_id}"]').all()
        }
        assert len(classes) == 1
        assert "shared-" in classes.pop()
    page.locator(".column .shared").first.get_by_role("button", name="More like").focus()
    assert page.locator(".lit").count() >= 2
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 844})
        screenshot(page, "side-by-side")


def test_a_text_to_a_model_that_reads_only_images_is_explained(
    service: DemoService, open_page: OpenPage
) -> None:
    page = open_page(service.base_url, expected="422")
    open_search(page)
    search_text(page, "a red dress")
    page.get_by_label("Model", exact=True).select_option("dinov2")
    expect(page.get_by_role("alert")).to_contain_text("dinov2")
    page.get_by_label("Model", exact=True).select_option("openclip")
    found(page)
    expect(page.get_by_role("alert")).to_be_empty()


def test_filters_come_from_the_catalog(page: Page) -> None:
    open_search(page)
    search_text(page, "a dress")
    page.locator("#filters summary").click()
    page.get_by_role("group", name="color").get_by_label("blue").check()
    page.wait_for_function("() => document.querySelector('#results[aria-busy]') === null")
    expect(page.locator("#results .card").first).to_contain_text("blue")
    assert all("-blue-" in each for each in found(page))
    page.get_by_label("price to").fill("0")
    page.get_by_label("price to").press("Tab")
    expect(page.locator("#results")).to_contain_text("No product passes the filters")
    page.get_by_role("button", name="Clear filters").click()
    assert len(found(page)) == 12


def test_a_shared_address_brings_the_same_search_elsewhere(
    service: DemoService, page: Page, open_page: OpenPage
) -> None:
    open_search(page)
    search_text(page, "a striped shirt")
    page.get_by_label("Model", exact=True).select_option("openclip")
    fourth = found(page)[3]
    page.locator(f'[data-product="{fourth}"]').get_by_role("button", name="More like").click()
    page.get_by_role("slider", name="Weight of product").fill("0.4")
    mine = found(page)
    other = open_page(service.base_url)
    open_search(other, page.url)
    assert found(other) == mine
    assert other.get_by_label("Text", exact=True).input_value() == "a striped shirt"
    assert other.get_by_label("Model", exact=True).input_value() == "openclip"
    expect(other.locator(".part output")).to_have_text("0.40")


def test_back_leads_to_the_search_before_with_its_upload(page: Page) -> None:
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    by_image = found(page)
    search_text(page, "a blue hat")
    page.wait_for_url("**q=a+blue+hat**")
    page.go_back()
    expect(page.get_by_label("Text", exact=True)).to_have_value("")
    assert found(page) == by_image
    expect(page.locator(".part")).to_have_count(1)


def test_a_search_can_be_saved_and_forgotten(page: Page) -> None:
    open_search(page)
    saved = search_text(page, "a yellow bag")
    page.locator("#saved summary").click()
    page.get_by_label("Name").fill("bags")
    page.get_by_role("button", name="Save", exact=True).click()
    open_search(page)
    page.locator("#saved summary").click()
    page.get_by_role("link", name="bags").click()
    assert found(page) == saved
    page.locator("#saved summary").click()
    page.get_by_role("button", name="Forget bags").click()
    expect(page.get_by_role("link", name="bags")).to_have_count(0)


def test_a_link_that_was_made_with_an_upload_says_that_it_lacks_it(page: Page) -> None:
    open_search(page, "/?q=a+red+dress&uploads=1")
    expect(page.locator("#status")).to_contain_text("1 uploaded image(s)")


def test_details_show_a_product_and_search_by_one_of_its_images(page: Page) -> None:
    open_search(page)
    first = search_text(page, "a red dress")[0]
    page.locator(f'[data-product="{first}"] .open').click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(first)
    screenshot(page, "details")
    dialog.get_by_role("button", name="Search by image 1").click()
    expect(dialog).to_have_count(0)
    expect(page.locator(".part")).to_have_count(1)
    assert "image=1**" in page.url


def test_lists_load_thumbnails_and_never_originals(page: Page) -> None:
    images: list[str] = []
    page.on("request", lambda request: images.append(request.url) if "/v1/images/" in request.url else None)
    open_search(page)
    search_text(page, "a red dress")
    page.wait_for_load_state("networkidle")
    assert images
    assert all("/thumbnail?size=small" in url for url in images)


def test_a_visitor_without_a_mouse_can_search_and_look(page: Page) -> None:
    open_search(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.type("a red dress")
    page.keyboard.press("Enter")
    found(page)
    page.locator(".card .open").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".card .open").first).to_be_focused()


def test_on_a_phone_an_answer_is_brought_into_view(service: DemoService, open_page: OpenPage) -> None:
    page = open_page(service.base_url, NARROW)
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    found(page)
    expect(page.locator("#status")).to_be_in_viewport()
    expect(page.locator("#results .card").first).to_be_in_viewport()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_wider_than_the_screen(service: DemoService, open_page: OpenPage, width: int) -> None:
    page = open_page(service.base_url, width)
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    search_text(page, "in green")
    for panel in ("#models", "#filters", "#saved"):
        page.locator(f"{panel} summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, "search")
