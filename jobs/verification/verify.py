"""The jobs `verify`, whether catalog, ledger, Milvus and images agree, and `adopt`, for another Milvus."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.errors import Conflict
from core.jobs import AdoptArgs, JobArgs, VerifyArgs
from core.types import EncoderInfo
from jobs.context import JobContext, open_store
from jobs.reindex import complete, describe
from jobs.settings import EncoderSettings
from jobs.verification.checker import on_cluster
from jobs.verification.sample import Sample
from jobs.verification.verification import Configured, Verification

_SEEDS = 2**31


def verify(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare, and repair if asked to; returns the differences, what was repaired and what is left.

    Raises:
        Conflict: another verification is at work; the message holds its id.
        InvalidInput: there is no such model.
        StoreUnknown: Milvus is not the one that the ledger speaks of.
        Unavailable: the database, the files or Milvus are away.
    """
    assert isinstance(args, VerifyArgs)
    context.run.claim("the verification")
    # Every time another share of the pictures, unless the same is to be looked at again.
    seed = random.randrange(_SEEDS) if args.seed is None else args.seed
    with open_store(context) as store:
        configured = _configured(context, args.model)
        sample = Sample(args.percent, seed)
        verification = Verification(context, store, configured, on_cluster(context.settings), sample)
        differences = verification.look(args.model, args.repair)
        checked, told = verification.checked, differences.told()
        result: dict[str, Any] = {"seed": seed, "checked": checked, "differences": told}
        if args.repair and differences:
            verification.rebuild(differences, _builder(context))
            result["left"] = verification.look(args.model).told()
    return result | {"agrees": not result.get("left", result["differences"])}


def adopt(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Take the configured Milvus as the catalog's own; returns its id and whether the ledger was believed.

    Raises:
        Conflict: it is the catalog's own, so there is nothing to confirm.
        Unavailable: the database or Milvus is away.
    """
    assert isinstance(args, AdoptArgs)
    ledger = context.catalog.ledger
    with open_store(context, known=False) as store:
        former = ledger.store_id()
        if former in store.marks():
            raise Conflict(
                "the configured Milvus is the catalog's own: nothing is lost, and nothing to adopt"
            )
        if not args.keep_index:
            # Under an id of its own, the new store is not mistaken for the former one, should that come back.
            ledger.forget_store(former)
        store_id = ledger.make_store_id()
        store.set_mark(store_id)
    return {"store_id": store_id, "former_store_id": former, "index_kept": args.keep_index}


def _configured(context: JobContext, model: str | None) -> Configured:
    """Load the configured encoders that are asked for and have a version, to learn which version each is."""
    if model is not None:
        context.settings.encoder(model, {})
    known = {info.name for info in context.catalog.ledger.versions()}
    found = {}
    for name, encoder in context.settings.encoders.items():
        if name in known and model in (None, name):
            context.run.report(stage=f"loading {name}")
            info = describe(encoder, context.settings.bulk)
            found[info.collection] = (info, encoder)
    return found


def _builder(context: JobContext) -> Callable[[EncoderInfo, EncoderSettings], object]:
    # What live traffic may leave to the next round in a build is left out here: all is to be repaired.
    bulk = context.settings.bulk.model_copy(update={"gap_threshold": 0})
    settings = replace(context.settings, bulk=bulk)

    def build(info: EncoderInfo, encoder: EncoderSettings) -> object:
        return complete(context.run, settings, context.catalog, encoder, info)

    return build
