"""The background repair: each model in loops of its own, and captions where they are asked for."""

import asyncio
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image
from sqlalchemy import event

from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig
from catalog.opening import Catalog, open_catalog
from core.errors import Internal, Unavailable
from core.indexing import CaptionReport, Indexer, RepairReport
from core.types import Encoded, EncoderInput, NewImage, row_key
from deployments.config import IngestCaptions, RepairArgs
from deployments.replicas import repair
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from models.config import CaptionConfig
from tests.support.image_files import image as colored
from tests.support.local_encoder import LocalEncoder
from tests.support.waiting import until


class HeldEncoder(LocalEncoder):
    """Encodes nothing until it is let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.called, self.let_go = asyncio.Event(), asyncio.Event()

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        self.called.set()
        await self.let_go.wait()
        return await super().encode(inputs)


def image(shade: int) -> NewImage:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(buffer, "PNG")
    return NewImage(buffer.getvalue(), "image/png", 4, 3)


@pytest.fixture
def args(tmp_path: Path) -> RepairArgs:
    return RepairArgs(
        catalog=CatalogConfig(database_url=f"sqlite:///{tmp_path}/c.sqlite", blobs_url=f"{tmp_path}/blobs"),
        milvus=MilvusConfig(uri="http://127.0.0.1:1"),
        interval_s=0.01,
        grace_s=0,
    )


@pytest.fixture
def catalog(args: RepairArgs) -> Iterator[Catalog]:
    opened = open_catalog(args.catalog)
    yield opened
    opened.close()


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> dict[str, LocalEncoder]:
    made = {"quick": LocalEncoder("quick"), "slow": HeldEncoder("slow")}
    monkeypatch.setattr(repair, "HandleEncoder", lambda name, *_, **__: made[name])
    return made


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    monkeypatch.setattr(repair, "MilvusStore", lambda config: store)
    return store


@asynccontextmanager
async def repairing(args: RepairArgs, *models: str) -> AsyncIterator[repair.RepairReplica]:
    replica = repair.RepairReplica(args)
    await replica.reconfigure({"models": list(models)})
    yield replica
    await replica.stop()


async def until_indexed(catalog: Catalog, encoder: LocalEncoder, number: int) -> None:
    collection = (await encoder.describe()).collection
    await until(lambda: catalog.ledger.counts(collection).indexed == number)


def test_the_backlog_of_one_model_holds_up_no_other(
    args: RepairArgs, catalog: Catalog, encoders: dict[str, LocalEncoder], store: MemoryStore
) -> None:
    images = [image(shade) for shade in range(50)]
    for number in range(40):
        catalog.products.put(f"p{number}", "", "", {}, images)
    slow = encoders["slow"]
    assert isinstance(slow, HeldEncoder)

    async def scene() -> None:
        async with repairing(args, "quick", "slow") as replica:
            await until_indexed(catalog, encoders["quick"], 2000)
            await slow.called.wait()
            # The slow one is in the midst of its first batch, and stays there.
            catalog.products.put("late", "", "", {}, [image(99)])
            await until_indexed(catalog, encoders["quick"], 2001)
            assert catalog.ledger.counts((await slow.describe()).collection).indexed == 0
            await replica.check_health()

    asyncio.run(scene())


def test_an_encoder_that_fails_on_everything_is_logged_as_an_error(
    args: RepairArgs,
    catalog: Catalog,
    encoders: dict[str, LocalEncoder],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalog.products.put("p", "", "", {}, [image(1)])

    async def fail(_inputs: Sequence[EncoderInput]) -> Encoded:
        raise Internal("a bug")

    def errors() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

    monkeypatch.setattr(encoders["quick"], "encode", fail)

    async def scene() -> None:
        async with repairing(args, "quick"):
            await until(lambda: "repair of quick: a bug" in errors())

    asyncio.run(scene())
    assert catalog.ledger.counts(asyncio.run(encoders["quick"].describe()).collection).missing == 1


def test_what_is_obsolete_goes_while_images_are_missing(
    args: RepairArgs, catalog: Catalog, encoders: dict[str, LocalEncoder], store: MemoryStore
) -> None:
    slow = encoders["slow"]
    assert isinstance(slow, HeldEncoder)

    async def scene() -> None:
        collection = (await slow.describe()).collection
        (gone,) = catalog.products.put("gone", "", "", {}, [image(1)])[0].images
        slow.let_go.set()
        async with repairing(args, "slow"):
            await until_indexed(catalog, slow, 1)
            slow.let_go.clear()
            slow.called.clear()
            catalog.products.put("waits", "", "", {}, [image(2)])
            await slow.called.wait()
            catalog.products.delete("gone")
            await until(lambda: not store.fetch(collection, [row_key(gone.image_id, gone.revision)]))

    asyncio.run(scene())


def test_with_nothing_to_do_it_only_asks_the_ledger(
    args: RepairArgs,
    catalog: Catalog,
    encoders: dict[str, LocalEncoder],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog.products.put("one", "", "", {}, [image(1)])
    never = {"full_pass_interval_s": 1e6, "sample_interval_s": 1e6, "file_interval_s": 1e6}
    asked: Counter[str] = Counter()

    def counted(of: object, name: str, what: str) -> None:
        call = getattr(of, name)

        def count(*arguments: object, **options: object) -> object:
            asked[what] += 1
            return call(*arguments, **options)

        monkeypatch.setattr(of, name, count)

    async def scene() -> None:
        replica = repair.RepairReplica(args.model_copy(update=never))
        event.listen(replica._catalog.engine, "begin", lambda _: asked.update(["transactions"]))
        counted(replica._catalog.ledger, "unsettled", "polls")
        for name in ("has_collection", "marks", "alias_target", "upsert", "delete", "fetch"):
            counted(store, name, "Milvus")
        counted(encoders["quick"], "describe", "encoder")
        await replica.reconfigure({"models": ["quick"]})
        await until_indexed(catalog, encoders["quick"], 1)
        async with asyncio.timeout(60):
            while asked["polls"] < 5 or asked != {"polls": asked["polls"], "transactions": asked["polls"]}:
                if asked["polls"] >= 5:
                    asked.clear()
                await asyncio.sleep(0.01)
        await replica.stop()

    asyncio.run(scene())


def test_a_full_pass_finds_that_a_collection_was_lost(
    args: RepairArgs, catalog: Catalog, encoders: dict[str, LocalEncoder], store: MemoryStore
) -> None:
    catalog.products.put("one", "", "", {}, [image(1)])
    (stored,) = catalog.products.get("one").images

    async def scene() -> None:
        collection = (await encoders["quick"].describe()).collection
        async with repairing(args.model_copy(update={"full_pass_interval_s": 0.05}), "quick"):
            await until_indexed(catalog, encoders["quick"], 1)
            store.drop_collection(collection)
            key = row_key(stored.image_id, stored.revision)
            await until(lambda: store.has_collection(collection) and store.fetch(collection, [key]))

    asyncio.run(scene())


def test_a_full_pass_that_took_long_and_found_nothing_is_not_soon_repeated(
    args: RepairArgs, encoders: dict[str, LocalEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, found = 1000.0, RepairReport(removed=1)
    monkeypatch.setattr(repair, "time", SimpleNamespace(monotonic=lambda: now))

    async def remove(_batch_size: int, _grace_s: float, full: bool) -> RepairReport:
        nonlocal now
        now += 10 if full else 1
        return found

    indexer = cast(Indexer, SimpleNamespace(serving=None))
    passes = repair._Passes(indexer, remove, args)

    def is_due(full: bool) -> bool:
        passes.request(set(), set(), full)
        return passes._is_due.is_set()

    async def made() -> None:
        await passes.wait()
        await passes.make()

    assert is_due(full=False)
    asyncio.run(made())
    assert is_due(full=True), "the last one found something"
    found = RepairReport()
    asyncio.run(made())
    now += 199
    assert not is_due(full=True)
    now += 1
    assert is_due(full=True)


def test_versions_that_do_not_serve_are_left_to_full_passes(
    args: RepairArgs,
    catalog: Catalog,
    encoders: dict[str, LocalEncoder],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repair, "_SHARE", 0)
    indexer = Indexer(encoders["quick"], store, catalog.ledger, catalog.blobs)
    passes = repair._Passes(indexer, indexer.index_missing, args)

    def is_due(of_model: set[str], unsettled: set[str], full: bool = False) -> bool:
        passes.request(of_model, unsettled, full)
        return passes._is_due.is_set()

    async def made() -> None:
        await passes.wait()
        await passes.make()

    assert is_due(set(), set()), "the first one is full"
    asyncio.run(made())
    assert indexer.serving is not None
    serving = indexer.serving.collection
    versions = {serving, "quick_former"}
    assert not is_due(versions, {"slow_other"})
    assert is_due(versions, {serving})
    asyncio.run(made())
    assert not is_due(versions, {"quick_former"}), "its images are missing as long as it does not serve"
    assert is_due(versions | {"quick_new"}, {"quick_new"}), "which may serve by now"
    asyncio.run(made())
    assert not is_due(versions | {"quick_new"}, {"quick_new"})
    assert is_due(versions, set(), full=True)


def test_loops_begin_and_end_with_the_models_that_are_named(
    args: RepairArgs, catalog: Catalog, encoders: dict[str, LocalEncoder], store: MemoryStore
) -> None:
    catalog.products.put("one", "", "", {}, [image(1)])

    async def scene() -> None:
        async with repairing(args, "slow") as replica:
            before = replica._running()
            await replica.reconfigure({"models": ["slow", "quick"]})
            await until_indexed(catalog, encoders["quick"], 1)
            assert set(before) < set(replica._running())
            ended = set(replica._running())
            await replica.reconfigure({"models": ["slow"]})
            ended -= set(replica._running())
            async with asyncio.timeout(60):
                await asyncio.wait(ended)
            assert all(loop.cancelled() for loop in ended)
            assert set(replica._running()) == set(before)
            await replica.check_health()
            await replica.reconfigure({"models": ["slow", "quick"]})
            catalog.products.put("two", "", "", {}, [image(2)])
            await until_indexed(catalog, encoders["quick"], 2)

    asyncio.run(scene())


def test_files_that_no_product_names_go_by_themselves_beside_one_that_cannot(
    args: RepairArgs,
    catalog: Catalog,
    encoders: dict[str, LocalEncoder],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It has the oldest mark, and one page is one file.
    (stuck,) = catalog.products.put("stuck", "", "", {}, [image(3)])[0].images
    catalog.products.delete("stuck")
    remove = FsspecBlobs.remove

    def all_but_one(blobs: FsspecBlobs, name: str) -> None:
        if name == stuck.sha256:
            raise Unavailable("it may not be deleted")
        remove(blobs, name)

    monkeypatch.setattr(FsspecBlobs, "remove", all_but_one)
    monkeypatch.setattr(repair, "_FILES_AT_ONCE", 1)
    (gone,) = catalog.products.put("gone", "", "", {}, [image(1)])[0].images
    (stays,) = catalog.products.put("stays", "", "", {}, [image(2)])[0].images
    catalog.products.delete("gone")
    orphan = catalog.blobs.put(b"its product never came")
    soon = args.model_copy(update={"file_grace_s": 0.01, "file_interval_s": 0.001})

    async def scene() -> None:
        async with repairing(soon, "quick") as replica:
            await until(
                lambda: catalog.blobs.size(gone.sha256) is None and catalog.blobs.size(orphan) is None
            )
            await replica.check_health()

    asyncio.run(scene())
    assert catalog.blobs.size(stays.sha256) is not None
    assert catalog.blobs.size(stuck.sha256) is not None


def test_a_loop_that_has_ended_fails_the_health_check(
    args: RepairArgs, catalog: Catalog, encoders: dict[str, LocalEncoder], store: MemoryStore
) -> None:
    async def scene() -> None:
        async with repairing(args, "quick") as replica:
            await replica.check_health()
            for loop in replica._loops_of_model["quick"][:1]:
                loop.cancel()
                await asyncio.wait([loop])
            with pytest.raises(RuntimeError, match="has ended"):
                await replica.check_health()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("asked", "able", "captions"),
    [(True, True, {"a red thing", "a blue thing"}), (True, False, {None}), (False, True, {None})],
)
def test_images_are_captioned_when_asked_for_and_a_model_that_cannot_stops_nothing(
    asked: bool,
    able: bool,
    captions: set[str | None],
    args: RepairArgs,
    catalog: Catalog,
    encoders: dict[str, LocalEncoder],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoders["writer"] = writer = LocalEncoder("writer", captions=CaptionConfig() if able else None)
    collection = asyncio.run(writer.describe()).collection
    for color in ("red", "blue"):
        catalog.products.put(color, "", "", {}, [colored(color)])
    passes: list[int] = []
    caption = repair.Captioner.repair

    async def counted(captioner: repair.Captioner, batch_size: int) -> CaptionReport:
        passes.append(batch_size)
        return await caption(captioner, batch_size)

    monkeypatch.setattr(repair.Captioner, "repair", counted)

    def state() -> tuple[int, set[str | None]]:
        images = [each for product in catalog.products.page(10) for each in product.images]
        return catalog.ledger.counts(collection).indexed, {each.caption for each in images}

    async def scene() -> None:
        settings = IngestCaptions(model="writer") if asked else None
        async with repairing(args.model_copy(update={"captions": settings}), "writer") as replica:
            await until(lambda: state() == (2, captions) and (len(passes) >= 3 or not asked))
            await replica.check_health()

    with caplog.at_level("WARNING", logger="deployments"):
        asyncio.run(scene())
    assert state() == (2, captions)
    assert bool(passes) == asked
    complaints = [record for record in caplog.records if "writes no captions" in record.getMessage()]
    assert len(complaints) == (asked and not able)
