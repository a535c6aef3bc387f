"""Imports into a real catalog: what they write, fetch and delete, and how they survive SIGKILL."""

import asyncio
import csv
import io
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog.fetching.connections import FetchLimits
from catalog.imports import stable_hash
from catalog.jobs import SqlJobs
from catalog.opening import Catalog, open_catalog
from catalog.products import SqlProducts
from core.errors import Conflict, FetchFailed, InvalidInput, Unavailable
from core.indexing import Indexer
from core.jobs import Progress
from demo.catalog import demo_products
from jobs.runner.context import JobRun
from jobs.runner.settings import Settings
from milvus.config import IndexedAttribute
from milvus.memory import MemoryStore
from tests.support.children import Child
from tests.support.import_driver import run_import, settings
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.servers import TOKEN, Shop, shop_server

ROOT = Path(__file__).parents[3]


@dataclass
class Bench:
    """A catalog, a folder to import from, and a shop that serves images."""

    folder: Path
    catalog: Catalog
    shop: Shop
    settings: Settings

    @property
    def source(self) -> Path:
        return self.folder / "shop"

    def manifest(self, rows: list[dict[str, Any]], name: str = "shop.jsonl") -> dict[str, Any]:
        path = self.source / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"source": {"kind": "manifest", "path": str(path)}}

    def run(self, args: dict[str, Any], **more: Any) -> dict[str, Any]:
        return run_import(self.catalog, self.settings, {**args, **more})

    def process(self, args: dict[str, Any]) -> Child:
        arguments = [str(self.folder), self.shop.limits.model_dump_json(), json.dumps(args)]
        command = [sys.executable, "-m", "tests.support.import_driver", *arguments]
        return Child("import", command, cwd=ROOT, stdout=subprocess.PIPE)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "shop").mkdir()
    with shop_server() as shop:
        known = settings(tmp_path, shop.limits)
        catalog = open_catalog(known.catalog)
        yield Bench(tmp_path, catalog, shop, known)
        catalog.close()


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def numbers(result: dict[str, Any]) -> dict[str, int]:
    names = ("created", "updated", "unchanged", "failed", "deleted")
    return {name: result[name] for name in names if result[name]}


def test_the_demos_catalog_comes_over_whole_as_csv_and_images(bench: Bench) -> None:
    products = list(demo_products(seed=3, count=40))
    with open(bench.source / "demo.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer: csv.DictWriter[str] | None = None
        for each in products:
            names = [f"{each.product_id}-{view}.jpg" for view in range(len(each.images))]
            for name, data in zip(names, each.images, strict=True):
                (bench.source / name).write_bytes(data)
            row = {"sku": each.product_id, "name": each.title, "text": each.description}
            row |= {"files": "|".join(names), **each.attributes}
            writer = writer or csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
    fields = {
        "product_id": "sku", "title": "name", "description": "text", "images": ["files"],
        "rest_as_attributes": True,
    }  # fmt: skip
    args = {"source": {"kind": "manifest", "path": str(bench.source / "demo.csv"), "fields": fields}}
    first = bench.run(args)
    assert numbers(first) == {"created": 40}
    for each in products:
        stored = bench.catalog.products.get(each.product_id)
        assert (stored.title, stored.description) == (each.title, each.description)
        assert stored.attributes == each.attributes
        assert [bench.catalog.blobs.get(image.sha256) for image in stored.images] == list(each.images)
    second = bench.run(args)
    assert numbers(second) == {"unchanged": 40}
    assert (second["images_read"], second["images_unchanged"]) == (0, first["images_read"])


def test_a_row_whose_attribute_does_not_fit_its_declaration_is_refused_before_anything_is_read(
    bench: Bench,
) -> None:
    declared = (IndexedAttribute(name="size", type="string"),)
    milvus = bench.settings.milvus.model_copy(update={"indexed_attributes": declared})
    bench.settings = replace(bench.settings, milvus=milvus)
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(2)]
    sizes = ["S", ["S", "M"]]
    rows = [{"product_id": f"p{n}", "images": [urls[n]], "attributes": {"size": sizes[n]}} for n in range(2)]
    args = bench.manifest(rows)
    assert bench.run(args, dry_run=True)["failed"] == 1
    assert numbers(bench.run(args)) == {"created": 1, "failed": 1}
    assert [each.product_id for each in bench.catalog.products.page(10)] == ["p0"]
    assert len(bench.shop.requests) == 1


def test_an_unchanged_image_is_never_fetched_again(bench: Bench) -> None:
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(6)]
    args = bench.manifest([{"product_id": f"p{n}", "images": urls[2 * n : 2 * n + 2]} for n in range(3)])
    assert numbers(bench.run(args)) == {"created": 3}
    revisions = [each.revision for each in bench.catalog.products.page(10)]
    assert (bench.shop.count(200), bench.shop.count(304)) == (6, 0)
    assert numbers(bench.run(args)) == {"unchanged": 3}
    assert (bench.shop.count(200), bench.shop.count(304)) == (6, 6)
    assert numbers(bench.run(args, ask_again=False)) == {"unchanged": 3}
    assert len(bench.shop.requests) == 12
    assert [each.revision for each in bench.catalog.products.page(10)] == revisions


def test_a_changed_image_and_a_changed_title_are_taken_over_with_what_stays(bench: Bench) -> None:
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(3)]
    rows = [{"product_id": f"p{n}", "images": [urls[n]], "title": "old"} for n in range(3)]
    bench.run(bench.manifest(rows))
    before = bench.catalog.products.get("p1").images
    bench.shop.add("0.png", png(9), '"2"')
    rows[1]["title"] = "new"
    result = bench.run(bench.manifest(rows))
    assert numbers(result) == {"updated": 2, "unchanged": 1}
    assert result["images_read"] == 1
    assert bench.catalog.blobs.get(bench.catalog.products.get("p0").images[0].sha256) == png(9)
    assert bench.catalog.products.get("p1").title == "new"
    assert bench.catalog.products.get("p1").images == before


def test_an_unchanged_image_is_encoded_once_whatever_else_an_import_changes(bench: Bench) -> None:
    encoder = LocalEncoder()
    indexer = Indexer(encoder, MemoryStore(), bench.catalog.ledger, bench.catalog.blobs)
    rows: list[dict[str, Any]] = [
        {"product_id": f"p{n}", "images": [bench.shop.add(f"{n}.png", png(n))], "attributes": {"price": n}}
        for n in range(4)
    ]

    def encoded_by_importing(rows: list[dict[str, Any]]) -> int:
        before = encoder.encoded
        bench.run(bench.manifest(rows))
        asyncio.run(repair(indexer))
        return encoder.encoded - before

    assert encoded_by_importing(rows) == 4
    assert encoded_by_importing(rows) == 0
    assert encoded_by_importing([each | {"attributes": {"price": 9}, "title": "new"} for each in rows]) == 0
    rows[1]["images"] = [bench.shop.add("first.png", png(8)), *rows[1]["images"]]
    assert encoded_by_importing(rows) == 1
    bench.shop.add("2.png", png(9), '"2"')
    assert encoded_by_importing(rows) == 1
    info = asyncio.run(indexer.describe())
    assert bench.catalog.ledger.counts(info.collection).missing == 0


@pytest.mark.parametrize("at_once", [1, 8])
def test_an_image_that_products_of_a_batch_share_is_fetched_once(bench: Bench, at_once: int) -> None:
    shared, own = bench.shop.add("shared.png", png(1), None), bench.shop.add("own.png", png(2), None)
    missing = bench.shop.url("/missing.png")
    images = [[shared], [shared, own], [shared], [missing], [missing]]
    args = bench.manifest([{"product_id": f"p{n}", "images": urls} for n, urls in enumerate(images)])
    imports = bench.settings.imports.model_copy(update={"products_at_once": at_once})
    bench.settings = replace(bench.settings, imports=imports)
    assert numbers(bench.run(args)) == {"created": 3, "failed": 2}
    assert bench.shop.answers[("/shared.png", 200)] == 1
    assert bench.shop.answers[("/own.png", 200)] == 1
    for number, names in enumerate([[1], [1, 2], [1]]):
        stored = bench.catalog.products.get(f"p{number}").images
        assert [bench.catalog.blobs.get(each.sha256) for each in stored] == [png(name) for name in names]


def test_a_server_without_etags_costs_a_fetch_but_no_write(bench: Bench) -> None:
    args = bench.manifest([{"product_id": "p", "images": [bench.shop.add("a.png", png(1), None)]}])
    bench.run(args)
    revision = bench.catalog.products.get("p").revision
    assert numbers(bench.run(args)) == {"unchanged": 1}
    assert bench.shop.count(200) == 2
    assert bench.catalog.products.get("p").revision == revision


@pytest.mark.parametrize("damage", ["lost", "turned"])
def test_an_image_that_the_store_has_lost_is_fetched_again(bench: Bench, damage: str) -> None:
    url = bench.shop.add("a.png", png(1))
    args = bench.manifest([{"product_id": "p", "images": [url]}])
    bench.run(args)
    (image,) = bench.catalog.products.get("p").images

    def spoil() -> None:
        file = next((bench.folder / "blobs").rglob(image.sha256))
        file.unlink() if damage == "lost" else file.write_bytes(png(1)[:-1] + b"?")

    spoil()
    bench.run(bench.manifest([{"product_id": "other", "images": [url]}], "other.jsonl"))
    assert bench.catalog.products.get("other").images[0].sha256 == image.sha256
    assert bench.catalog.blobs.get(image.sha256) == png(1)
    # The same product brings it back once its repair was asked for.
    spoil()
    bench.catalog.imported_images.forget([image.sha256])
    assert numbers(bench.run(args)) == {"unchanged": 1}
    assert bench.catalog.blobs.get(image.sha256) == png(1)
    assert bench.catalog.products.get("p").images == (image,)


def test_broken_rows_are_reported_and_stop_nothing(bench: Bench) -> None:
    good = bench.shop.add("good.png", png(1))
    bench.shop.add("text.png", b"no image at all")
    (bench.source / "cut.png").write_bytes(png(1)[:45])
    bench.shop.failures["/down.png"] = [(503, {})] * 9
    rows: list[dict[str, Any]] = [
        {"product_id": "a", "images": [good]},
        {"product_id": "b", "images": [good, bench.shop.url("/text.png")]},
        {"product_id": "c", "images": ["cut.png"]},
        {"product_id": "d", "images": ["../../etc/passwd"]},
        {"product_id": "e", "images": [bench.shop.url("/gone.png")]},
        {"product_id": "f", "images": [bench.shop.url("/down.png")]},
        {"product_id": "a", "images": [good], "title": "later"},
        {"title": "nameless"},
        {"product_id": "x/y", "images": [good]},
        {"product_id": "g", "attributes": {"price": {"eur": 1}}},
        {"product_id": "h", "images": ["missing.png"]},
        {"product_id": "i", "images": ["http://192.0.2.1:81/x.png"]},
        {"product_id": "z", "images": [good]},
    ]
    result = bench.run(bench.manifest(rows))
    assert numbers(result) == {"created": 2, "failed": 11}
    assert [product.product_id for product in bench.catalog.products.page(20)] == ["a", "z"]
    errors = {each["row"]: each for each in result["errors"]}
    assert bench.catalog.products.get("a").title == "later"
    assert sorted(errors) == [*range(1, 7), *range(8, 13)]
    assert (errors[2]["product_id"], errors[8]["product_id"]) == ("b", None)
    expected = {
        1: "row 7 has the same", 2: "text.png", 3: "truncated", 4: "outside", 5: "404", 6: "503",
        8: "no product id", 9: "product id", 10: "price", 11: "missing.png", 12: "port",
    }  # fmt: skip
    others = {row: errors[row]["error"] for row, text in expected.items() if text not in errors[row]["error"]}
    assert others == {}
    job = SqlJobs(bench.catalog.engine).page(1)[0]
    assert (job.state, job.progress.total, job.progress.done, job.progress.failed) == (
        "succeeded",
        13,
        13,
        11,
    )
    assert [each.row for each in bench.catalog.imports.errors(job.job_id, 3, after=4)] == [5, 6, 8]


@pytest.mark.parametrize(
    ("batch_products", "dies"), [(1, False), (3, False), (100, False), (3, True), (100, True)]
)
def test_of_rows_with_one_id_the_last_good_one_counts_wherever_batches_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, batch_products: int, dies: bool
) -> None:
    imports = bench.settings.imports.model_copy(update={"batch_products": batch_products})
    bench.settings = replace(bench.settings, imports=imports)
    red, blue = (bench.shop.add(f"{n}.png", png(n)) for n in (1, 2))
    far = [{"product_id": f"p{n}"} for n in range(8)]
    rows: list[dict[str, Any]] = [
        {"product_id": "near", "title": "1", "images": [red]},
        {"product_id": "near", "title": "2", "images": [blue]},
        {"product_id": "far", "title": "3", "images": [red]},
        {"product_id": "worse", "title": "4", "images": [red]},
        {"product_id": "worse", "title": "5", "images": ["missing.png"]},
        {"product_id": "better", "title": "6", "images": ["missing.png"]},
        {"product_id": "better", "title": "7", "images": [blue]},
        {"product_id": "text", "title": "8", "images": [red]},
        {"product_id": "text", "title": "9", "images": [blue]},
        {"product_id": "text", "title": "10"},
        {"product_id": "odd", "title": "11"},
        {"product_id": "odd", "title": "12", "attributes": {"price": {"eur": 1}}},
        *far,
        {"product_id": "far", "title": "21", "images": [blue]},
        {"product_id": "far", "title": "22", "images": [blue]},
    ]
    args = bench.manifest(rows)
    if dies:
        # Between what it has put and the record of it: the batch is put again.
        saves = iter(range(3, 100))
        save = type(bench.catalog.imports).save

        def save_once(self: Any, *state: Any) -> None:
            if next(saves) % 3 == 0:
                raise Unavailable("dead")
            save(self, *state)

        monkeypatch.setattr(type(bench.catalog.imports), "save", save_once)
        for _ in rows:
            try:
                result = bench.run(args)
                break
            except Unavailable:
                continue
    else:
        result = bench.run(args)
        assert numbers(result) == {"created": 14, "failed": 8}
    assert result["rows"] == len(rows)
    stored = {each.product_id: each for each in bench.catalog.products.page(50)}
    assert {name: stored[name].title for name in ("near", "far", "worse", "better", "text", "odd")} == {
        "near": "2", "far": "22", "worse": "4", "better": "7", "text": "10", "odd": "11"
    }  # fmt: skip
    contents = {
        name: [bench.catalog.blobs.get(image.sha256) for image in each.images]
        for name, each in stored.items()
    }
    assert contents == {
        "near": [png(2)], "far": [png(2)], "worse": [png(1)], "better": [png(2)], "text": [png(2)], "odd": [],
        **{each["product_id"]: [] for each in far},
    }  # fmt: skip
    errors = {each["row"]: each["error"] for each in result["errors"]}
    assert sorted(errors) == [1, 3, 5, 6, 8, 9, 12, 21]
    # The broken image of row 6 is not looked for where the row after it is at hand.
    assert {row for row, error in errors.items() if "later row counts" in error} - {6} == {1, 3, 8, 9, 21}
    assert "row 22" in errors[21]


def test_an_image_that_fails_leaves_the_product_as_it_was(bench: Bench) -> None:
    args = bench.manifest([{"product_id": "p", "images": [bench.shop.add("a.png", png(1))]}])
    bench.run(args)
    before = bench.catalog.products.get("p")
    bench.shop.failures["/a.png"] = [(500, {})] * 3
    assert numbers(bench.run(args)) == {"failed": 1}
    assert bench.catalog.products.get("p") == before


def test_products_of_too_many_or_too_large_images_are_refused(bench: Bench) -> None:
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(4)]
    args = bench.manifest([{"product_id": "many", "images": urls}, {"product_id": "few", "images": urls[:2]}])
    bench.settings = replace(
        bench.settings,
        max_images_per_product=3,
        fetch=bench.shop.limits.model_copy(update={"max_total_bytes": len(png(1)) + 9}),
    )
    result = bench.run(args)
    assert numbers(result) == {"failed": 2}
    assert "at most 3" in result["errors"][0]["error"]
    assert "together" in result["errors"][1]["error"]


def test_images_that_are_kept_count_among_the_bytes_of_a_product(bench: Bench) -> None:
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(2)]
    bench.run(bench.manifest([{"product_id": "p", "title": "old", "images": urls}]))
    bench.settings = replace(
        bench.settings, fetch=bench.shop.limits.model_copy(update={"max_total_bytes": len(png(1)) + 9})
    )
    result = bench.run(bench.manifest([{"product_id": "p", "title": "new", "images": urls}]))
    assert numbers(result)["failed"] == 1
    assert "together" in result["errors"][0]["error"]
    assert bench.catalog.products.get("p").title == "old"


def test_what_vanished_is_deleted_when_asked_and_when_it_is_not_too_much(bench: Bench) -> None:
    rows = [{"product_id": f"p{n}"} for n in range(10)]
    bench.catalog.products.put("by-hand", "", "", {}, None)
    bench.run(bench.manifest(rows))
    fewer = bench.manifest(rows[:7])
    assert numbers(bench.run(fewer)) == {"unchanged": 7}
    assert bench.catalog.products.counts()[0] == 11
    refused = bench.run(fewer, delete_missing=True)
    assert numbers(refused) == {"unchanged": 7}
    assert "3 of 10 products (30.0 %)" in refused["deletion_refused"]
    broken = bench.manifest([*rows[:7], {"title": "nameless"}])
    nameless = bench.run(broken, delete_missing=True, max_delete_percent=30)
    assert "no product id" in nameless["deletion_refused"]
    assert bench.catalog.products.counts()[0] == 11
    done = bench.run(bench.manifest(rows[:7]), delete_missing=True, max_delete_percent=30)
    assert numbers(done) == {"unchanged": 7, "deleted": 3}
    left = [product.product_id for product in bench.catalog.products.page(20)]
    assert left == ["by-hand", *(f"p{n}" for n in range(7))]


def test_a_row_that_fails_now_has_not_vanished(bench: Bench) -> None:
    bench.run(bench.manifest([{"product_id": "p", "images": [bench.shop.add("a.png", png(1))]}]))
    args = bench.manifest([{"product_id": "p", "images": ["missing.png"]}])
    result = bench.run(args, delete_missing=True, max_delete_percent=100)
    assert numbers(result) == {"failed": 1}
    assert bench.catalog.products.get("p")


def test_an_import_killed_again_and_again_goes_on_where_it_was(bench: Bench) -> None:
    products, kills, rng = 120, 4, random.Random(7)
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(products)]
    args = bench.manifest([{"product_id": f"p{n:03}", "images": [urls[n]]} for n in range(products)])
    for _ in range(kills):
        target = bench.catalog.products.counts()[0] + rng.randrange(8, 20)
        process = bench.process(args)
        deadline = time.monotonic() + 60
        while bench.catalog.products.counts()[0] < target:
            assert process.poll() is None, "the import was over before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.communicate()
    last = bench.process(args)
    out, _ = last.communicate(timeout=60)
    assert last.returncode == 0
    result = json.loads(out)
    assert result["rows"] == products
    assert result["created"] + result["unchanged"] == products
    stored = bench.catalog.products.page(1000)
    assert [each.product_id for each in stored] == [f"p{n:03}" for n in range(products)]
    assert [bench.catalog.blobs.get(each.images[0].sha256) for each in stored] == [
        png(n) for n in range(products)
    ]
    print(f"{bench.shop.count(200)} fetches for {products} images in {kills + 1} runs")
    # A batch of five is in hand when the process dies.
    assert products <= bench.shop.count(200) <= products + kills * 5
    assert numbers(bench.run(args)) == {"unchanged": products}


def test_a_remote_catalog_comes_over_and_goes_on_at_its_page(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_IMPORT_TOKEN_SHOP", TOKEN)
    bench.shop.items = [
        {"product_id": f"p{n:02}", "title": f"No {n}", "images": [bench.shop.add(f"{n}.png", png(n))]}
        for n in range(30)
    ]
    source = {"kind": "remote", "url": bench.shop.url("/items"), "token_env": "VITRINE_IMPORT_TOKEN_SHOP"}
    args = {"source": {**source, "page_size": 10}}
    bench.shop.failures["/items?page_size=10&page=3"] = [(429, {"Retry-After": "0"}), *[(500, {})] * 2]
    with pytest.raises(FetchFailed, match="500"):
        bench.run(args)
    assert bench.catalog.products.counts() == (20, 20)
    assert numbers(bench.run(args)) == {"created": 30}
    assert bench.shop.count(200, "/items") == 2 + 2 + 1
    assert bench.shop.count(200) - bench.shop.count(200, "/items") == 30
    kept = [
        json.dumps([dict(job.args), job.error, job.result]) for job in SqlJobs(bench.catalog.engine).page(9)
    ]
    assert all(TOKEN not in each for each in kept)
    assert TOKEN.encode() not in (bench.folder / "catalog.sqlite").read_bytes()


def test_two_imports_from_one_source_do_not_mix(bench: Bench) -> None:
    args = bench.manifest([{"product_id": "p"}])
    jobs = SqlJobs(bench.catalog.engine)
    other = jobs.begin(jobs.create("import", {"source": "another way to read it"}).job_id)
    path = str(bench.source / "shop.jsonl")
    jobs.beat(other.job_id, Progress("importing"))
    with JobRun(jobs, jobs.get(other.job_id)) as first:
        first.claim(f"source {path:.200} {stable_hash(['manifest', path])[:12]}")
        with pytest.raises(Conflict, match=other.job_id):
            bench.run(args)


def test_a_caller_of_the_api_reads_open_folders_only(bench: Bench) -> None:
    args = bench.manifest([{"product_id": "p"}])
    with pytest.raises(InvalidInput, match=r"jobs\.imports\.folders"):
        run_import(bench.catalog, bench.settings, args, at_shell=False)
    opened = bench.settings.imports.model_copy(update={"folders": (str(bench.source),)})
    known = replace(bench.settings, imports=opened)
    outside = {"source": {"kind": "folder", "path": f"{bench.source}/../"}}
    with pytest.raises(InvalidInput, match=r"jobs\.imports\.folders"):
        run_import(bench.catalog, known, outside, at_shell=False)
    assert numbers(run_import(bench.catalog, known, args, at_shell=False)) == {"created": 1}


def test_a_folder_of_images_comes_over(bench: Bench) -> None:
    (bench.source / "dress").mkdir()
    for number, name in enumerate(("dress/a.png", "dress/b.png", "hat.png")):
        (bench.source / name).write_bytes(png(number))
    (bench.source / "dress/metadata.json").write_text('{"title": "A dress", "attributes": {"price": 5}}')
    args = {"source": {"kind": "folder", "path": str(bench.source)}}
    assert numbers(bench.run(args)) == {"created": 2}
    dress = bench.catalog.products.get("dress")
    assert (dress.title, dress.attributes, len(dress.images)) == ("A dress", {"price": 5}, 2)
    (bench.source / "hat.png").write_bytes(png(99))
    assert numbers(bench.run(args)) == {"updated": 1, "unchanged": 1}


def test_a_dry_run_shows_what_would_come_and_writes_nothing(bench: Bench) -> None:
    path = bench.source / "shop.csv"
    path.write_text(
        "SKU,Name,Image Src,price\n1,A,https://shop.test/1.jpg,1.10\n"
        f'2,B,"data:image/png;base64,{"A" * 4000}",2\n,C,,3\n4,D,,4\n5,E,,5\n6,{"F" * 50_000},,6\n'
    )
    source = {"kind": "manifest", "path": str(path), "fields": {"rest_as_attributes": True}}
    result = bench.run({"source": source}, dry_run=True)
    assert {name: result[name] for name in ("products", "images", "failed")} == {
        "products": 4, "images": 2, "failed": 2,
    }  # fmt: skip
    shown = result["read_as"]
    assert (shown["product_id"], shown["title"], shown["images"]) == ("SKU", "Name", ["Image Src"])
    assert shown["attributes"] == {"price": "text"}
    assert [each["product_id"] for each in result["examples"]] == ["1", "2", "4"]
    assert result["examples"][0] == {
        "product_id": "1", "title": "A", "description": "", "attributes": {"price": "1.10"},
        "images": ["https://shop.test/1.jpg"],
    }  # fmt: skip
    assert [len(image) for image in result["examples"][1]["images"]] == [200]
    assert [each["row"] for each in result["errors"]] == [3, 6]
    assert "title has 50000 characters" in result["errors"][1]["error"]
    assert bench.catalog.products.counts() == (0, 0)
    # It has left no position behind from which an import would go on.
    assert numbers(bench.run({"source": source}))["failed"] == 4


def test_a_dry_run_fails_the_products_that_the_import_would(bench: Bench) -> None:
    path = bench.source / "shop.jsonl"
    rows = (
        {"id": "a/b"},
        {"id": "2", "title": "x" * 501},
        {"id": "3", "code": 2**53 + 1},
        {"id": "4", "size": {"eu": 38}},
        {"id": "5", "images": [f"{number}.png" for number in range(51)]},
        {"id": "6"},
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    args = {"source": {"kind": "manifest", "path": str(path), "fields": {"rest_as_attributes": True}}}
    shown, done = bench.run(args, dry_run=True), bench.run(args)
    assert (shown["products"], shown["failed"]) == (done["created"], done["failed"]) == (1, 5)
    assert shown["errors"] == done["errors"]


def test_a_folder_import_lists_what_it_left_out(bench: Bench) -> None:
    for name in ("hat.png", "notes.txt"):
        (bench.source / name).write_bytes(png(1))
    result = bench.run({"source": {"kind": "folder", "path": str(bench.source)}})
    assert (result["created"], result["read_as"]["files_left_out"]) == (1, 1)
    assert result["read_as"]["left_out"] == ["notes.txt: .txt is not the ending of an image"]


def test_images_at_private_addresses_are_not_fetched(bench: Bench) -> None:
    bench.settings = replace(bench.settings, fetch=FetchLimits(ports=(bench.shop.port,)))
    result = bench.run(bench.manifest([{"product_id": "p", "images": [bench.shop.add("a.png", png(1))]}]))
    assert numbers(result) == {"failed": 1}
    assert bench.shop.requests == []


def test_an_import_waits_for_a_catalog_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refusals = SqlProducts.write, [Unavailable("the catalog's database does not answer")] * 2

    def write_later(self: SqlProducts, *args: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return write(self, *args)

    monkeypatch.setattr("jobs.imports.run._BACKOFF_S", 0.01)
    monkeypatch.setattr(SqlProducts, "write", write_later)
    result = bench.run(bench.manifest([{"product_id": f"p{n}"} for n in range(7)]))
    assert numbers(result) == {"created": 7}
    assert bench.catalog.products.counts() == (7, 0)
    refusals.extend([Unavailable("the catalog's database does not answer")] * 999)
    bulk = bench.settings.bulk.model_copy(update={"patience_s": 0.05})
    bench.settings = replace(bench.settings, bulk=bulk)
    with pytest.raises(Unavailable):
        bench.run(bench.manifest([{"product_id": "another"}]))


@pytest.mark.parametrize(("max_bytes", "transactions"), [(1, 6), (2**20, 1)])
def test_the_products_of_a_batch_are_written_together_as_far_as_their_bytes_allow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, max_bytes: int, transactions: int
) -> None:
    write, written = SqlProducts.write, list[int]()

    def note(self: SqlProducts, operations: Any, *args: Any) -> Any:
        written.append(len(operations))
        return write(self, operations, *args)

    monkeypatch.setattr(SqlProducts, "write", note)
    monkeypatch.setattr("jobs.imports.batch.MAX_ENCODE_BYTES", max_bytes)
    imports = bench.settings.imports.model_copy(update={"batch_products": 64, "products_at_once": 1})
    bench.settings = replace(bench.settings, imports=imports)
    urls = [bench.shop.add(f"{n}.png", png(n)) for n in range(6)]
    rows = [{"product_id": f"p{n}", "images": [url]} for n, url in enumerate(urls)]
    assert numbers(bench.run(bench.manifest(rows))) == {"created": 6}
    assert len(written) == transactions
    written.clear()
    assert numbers(bench.run(bench.manifest(rows))) == {"unchanged": 6}
    assert written == []


def test_a_cancelled_import_stops_and_goes_on_when_asked_again(bench: Bench) -> None:
    url = bench.shop.add("a.png", png(1))
    args = bench.manifest([{"product_id": f"p{n:03}", "images": [url]} for n in range(300)])
    process = bench.process(args)
    while not bench.catalog.products.counts()[0]:
        assert process.poll() is None
        time.sleep(0.002)
    jobs = SqlJobs(bench.catalog.engine)
    jobs.cancel(jobs.page(1)[0].job_id)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert "canceled" in process.output()
    done = bench.catalog.products.counts()[0]
    assert done < 300
    assert numbers(bench.run(args))["created"] == 300
    assert bench.shop.count(200) == 1
