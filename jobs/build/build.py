"""Jobs that fill a collection in bulk: `build` the whole, `sample` a share to predict how long it takes.

The ledger is the only checkpoint: what is in it is done, so a build that was killed goes on there.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from catalog.opening import Catalog
from core.config import FileImportConfig
from core.errors import InvalidInput
from core.index_rows import GRACE_S, IndexRows
from core.jobs import BuildArgs, SampleArgs, version_facts
from core.telemetry import current_request_id
from core.types import EncoderInfo
from jobs.build.file_import import FileImports, Staging
from jobs.build.passes import DecodePool, Passes
from jobs.build.shard_indexer import Decode, Load, ShardWork
from jobs.runner.cluster import run_task
from jobs.runner.context import JobContext, JobRun
from jobs.runner.settings import EncoderSettings, Settings
from milvus.bulk_import import MilvusImports
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import load_encoder


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The numbers of a bulk build; `remaining` images are missing still."""

    info: EncoderInfo
    images: int
    indexed: int
    failed: int
    removed: int
    remaining: int
    startup_s: float
    images_per_s: float | None
    predicted_s: float | None
    """Time that all `images` take from nothing, the start included."""

    def as_result(self) -> dict[str, Any]:
        """Write it as the result of a job."""
        numbers = asdict(self)
        del numbers["info"]
        return {**version_facts(self.info), **numbers}


def build_collection(
    run: JobRun,
    settings: Settings,
    catalog: Catalog,
    encoder: EncoderSettings,
    share: float = 1.0,
    load: Load = load_encoder,
) -> BuildResult:
    """Complete the collection of one version, or the first `share` (0 to 1) of the ids.

    Raises:
        Conflict: another job builds this collection, or this one was canceled.
        ConfigError: the model does not load.
        Unavailable: encoder or store were away for longer than the configured patience.
    """
    run.report(stage="loading the model")
    info, decoder = _describe(encoder, settings, load, decodes=bool(encoder.decode_actors(settings.bulk)))
    run.claim(f"collection {info.collection}")
    return complete(run, settings, catalog, encoder, info, share, load, settings.bulk.file_import, decoder)


def complete(
    run: JobRun,
    settings: Settings,
    catalog: Catalog,
    encoder: EncoderSettings,
    info: EncoderInfo,
    share: float = 1.0,
    load: Load = load_encoder,
    files: FileImportConfig | None = None,
    decoder: Decode | None = None,
) -> BuildResult:
    """Do the work of `build_collection` for a known version, without a claim; same errors.

    `decoder` is that of the version; where it is needed and not at hand, the model is loaded for it.
    `files` is for a caller that has claimed the collection: two that import the same files disturb each other.
    """
    store = MilvusStore(settings.milvus) if files is None else MilvusImports(settings.milvus)
    try:
        rows = IndexRows(store, catalog.ledger)
        rows.prepare(info)
        catalog.ledger.retry_bugs(info.collection)
        if catalog.versions.settings(info.collection) is None:
            catalog.versions.keep_settings(info.collection, encoder.version)
        decode = None
        actors, missing = encoder.decode_actors(settings.bulk), catalog.ledger.counts(info.collection).missing
        # What is no more than a shard has nothing for several processes to do.
        if actors and missing > settings.bulk.shard_images:
            decoder = decoder or _describe(encoder, settings, load, decodes=True)[1]
            assert decoder is not None
            decode = DecodePool(actors, decoder)
        work = shard_work(settings, encoder, info, missing, load, files)
        resources = encoder.resources(settings.bulk)
        passes = Passes(run, work, catalog.ledger, settings.bulk, resources, decode)
        if files is not None and isinstance(store, MilvusImports):
            store.require_server()
            staging = Staging(files, info.collection)
            passes.import_files = FileImports(run, store, staging, rows, files, info.collection).import_all
        passes.run_until_complete(share)
        run.report(stage="removing obsolete rows")
        removed = rows.remove_obsolete(info.collection, grace_s=GRACE_S)
    finally:
        store.close()
    images, speed = catalog.ledger.counts(info.collection).images, passes.speed
    steady_s = speed.seconds_for(images)
    return BuildResult(
        info=info,
        images=images,
        indexed=passes.indexed,
        failed=passes.failed,
        removed=removed,
        remaining=passes.gap(),
        startup_s=speed.startup_s,
        images_per_s=speed.images_per_s,
        predicted_s=None if steady_s is None else speed.startup_s + steady_s,
    )


def shard_work(
    settings: Settings,
    encoder: EncoderSettings,
    info: EncoderInfo,
    missing: int,
    load: Load,
    files: FileImportConfig | None,
) -> ShardWork:
    """Return what the actors of a build of `missing` images have to know.

    An actor that decodes does so by all its CPUs. For no more than a shard no model is compiled.
    """
    bulk = settings.bulk
    config = encoder.config if missing > bulk.shard_images else encoder.config.uncompiled
    return ShardWork(
        catalog=settings.catalog,
        milvus=settings.milvus,
        encoder=config.model_copy(update={"decode_threads": encoder.decode_threads(bulk)}),
        info=info,
        batch_size=bulk.batch_size or encoder.config.max_batch_size,
        batches_in_flight=bulk.batches_in_flight,
        load=load,
        files=files,
        request_id=current_request_id(),
    )


def describe(encoder: EncoderSettings, settings: Settings, load: Load = load_encoder) -> EncoderInfo:
    """Load the model on a machine that can, and read its version: the fingerprint depends on the weights.

    Raises:
        ConfigError: the model does not load.
    """
    return _describe(encoder, settings, load, decodes=False)[0]


def _describe(
    encoder: EncoderSettings, settings: Settings, load: Load, decodes: bool
) -> tuple[EncoderInfo, Decode | None]:
    """Load the model as `describe` does; with `decodes` return also how its images are decoded without it."""
    resources = encoder.resources(settings.bulk)
    info, decoder = run_task(resources, _load_and_describe, encoder.config, load, decodes)
    return replace(info, index_schema=settings.milvus.index_schema), decoder


def _load_and_describe(config: EncoderConfig, load: Load, decodes: bool) -> tuple[EncoderInfo, Decode | None]:
    encoder = load(config.uncompiled)
    # Not unless it is needed: the process of the job would load torch for it.
    return encoder.info, encoder.decoder() if decodes else None


def build(context: JobContext, args: BuildArgs) -> dict[str, Any]:
    """Complete the collection of the configured or candidate version; returns its numbers."""
    return _build(context, args, share=1.0).as_result()


def sample(context: JobContext, args: SampleArgs) -> dict[str, Any]:
    """Build a share, which a later build need not repeat; returns the speed and the time of the whole.

    Raises:
        InvalidInput: nothing of the share was missing, so nothing was measured.
    """
    done = _build(context, args, share=args.percent / 100)
    if done.predicted_s is None:
        raise InvalidInput(
            "nothing is missing in this share of the collection, so there is nothing to measure by"
        ).at("percent")
    rate = done.images_per_s or 0.0
    remaining_s = done.startup_s + done.remaining / rate if rate else None
    return done.as_result() | {"percent": args.percent, "predicted_remaining_s": remaining_s}


def _build(context: JobContext, args: BuildArgs, share: float) -> BuildResult:
    encoder = context.settings.encoder(args.model, args.changes)
    return build_collection(context.run, context.settings, context.catalog, encoder, share)
