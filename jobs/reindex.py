"""Fill a collection in bulk: Ray Data hands ranges of image ids to a pool of actors that hold the model.

There is no checkpoint but the ledger: what is in it is done, so a build that was killed goes on there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ray

from catalog.opening import Catalog
from core.bulk import BulkConfig, FileImportConfig
from core.index_rows import GRACE_S, IndexRows
from core.request_ids import current_request_id
from core.types import EncoderInfo
from jobs.cluster import own_errors
from jobs.file_imports import FileImports
from jobs.passes import Passes
from jobs.run import JobRun
from jobs.settings import EncoderSettings, Settings
from jobs.shard_indexer import Load, ShardWork
from jobs.staging import Staging
from milvus.imports import MilvusImports
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.registry import load_encoder


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What a bulk build did; `remaining` pictures are missing still."""

    info: EncoderInfo
    pictures: int
    indexed: int
    failed: int
    removed: int
    remaining: int
    startup_s: float
    images_per_s: float | None
    predicted_s: float | None
    """How long all `pictures` take from nothing, the start included."""


def reindex(
    run: JobRun,
    settings: Settings,
    catalog: Catalog,
    encoder: EncoderSettings,
    share: float = 1.0,
    load: Load = load_encoder,
) -> Reindexed:
    """Complete the collection of one version, or the first `share` (0 to 1) of the ids.

    Raises:
        Conflict: another job builds this collection, or this one was cancelled.
        ConfigError: the model does not load.
        Unavailable: encoder or store were away for longer than the configured patience.
    """
    run.report(stage="loading the model")
    info = describe(encoder, settings.bulk, load)
    run.claim(f"collection {info.collection}")
    return complete(run, settings, catalog, encoder, info, share, load, settings.bulk.file_import)


def complete(
    run: JobRun,
    settings: Settings,
    catalog: Catalog,
    encoder: EncoderSettings,
    info: EncoderInfo,
    share: float = 1.0,
    load: Load = load_encoder,
    files: FileImportConfig | None = None,
) -> Reindexed:
    """Do the work of `reindex` for a known version, whoever else may be at it; same errors.

    `files` is for whoever has claimed the collection: two that take in the same files would disturb each other.
    """
    store = MilvusStore(settings.milvus) if files is None else MilvusImports(settings.milvus)
    try:
        rows = IndexRows(store, catalog.ledger)
        rows.prepare(info)
        catalog.ledger.retry_bugs(info.collection)
        if catalog.versions.settings(info.collection) is None:
            catalog.versions.keep_settings(info.collection, encoder.version)
        passes = Passes(
            run,
            _work(settings, encoder, info, load, files),
            catalog.ledger,
            settings.bulk,
            encoder.resources(settings.bulk),
            _take_in(run, store, rows, info, files),
        )
        passes.run_until_complete(share)
        run.report(stage="removing obsolete rows")
        removed = rows.remove_obsolete(info.collection, grace_s=GRACE_S)
    finally:
        store.close()
    return _summary(passes, info, catalog.ledger.counts(info.collection).pictures, removed)


def _work(
    settings: Settings,
    encoder: EncoderSettings,
    info: EncoderInfo,
    load: Load,
    files: FileImportConfig | None,
) -> ShardWork:
    return ShardWork(
        catalog=settings.catalog,
        milvus=settings.milvus,
        encoder=encoder.config,
        info=info,
        batch_size=settings.bulk.batch_size or encoder.config.max_batch_size,
        batches_in_flight=settings.bulk.batches_in_flight,
        load=load,
        files=files,
        request_id=current_request_id(),
    )


def _take_in(
    run: JobRun, store: MilvusStore, rows: IndexRows, info: EncoderInfo, files: FileImportConfig | None
) -> Callable[[], int]:
    if files is None or not isinstance(store, MilvusImports):
        return lambda: 0
    store.require_server()
    return FileImports(run, store, Staging(files, info.collection), rows, files, info.collection).take_in


def _summary(passes: Passes, info: EncoderInfo, pictures: int, removed: int) -> Reindexed:
    speed = passes.speed
    steady_s = speed.seconds_for(pictures)
    return Reindexed(
        info=info,
        pictures=pictures,
        indexed=passes.indexed,
        failed=passes.failed,
        removed=removed,
        remaining=passes.gap(),
        startup_s=speed.startup_s,
        images_per_s=speed.images_per_s,
        predicted_s=None if steady_s is None else speed.startup_s + steady_s,
    )


def describe(encoder: EncoderSettings, bulk: BulkConfig, load: Load = load_encoder) -> EncoderInfo:
    """Learn the version on a machine that can load the model: only the weights tell the fingerprint.

    Raises:
        ConfigError: the model does not load.
    """
    task = ray.remote(max_retries=1, **encoder.resources(bulk))(_load_and_describe)
    with own_errors():
        info: EncoderInfo = ray.get(task.remote(encoder.config, load))
    return info


def _load_and_describe(config: EncoderConfig, load: Load) -> EncoderInfo:
    return load(config).info
