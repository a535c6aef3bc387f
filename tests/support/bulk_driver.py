"""Program that runs a bulk build, to be killed: `python -m tests.support.bulk_driver`.

python -m tests.support.bulk_driver FOLDER MILVUS_URI RAY_ADDRESS BULK, the settings of the build as JSON
"""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from catalog.jobs import SqlJobs
from catalog.opening import open_catalog
from core.config import BulkConfig, FileImportConfig
from core.errors import VitrineError
from core.types import Vector
from jobs.build.build import build_collection
from jobs.runner.cluster import connected
from jobs.runner.context import take_up
from jobs.runner.settings import EncoderSettings, Settings
from milvus.config import MilvusConfig
from models import fake
from models.config import EncoderConfig
from models.encoder import Pixels
from tests.support.catalog_fixtures import sqlite_in

LEASE_S = 2.0
ARGS = {"model": "fake"}
FILE_IMAGES = 250
HELD = "held"
"""A file of this name in the folder keeps the encoder waiting."""
BULK = BulkConfig(batch_size=8, batches_in_flight=3, shard_images=100)
STAGED = BulkConfig(
    batch_size=8, batches_in_flight=3, shard_images=25, decode_actors=1, cpus_per_decode_actor=0.5
)
"""Decodes apart from the model."""
_SECONDS_AN_IMAGE = 0.002


class CountingEncoder(fake.FakeEncoder):
    """Adds a byte to a file for every image that it encodes, takes its time, and waits while it is held."""

    count_file: Path

    def encode_images(self, images: Sequence[Pixels]) -> list[Vector | VitrineError]:
        time.sleep(_SECONDS_AN_IMAGE * len(images))
        while self.count_file.with_name(HELD).exists():
            time.sleep(0.05)
        descriptor = os.open(self.count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, b"x" * len(images))
        os.close(descriptor)
        return super().encode_images(images)


def load_counting(count_file: Path, config: EncoderConfig) -> CountingEncoder:
    encoder = CountingEncoder(fake.load(config).info, config.limits, None)
    encoder.count_file = count_file
    return encoder


def files_in(folder: Path) -> BulkConfig:
    """Build by files, which a Milvus on this machine's disk reads under the same path."""
    files = FileImportConfig(url=str(folder), milvus_path=str(folder), file_images=FILE_IMAGES)
    return BULK.model_copy(update={"file_import": files})


def settings(folder: Path, milvus_uri: str, bulk: BulkConfig = BULK) -> Settings:
    encoder = EncoderSettings(EncoderConfig(name="fake", family="fake"), num_cpus=0.5, num_gpus=0)
    return Settings(
        catalog=sqlite_in(folder),
        milvus=MilvusConfig(uri=milvus_uri),
        bulk=bulk,
        encoders={"fake": encoder},
    )


def main() -> None:
    folder, milvus_uri, address = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    known = settings(folder, milvus_uri, BulkConfig.model_validate_json(sys.argv[4]))
    catalog = open_catalog(known.catalog)
    load = partial(load_counting, folder / "encoded")
    try:
        with take_up(SqlJobs(catalog.engine, lease_s=LEASE_S), "build", ARGS) as run, connected(address):
            build_collection(run, known, catalog, known.encoders["fake"], load=load)
    except VitrineError as error:
        raise SystemExit(error.message) from None


if __name__ == "__main__":
    main()
