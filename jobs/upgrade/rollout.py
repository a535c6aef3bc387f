"""Rollout of a chosen version while the old one serves, step by step; every step can be repeated.

Every step looks first at what is done already, so a take-over that was killed anywhere is done again from
its beginning. Replicas search the collection of their own version throughout; the alias, which moves last,
only tells people and tools which version is live.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from catalog.opening import Catalog
from core.errors import Conflict, ModelUnavailable, NotFound, Unavailable
from core.index_rows import GRACE_S
from core.jobs import Job
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.runner.context import JobRun
from jobs.runner.settings import EncoderSettings
from jobs.upgrade.serving import Change, Serving, arguments, change
from models.config import VERSION_FIELDS, EncoderConfig

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


logger = logging.getLogger(__name__)

_SERVE_CONFIG = "the Serve configuration"
"""Lock that a job holds while it reads, changes and hands back what all models share."""
_ROUNDS = 5
_LOOK_S = 0.5
_ANSWERS = 3
"""Replicas are asked that often, each time another by chance."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a take-over works with."""

    run: JobRun
    catalog: Catalog
    store: VectorStore
    serving: Serving


class Takeover:
    """Lets the version `target` take over.

    `build` completes its collection as far as it can at once; it may lack `tolerated` images when the
    replicas change.
    """

    def __init__(
        self,
        around: Surroundings,
        target: EncoderInfo,
        build: Callable[[], object],
        tolerated: int,
        wait_s: float,
    ) -> None:
        self._run = around.run
        self._ledger = around.catalog.ledger
        self._versions = around.catalog.versions
        self._store = around.store
        self._serving = around.serving
        self._target = target
        self._build = build
        self._tolerated = tolerated
        self._wait_s = wait_s

    def proceed(self, version: Mapping[str, Any], apply: bool) -> Change:
        """Do whatever is not done yet, until the version serves, is complete and live.

        Returns what has changed, also where an attempt that was interrupted has changed it already, unless that
        one had moved the alias too.

        `version` are the fields that make the encoder the target.

        Raises:
            ModelUnavailable: the new replicas do not start; the old version serves on.
            Unavailable: Serve, store or replicas were away for too long; asked anew it goes on.
            Conflict: the job was canceled.
        """
        # Before the replicas change, so that hardly anything is missing from what they are about to search.
        self._catch_up("before the replicas change", self._tolerated)
        self._remember(change(self._serving.config(), self._target.name, version))
        changed = self._configure(version, apply)
        self._roll(changed, apply)
        # From now on live traffic writes to this version, so what is missing does not grow any more.
        self._catch_up("after the replicas have changed", 0)
        whole = self._whole(changed)
        self._move_alias()
        return whole

    def _catch_up(self, when: str, tolerated: int) -> None:
        if not self._lacks_more_than(0):
            return
        for _ in range(_ROUNDS):
            self._run.report(stage=f"catching up {when}")
            self._build()
            self._run.check()
            if not self._lacks_more_than(tolerated):
                return
        # The rest is what the repair follows up.
        logger.info("%s still lacks images %s", self._target.collection, when)

    def _lacks_more_than(self, count: int) -> bool:
        return len(self._ledger.missing(self._target.collection, count + 1, GRACE_S)) > count

    def _remember(self, changed: Change) -> None:
        live = self._store.alias_target(self._target.name)
        # The live version's way back is what runs now, unless it has been left already.
        if changed and live is not None and live == self._serving.describe(self._target.name).collection:
            self._versions.keep_settings(live, _version_fields(changed.before, self._target.name))
        self._versions.keep_settings(
            self._target.collection, _version_fields(changed.after, self._target.name)
        )
        self._versions.choose(self._target.collection)

    def _configure(self, version: Mapping[str, Any], apply: bool) -> Change:
        """Change the running configuration; what jobs of other models change at the same time stays."""
        with self._run.locked(_SERVE_CONFIG) as keep_lock:
            # Read under the lock: Serve takes a whole configuration, and with it whatever was read before.
            changed = change(self._serving.config(), self._target.name, version)
            if changed and apply:
                keep_lock()
                self._serving.apply(changed.after)
        return changed

    def _roll(self, changed: Change, apply: bool) -> None:
        if changed:
            logger.info("the change of the configuration:\n%s", changed.diff)
        if changed and not apply:
            logger.info("the same as a patch of a RayService:\n%s", changed.rayservice_patch)
        self._run.report(
            stage="waiting for the replicas"
            if apply or not changed
            else "waiting for the change that the job's log tells"
        )
        deadline = time.monotonic() + self._wait_s
        while not self._serves(apply):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self._target.name} does not serve {self._target.fingerprint} within {self._wait_s:g} s; "
                    "asked for again, the promotion goes on"
                )
            self._run.pause(_LOOK_S)

    def _serves(self, apply: bool) -> bool:
        name = self._target.name
        try:
            rollout = self._serving.rollout(name)
            if rollout.status == "DEPLOY_FAILED":
                self._give_up(rollout.message, apply)
            # Serve calls an application running when no replica of an older version is left.
            return rollout.status == "RUNNING" and all(
                self._serving.describe(name).collection == self._target.collection for _ in range(_ANSWERS)
            )
        except ModelUnavailable:
            raise
        except Unavailable:
            return False

    def _give_up(self, reason: str, apply: bool) -> None:
        name = self._target.name
        live = self._store.alias_target(name)
        settings = None if live is None else self._versions.settings(live)
        restored = ""
        if apply and settings is not None and live != self._target.collection:
            self._configure(settings, apply)
            restored = "; the configuration is back to the live version's"
        raise ModelUnavailable(
            f"the replicas of {self._target.collection} do not start{restored}: {reason[-1000:]}"
        )

    def _whole(self, changed: Change) -> Change:
        name = self._target.name
        live = self._store.alias_target(name)
        settings = None if live is None else self._versions.settings(live)
        if changed or settings is None or live == self._target.collection:
            return changed
        return Change(name, change(changed.after, name, settings).after, changed.after)

    def _move_alias(self) -> None:
        name, collection = self._target.name, self._target.collection
        live = self._store.alias_target(name)
        if live == collection:
            return
        if live is not None:
            self._versions.retire(live)
        self._store.set_alias(name, collection)


def _version_fields(config: Mapping[str, Any], model: str) -> dict[str, Any]:
    stated = arguments(config, model)
    return {name: stated[name] for name in VERSION_FIELDS if name in stated}
