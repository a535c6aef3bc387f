"""Which version a promotion or a rollback is about."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from catalog.opening import Catalog
from core.errors import Conflict, NotFound
from core.jobs import Job
from core.types import EncoderInfo
from jobs.settings import EncoderSettings
from models.config import EncoderConfig

_JOBS_BACK = 200


def version_to_return_to(catalog: Catalog, job: Job, live: str | None) -> EncoderInfo:
    """Choose the version that a rollback is about.

    It is the one that the arguments name, the one that an interrupted rollback had chosen, or the one that
    was live before.

    Raises:
        NotFound: there is none.
    """
    model, fingerprint = job.args["model"], job.args.get("to")
    if fingerprint is not None:
        for info in catalog.ledger.versions():
            if (info.name, info.fingerprint) == (model, fingerprint):
                return info
        raise NotFound(f"model {model!r} has no version {fingerprint}").at("to")
    # Without it a rollback that dies after the alias has moved would, asked for again, go forward again.
    chosen = catalog.versions.chosen(model, _begun(catalog, job))
    if chosen is not None:
        return chosen
    for info in catalog.versions.retired(model):
        if info.collection != live:
            return info
    raise NotFound(f"model {model!r} has no version that was live before").at("model")


def _begun(catalog: Catalog, job: Job) -> datetime:
    """When the rollback that this job goes on with was asked for."""
    begun = job.created_at
    for each in catalog.jobs.page(_JOBS_BACK):
        if each.kind not in ("promote", "rollback") or each.args.get("model") != job.args["model"]:
            continue
        if each.job_id == job.job_id:
            continue
        if each.kind != "rollback" or each.state != "interrupted":
            break
        begun = min(begun, each.created_at)
    return begun


def as_it_was(catalog: Catalog, current: EncoderSettings, info: EncoderInfo) -> EncoderSettings:
    """Configure the encoder as this version of it was, run as it is run now.

    Raises:
        Conflict: how it was configured is not known.
    """
    version = catalog.versions.settings(info.collection)
    if version is None:
        raise Conflict(
            f"how {info.collection} was configured is not known; promote it by naming what differs"
        )
    stated: dict[str, Any] = {
        name: value for name, value in current.stated.items() if name not in current.version
    }
    stated |= version
    return replace(current, config=EncoderConfig.model_validate(stated), stated=stated)
