"""The client against the HTTP API over a real connection."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.code_blocks import README_URL, ROOT, code_blocks
from tests.support.documented_service import image
from tests.support.vitrine_stand import COLORS, Stand
from vitrine.async_client import AsyncVitrine
from vitrine.batches import NewProduct
from vitrine.client import Vitrine
from vitrine.errors import Conflict, NotFound
from vitrine.errors import InvalidRequest as Invalid
from vitrine.query import Box, ImagePart, ProductImagePart, ProductPart, SearchOptions, TextPart
from vitrine.schemas.embeddings import FailedItem
from vitrine.schemas.search import SearchResponse


def test_a_product_is_put_read_listed_and_deleted(shop: Vitrine, tmp_path: Path) -> None:
    file = tmp_path / "shirt.png"
    file.write_bytes(image("#c02020"))
    sent = shop.put_product("shirt", title="Shirt", attributes={"price": 9}, images=[file, image("#112233")])
    assert (sent.created, len(sent.product.images)) == (True, 2)
    assert {model.state for model in sent.index.values()} == {"indexed"}
    read = shop.product("shirt")
    assert (read.title, read.attributes, read.created_at) == ("Shirt", {"price": 9}, sent.product.created_at)
    assert shop.image(read.images[0].image_id) == file.read_bytes()
    assert len(shop.put_product("shirt", title="Other").product.images) == 2
    assert shop.put_product("shirt", images=[str(file)]).product.images[0].image_id == read.images[0].image_id
    assert shop.put_product("shirt", images=[]).product.images == []
    shop.delete_product("shirt")
    with pytest.raises(NotFound, match="shirt"):
        shop.product("shirt")


def test_all_products_are_gone_through_page_by_page(stocked: Vitrine) -> None:
    assert [product.product_id for product in stocked.products(page_size=2)] == ["blue", "green", "red"]


def test_each_kind_of_part_finds_what_it_shows(stocked: Vitrine, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    image_id = stocked.product("red").images[0].image_id
    whole = Box(0, 0, 1, 1)
    for query in (
        file,
        file.read_bytes(),
        ImagePart(file),
        [ImagePart(file, box=whole), ImagePart(str(file), weight=0.5)],
        [ProductImagePart(image_id)],
        ProductPart("red"),
        [ProductPart("red", 2), ProductPart("blue", -0.1)],
    ):
        page = stocked.search(query, model="first", limit=1, include_query_products=True)
        assert page.results[0].product_id == "red", query
        assert page.models_used[0].model == "first"
    assert stocked.search("red shirt", keyword_weight=1).results[0].product.title == "red shirt"
    assert stocked.search([TextPart("green shirt")], keyword_weight=1).results[0].product_id == "green"


def test_a_second_stage_orders_searches_and_comparisons(stand: Stand, stocked: Vitrine) -> None:
    # The nearest color of CSS to the green shirt's.
    text = "limegreen"
    options: SearchOptions = {"rerank": {"model": "second", "depth": 3}, "limit": 2}
    page = stocked.search(text, **options)
    assert (page.results[0].product_id, page.results[0].rerank_score) == ("green", 1.0)
    assert page.rerank is not None
    assert (page.rerank.model, page.rerank.depth, page.rerank.reranked) == ("second", 3, 3)
    compared = stocked.compare(text, rerank={"model": "second"}, limit=2)
    assert [found.results[0].rerank_score for found in compared.lists] == [1.0] * 3

    async def search() -> SearchResponse:
        async with AsyncVitrine(stand.url) as shop:
            return await shop.search(text, **options)

    assert asyncio.run(search()).results == page.results
    with pytest.raises(Invalid, match="needs text") as caught:
        stocked.search(image(COLORS["red"]), rerank={"model": "second"})
    assert caught.value.param == "rerank"


def test_the_options_of_a_search_arrive(stocked: Vitrine) -> None:
    page = stocked.search(
        image(COLORS["red"]),
        filter={"price": {"gte": 10}},
        weights={"first": 1.0, "second": 2.0},
        fusion="rrf",
        exclude=["blue"],
        limit=5,
        offset=0,
    )
    assert [hit.product_id for hit in page.results] == ["green"]
    weights = {used.model: used.weight for used in page.models_used}
    assert weights == pytest.approx({"first": 1 / 3, "second": 2 / 3})


def test_products_are_compared_and_likened(stocked: Vitrine) -> None:
    compared = stocked.compare(image(COLORS["red"]), models=["first", "ensemble"], limit=2)
    assert [found.model for found in compared.lists] == ["first", "ensemble"]
    assert compared.products["red"].title == "red shirt"
    alike = stocked.similar("red", model="second", limit=1)
    assert len(alike.results) == 1
    assert alike.results[0].product_id != "red"
    assert stocked.similar("red", model="second", score_threshold=1).results == []


def test_images_and_texts_are_embedded_and_captioned(shop: Vitrine) -> None:
    embedded = shop.embed("first", image=image("#c02020"))
    assert len(embedded.embedding) == embedded.dimension
    assert shop.embed("first", text="red").fingerprint == embedded.fingerprint
    assert shop.caption(image("#c02020")).model == "first"
    with pytest.raises(Invalid, match="one of"):
        shop.embed("first", text="red", image=image("#c02020"))


def test_many_inputs_are_embedded_and_one_that_cannot_be_costs_the_others_nothing(shop: Vitrine) -> None:
    alone = shop.embed("first", image=image("#c02020"))
    many = shop.embed_images("first", [image("#c02020"), b"no image"])
    assert (many.fingerprint, [item.index for item in many.data]) == (alone.fingerprint, [0, 1])
    assert many.data[0].embedding == pytest.approx(alone.embedding)
    assert isinstance(many.data[1], FailedItem)
    assert many.data[1].error["type"] == "invalid_image"
    words = shop.embed_texts("first", ["red", "green"])
    assert words.data[0].embedding == pytest.approx(shop.embed("first", text="red").embedding)
    with pytest.raises(Invalid):
        shop.embed_images("first", [b"no image"])


def test_a_mistake_names_the_field(shop: Vitrine) -> None:
    with pytest.raises(Invalid) as caught:
        shop.search([TextPart("a"), ImagePart(b"no image")])
    assert caught.value.status == 422
    assert caught.value.param == "query[1]"
    assert caught.value.request_id
    with pytest.raises(FileNotFoundError):
        shop.search(Path("nowhere.jpg"))
    with pytest.raises(TypeError, match="a part is one of TextPart"):
        shop.search(["red", "dress"])  # type: ignore[list-item]


def test_a_job_is_followed_to_its_end(shop: Vitrine, stand: Stand) -> None:
    job = shop.jobs.submit("build", model="first")
    with pytest.raises(Conflict, match=job.job_id):
        shop.jobs.submit("build", model="first")
    stand.meanwhile({"result": {"remaining": 0}})
    ended = shop.jobs.wait(job.job_id, timeout_s=10, poll_s=0.02)
    assert (ended.state, ended.result, ended.progress.done) == ("succeeded", {"remaining": 0}, 10)
    assert "images" in shop.jobs.logs(job.job_id, lines=1)
    assert [each.job_id for each in shop.jobs.list(limit=5)] == [job.job_id]


def test_a_job_is_canceled(shop: Vitrine) -> None:
    job = shop.jobs.submit("sample", model="first", percent=1.0)
    with pytest.raises(TimeoutError):
        shop.jobs.wait(job.job_id, timeout_s=0.05, poll_s=0.02)
    assert shop.jobs.cancel(job.job_id).state == "canceled"
    assert shop.jobs.wait(job.job_id).state == "canceled"


async def _use(url: str) -> None:
    async with AsyncVitrine(url) as shop:
        await asyncio.gather(
            *(shop.put_product(name, images=[image(color)]) for name, color in COLORS.items())
        )
        assert [each.product_id async for each in shop.products(2)] == ["blue", "green", "red"]
        page = await shop.search(image(COLORS["green"]), model="first", limit=1)
        assert page.results[0].product_id == "green"
        job = await shop.jobs.submit("build", model="first")
        with pytest.raises(TimeoutError, match=f"{job.job_id} has not ended within 0.1 s"):
            await shop.jobs.wait(job.job_id, timeout_s=0.1, poll_s=0.02)
        await shop.jobs.cancel(job.job_id)
        assert (await shop.jobs.wait(job.job_id)).state == "canceled"
        with pytest.raises(NotFound):
            await shop.delete_product("none")


def test_the_same_for_asyncio(stand: Stand) -> None:
    asyncio.run(_use(stand.url))


def test_images_may_stand_behind_urls(shop: Vitrine) -> None:
    with pytest.raises(Invalid) as caught:
        shop.put_product("p", images=[image("#102030"), "http://127.0.0.1/a.png"])
    assert caught.value.param == "images[1]"


def test_many_products_are_put_patched_and_deleted(shop: Vitrine) -> None:
    products = (NewProduct(f"p{number}", images=[image("#102030")]) for number in range(5))
    summary = shop.put_products([*products, NewProduct("broken", images=[b"no image"])], max_operations=2)
    assert (summary.created, summary.done, [each.product_id for each in summary.errors]) == (5, 6, ["broken"])
    assert shop.put_products([NewProduct("p0", title="again")]).updated == 1
    assert shop.patch_products({"p1": {"title": "new"}, "none": {}}.items()).updated == 1
    assert shop.patch_product("p1", {"attributes": {"price": 3}}).product.title == "new"
    gone = shop.delete_products(["p2", "p3", "none"])
    assert (gone.deleted, [each.status for each in gone.errors]) == (2, [404])
    assert [each.product_id for each in shop.products()] == ["p0", "p1", "p4"]


def test_the_program_of_the_page_about_the_api_works_as_written(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (program,) = [block.text for block in code_blocks("docs/api.md") if block.language == "python"]
    names: dict[str, Any] = {}
    exec(program.replace(README_URL, stand.url), names)
    assert capsys.readouterr().out.splitlines()[-1] == "250 products"
    assert (names["summary"].created, names["summary"].errors) == (250, [])
    shop = names["shop"]
    assert len(list(shop.products())) == 100
    assert shop.product("hat-7").attributes == {"price": 15}
    assert shop.product("hat-8").attributes == {"price": 9}
    shop.close()
