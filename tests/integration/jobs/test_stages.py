"""The stages of a build with decoding apart, one after the other and without Ray, over a real store and ledger."""

import pickle
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from PIL import Image

from catalog.opening import Catalog, open_catalog
from catalog.products import PutProduct
from core.config import FileImportConfig
from core.errors import ConfigError, Internal, InvalidInput, VitrineError
from core.types import NewImage, Vector
from jobs.build.shard_indexer import ShardIndexer, ShardWork
from jobs.build.stages import DecodeStage, EncodeStage, WriteStage
from milvus.bulk_import import read_rows
from milvus.config import IndexedAttribute, MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, load_encoder
from models.images import Decoded
from tests.support.catalog_fixtures import sqlite_in
from tests.support.image_files import file, image

ALL = {"first": "", "beyond": "g"}


@dataclass
class Shop:
    catalog: Catalog
    store: MilvusStore
    work: ShardWork
    folder: Path

    def put(self, count: int) -> None:
        puts = [
            PutProduct(f"p{n}", "", "", {"number": n}, [image((n, 255 - n, 128), (40 + n, 30))])
            for n in range(count)
        ]
        self.catalog.products.write(puts)

    @property
    def collection(self) -> str:
        return self.work.info.collection

    def vectors(self) -> dict[str, Vector]:
        return dict(self.store.fetch(self.collection, list(self.store.keys(self.collection))))

    def decode(self, **shard: str) -> pa.Table:
        decoder = self.work.load(self.work.encoder).decoder()
        # As it goes to another process.
        stage = DecodeStage(self.work, pickle.loads(ray.cloudpickle.dumps(decoder)), 2)
        return pa.concat_tables([*stage(pa.Table.from_pylist([ALL | shard]))] or [pa.table({})])

    def build(self, **shard: str) -> dict[str, int]:
        (result,) = WriteStage(self.work)(EncodeStage(self.work)(self.decode(**shard))).to_pylist()
        return {state: result[state] for state in ("indexed", "failed", "pending")}


@pytest.fixture
def shop(tmp_path: Path, lite_uri: str) -> Iterator[Shop]:
    encoder = EncoderConfig(name="fake", family="fake", checkpoint=uuid.uuid4().hex)
    info = load_encoder(encoder).info
    work = ShardWork(sqlite_in(tmp_path), MilvusConfig(uri=lite_uri), encoder, info, 4, 2, load_encoder)
    catalog, store = open_catalog(work.catalog), MilvusStore(work.milvus)
    yield Shop(catalog, store, work, tmp_path)
    store.drop_collection(info.collection)
    store.close()
    catalog.close()


def test_a_range_is_completed_with_the_vectors_of_one_stage_and_then_holds_nothing_to_do(shop: Shop) -> None:
    shop.put(30)
    lower = shop.build(beyond="8")["indexed"]
    assert lower + shop.build(first="8")["indexed"] == 30
    assert shop.build() == {"indexed": 0, "failed": 0, "pending": 0}
    assert shop.catalog.ledger.counts(shop.collection).missing == 0
    in_stages = shop.vectors()
    shop.store.drop_collection(shop.collection)
    shop.catalog.ledger.reset(shop.collection)
    assert ShardIndexer(shop.work)(ALL)["indexed"] == 30
    in_one = shop.vectors()
    assert in_stages.keys() == in_one.keys()
    for key, vector in in_one.items():
        np.testing.assert_array_equal(in_stages[key], vector)


def test_the_thread_that_loads_the_model_runs_it(shop: Shop) -> None:
    threads = list[int]()

    def load(config: EncoderConfig) -> Encoder:
        encoder = load_encoder(config)
        forward = encoder.forward
        threads.append(threading.get_ident())

        def noted(batch: Pixels) -> np.ndarray:
            threads.append(threading.get_ident())
            return forward(batch)

        encoder.forward = noted  # type: ignore[method-assign]
        return encoder

    shop.put(2)
    decoded = shop.decode()
    work = replace(shop.work, load=load)
    for run in (lambda: EncodeStage(work)(decoded), lambda: ShardIndexer(work)(ALL)):
        threads.clear()
        run()
        assert len(threads) > 1
        assert len(set(threads)) == 1


def test_each_batch_begins_before_the_one_before_is_read_and_the_last_is_read_by_the_caller(
    shop: Shop,
) -> None:
    log, threads = list[str](), list[int]()

    def load(config: EncoderConfig) -> Encoder:
        encoder = load_encoder(config)

        def start(images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
            number = log.count("begun")
            log.append("begun")
            answers = encoder.encode_images(images)

            def read() -> list[Vector | VitrineError]:
                log.append(f"read {number}")
                threads.append(threading.get_ident())
                return answers

            return read

        encoder.start_images = start  # type: ignore[method-assign]
        return encoder

    shop.put(11)
    decoded = shop.decode()
    found = EncodeStage(replace(shop.work, load=load))(decoded)
    assert log == ["begun", "begun", "read 0", "begun", "read 1", "read 2"]
    assert [each == threading.get_ident() for each in threads] == [False, False, True]
    assert found.equals(EncodeStage(shop.work)(decoded))


def test_images_that_cannot_be_read_fail_alone_and_go_into_quarantine(shop: Shop) -> None:
    shop.put(10)
    broken, missing = (shop.catalog.products.get(f"p{number}").images[0] for number in (3, 7))
    for sha256, content in ((broken.sha256, b"no image"), (missing.sha256, None)):
        (stored,) = (shop.folder / "blobs").rglob(sha256)
        stored.unlink() if content is None else stored.write_bytes(content)
    assert shop.build() == {"indexed": 8, "failed": 2, "pending": 0}
    reasons = " ".join(str(each) for each in shop.catalog.quarantine.page(shop.collection, 10))
    assert "the bytes are not an image" in reasons
    assert "there is no image file" in reasons
    assert shop.build() == {"indexed": 0, "failed": 0, "pending": 0}


def test_large_files_are_read_few_at_a_time_and_reach_the_model_in_full_batches(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(11)
    monkeypatch.setattr("core.concurrency.MAX_ENCODE_BYTES", 1)
    assert [len(batch) for batch in shop.decode().to_batches()] == [4, 4, 3]


class NativeRatio(Encoder):
    """Keeps the ratio of an image, and refuses an image of even width, as a model may."""

    def preprocess(self, image: Decoded) -> Pixels:
        return np.asarray(image.image).transpose(2, 0, 1)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        if len({each.shape for each in batch}) != 1:
            raise AssertionError("sizes are mixed")
        rows = np.zeros((len(batch), 96), np.float32)
        rows[:, 0] = 1 if batch.shape[3] % 2 else 0
        rows[:, 1] = batch.shape[3] if batch.shape[3] % 2 else 0
        return rows


def load_native(config: EncoderConfig) -> Encoder:
    return NativeRatio(load_encoder(config).info, config.limits, None)


def test_a_model_whose_input_differs_in_size_gets_each_image_in_its_own(shop: Shop) -> None:
    shop.put(9)
    shop.work = replace(shop.work, load=load_native)
    assert shop.build() == {"indexed": 4, "failed": 5, "pending": 0}
    ratios = sorted(round(float(vector[1] / vector[0])) for vector in shop.vectors().values())
    assert ratios == [41, 43, 45, 47]


def load_blind(config: EncoderConfig) -> Encoder:
    """Load an encoder that can encode nothing."""
    encoder = load_encoder(config)

    def encode_images(_images: Sequence[Pixels]) -> list[Vector | VitrineError]:
        raise AssertionError("this model is not to be asked")

    encoder.encode_images = encode_images  # type: ignore[method-assign, assignment]
    return encoder


def test_a_model_that_fails_on_every_image_ends_the_build_and_loses_none(shop: Shop) -> None:
    shop.put(3)
    shop.work = replace(shop.work, load=load_blind)
    with pytest.raises(Internal, match="encoding images failed"):
        shop.build()
    shop.work = replace(shop.work, load=load_encoder)
    assert shop.build()["indexed"] == 3


def test_vectors_that_another_collection_holds_are_not_decoded_again(shop: Shop) -> None:
    shop.put(6)
    shop.build()
    before = shop.vectors()
    declaring = shop.work.milvus.model_copy(
        update={"indexed_attributes": (IndexedAttribute(name="number", type="number"),)}
    )
    info = replace(shop.work.info, index_schema=declaring.index_schema)
    other = replace(shop, work=replace(shop.work, milvus=declaring, info=info, load=load_blind))
    # No file is left to decode.
    for stored in (shop.folder / "blobs").rglob("*"):
        if stored.is_file():
            stored.unlink()
    assert other.build() == {"indexed": 6, "failed": 0, "pending": 0}
    for key, vector in other.vectors().items():
        np.testing.assert_array_equal(vector, before[key])
    shop.store.drop_collection(info.collection)


@dataclass
class HalfGpu:
    """Takes every second file; what it makes of one is dark."""

    files: list[bytes]

    def __call__(self, files: Sequence[bytes]) -> list[Pixels | None]:
        self.files += files
        return [None if n % 2 else np.zeros((3, 16, 16), np.uint8) for n in range(len(files))]


def test_jpegs_are_decoded_beside_the_model_on_its_gpu_and_all_else_by_cpus(shop: Shop) -> None:
    gpu, white = HalfGpu([]), Image.new("RGB", (40, 30), "white")
    # The bytes after its end make each another file.
    jpegs = [file(white, "JPEG") + b" %d" % n for n in range(4)]
    others = [file(white, "JPEG", progressive=True), file(white)]
    kinds = [*["image/jpeg"] * 5, "image/png"]
    puts = [
        PutProduct(f"p{n}", "", "", {}, [NewImage(data, kind, 40, 30)])
        for n, (data, kind) in enumerate(zip([*jpegs, *others], kinds, strict=True))
    ]
    shop.catalog.products.write(puts)

    def load(config: EncoderConfig) -> Encoder:
        encoder = load_encoder(config)
        encoder.gpu_jpegs = gpu
        return encoder

    config = shop.work.encoder.model_copy(update={"decode_on_gpu": True})
    shop.work = replace(shop.work, encoder=config, load=load, batch_size=8)
    assert shop.build() == {"indexed": 6, "failed": 0, "pending": 0}
    assert sorted(gpu.files) == sorted(jpegs)
    dark = [vector for vector in shop.vectors().values() if vector[0] == 1]
    assert len(dark) == 2


def test_files_for_the_gpu_are_handed_on_by_their_bytes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.build.stages.is_for_gpu", lambda *_: True)
    shop.put(6)
    largest = max(each.stat().st_size for each in (shop.folder / "blobs").rglob("*") if each.is_file())
    # Two of these files are more.
    monkeypatch.setattr("jobs.build.stages.BLOCK_BYTES", largest + 1)
    config = shop.work.encoder.model_copy(update={"decode_on_gpu": True})
    shop.work = replace(shop.work, encoder=config)
    assert [len(batch) for batch in shop.decode().to_batches()] == [2, 2, 2]


def test_without_a_gpu_that_takes_files_the_model_s_process_decodes_and_a_broken_one_fails_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.build.stages.is_for_gpu", lambda *_: True)
    shop.put(3)
    (broken,) = (shop.folder / "blobs").rglob(shop.catalog.products.get("p1").images[0].sha256)
    broken.write_bytes(b"no image")
    config = shop.work.encoder.model_copy(update={"decode_on_gpu": True})
    shop.work = replace(shop.work, encoder=config)
    assert shop.build() == {"indexed": 2, "failed": 1, "pending": 0}


def test_an_image_that_is_deleted_between_two_stages_is_in_no_count_and_in_no_collection(shop: Shop) -> None:
    shop.put(5)
    encoded = EncodeStage(shop.work)(shop.decode())
    shop.catalog.products.delete("p2")
    (result,) = WriteStage(shop.work)(encoded).to_pylist()
    assert (result["indexed"], result["failed"], result["pending"]) == (4, 0, 0)
    assert len(list(shop.store.keys(shop.collection))) == 4


def test_while_the_store_is_away_images_wait(shop: Shop, tmp_path: Path) -> None:
    shop.put(5)
    encoded = EncodeStage(shop.work)(shop.decode())
    away = MilvusConfig(uri=f"unix:{tmp_path}/none.sock", timeout_s=0.2)
    (result,) = WriteStage(replace(shop.work, milvus=away))(encoded).to_pylist()
    assert (result["indexed"], result["failed"], result["pending"]) == (0, 0, 5)
    assert shop.build()["indexed"] == 5


def test_rows_for_an_import_by_files_are_in_a_file_and_in_no_ledger_yet(shop: Shop) -> None:
    shop.put(7)
    files = FileImportConfig(url=str(shop.folder / "import"), milvus_path="import")
    shop.work = replace(shop.work, files=files)
    assert shop.build() == {"indexed": 7, "failed": 0, "pending": 0}
    (written,) = (shop.folder / "import").rglob("*.parquet")
    with written.open("rb") as stream:
        assert sum(len(rows) for rows in read_rows(stream)) == 7
    assert shop.catalog.ledger.counts(shop.collection).missing == 7


def test_other_weights_than_the_build_is_for_are_refused(shop: Shop) -> None:
    other = EncoderConfig(name="fake", family="fake", checkpoint="other")
    with pytest.raises(ConfigError, match="pin its revision"):
        EncodeStage(replace(shop.work, encoder=other))


def test_the_decoder_of_a_large_model_goes_without_the_model() -> None:
    weights = Path(__file__).parents[3] / "demo" / "weights" / "dinov2"
    encoder = load_encoder(EncoderConfig(name="dinov2", family="dinov2", checkpoint=str(weights)))
    sent = ray.cloudpickle.dumps(encoder.decoder())
    assert len(sent) < 4096
    data = image((10, 200, 30), (300, 200)).data
    np.testing.assert_array_equal(pickle.loads(sent)(data), encoder.decode(data))
    with pytest.raises(InvalidInput):
        pickle.loads(sent)(b"no image")
