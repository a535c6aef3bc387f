"""The jobs that fill a collection: `build` the whole, `sample` a share of it to know how long that takes."""

from typing import Any

from core.errors import InvalidInput
from core.jobs import BuildArgs, JobArgs, SampleArgs
from jobs.context import JobContext
from jobs.reindex import Reindexed, reindex


def build(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Complete the collection of the configured or candidate version; returns its numbers."""
    assert isinstance(args, BuildArgs)
    return _numbers(_reindex(context, args, share=1.0))


def sample(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Build a share, which a later build need not repeat; returns the speed and the time of the whole.

    Raises:
        InvalidInput: nothing of the share was missing, so nothing was measured.
    """
    assert isinstance(args, SampleArgs)
    done = _reindex(context, args, share=args.percent / 100)
    if done.predicted_s is None:
        raise InvalidInput(
            "nothing is missing in this share of the collection, so there is nothing to measure by"
        ).at("percent")
    rate = done.images_per_s or 0.0
    remaining_s = done.startup_s + done.remaining / rate if rate else None
    return _numbers(done) | {"percent": args.percent, "predicted_remaining_s": remaining_s}


def _reindex(context: JobContext, args: BuildArgs, share: float) -> Reindexed:
    encoder = context.settings.encoder(args.model, args.candidate)
    return reindex(context.run, context.settings, context.catalog, encoder, share)


def _numbers(done: Reindexed) -> dict[str, Any]:
    return {
        "collection": done.info.collection,
        "fingerprint": done.info.fingerprint,
        "dimension": done.info.dimension,
        "pictures": done.pictures,
        "indexed": done.indexed,
        "failed": done.failed,
        "removed": done.removed,
        "remaining": done.remaining,
        "startup_s": done.startup_s,
        "images_per_s": done.images_per_s,
        "predicted_s": done.predicted_s,
    }
