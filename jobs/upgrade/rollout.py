"""Rollout of a chosen version while the old one serves, in steps that can be repeated.

Every step first reads what is done already, so a rollout that was killed anywhere is asked for again from its
beginning. Replicas search the collection of their own version throughout. The alias moves last; it only tells
people and tools which version is live.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from catalog.opening import Catalog
from core.errors import ConfigError, Conflict, ModelUnavailable, NotFound, Unavailable
from core.index_rows import GRACE_S
from core.jobs import VERSION_FIELDS, Job
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.runner.context import JobRun
from jobs.runner.settings import EncoderSettings, first_error
from jobs.upgrade.serving import Change, Serving, arguments, change, served_collection
from models.config import EncoderConfig

logger = logging.getLogger(__name__)

_JOBS_BACK = 200
_SERVE_CONFIG = "the Serve configuration"
"""Lock of a job that reads, changes and applies the configuration that all models share."""
_ROUNDS = 5
_LOOK_S = 0.5
_ANSWERS = 3
"""Replicas are asked that often; each call reaches one by chance."""


def live_version(store: VectorStore, versions: Iterable[EncoderInfo], model: str) -> EncoderInfo | None:
    """Find the version that the model's alias names; None before the first promotion."""
    target = store.alias_target(model)
    return next((info for info in versions if info.collection == target), None)


def version_to_return_to(catalog: Catalog, job: Job, live: str | None, index_schema: str = "") -> EncoderInfo:
    """Choose the version of a rollback.

    It is the one that the arguments name, the one that an interrupted rollback chose, or the one that was live
    before. A version that was live with other indexed attributes comes back with those of `index_schema`.

    Raises:
        NotFound: there is none.
    """
    model, fingerprint = job.args["model"], job.args.get("fingerprint")
    if fingerprint is not None:
        for info in catalog.ledger.versions():
            if (info.name, info.fingerprint) == (model, fingerprint):
                return info
        raise NotFound(f"model {model!r} has no version {fingerprint}").at("fingerprint")
    # Without it a rollback that dies after the alias has moved would, asked for again, go forward again.
    chosen = catalog.versions.chosen(model, _begun(catalog, job))
    if chosen is not None:
        return chosen
    for info in catalog.versions.retired(model):
        if replace(info, index_schema=index_schema).collection != live:
            return info
    raise NotFound(f"model {model!r} has no version that was live before").at("model")


def _begun(catalog: Catalog, job: Job) -> datetime:
    """Find when the rollback that this job continues was asked for."""
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
    """Configure the encoder as this version of it was; all but the version stays as it is now.

    Raises:
        Conflict: the catalog does not know how it was configured.
        ConfigError: these settings cannot be used here, as where they refer to a variable that is not set.
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
    try:
        config = EncoderConfig.model_validate(stated)
    except ValidationError as error:
        raise ConfigError(f"the settings of {info.collection} are wrong: {first_error(error)}") from None
    return replace(current, config=config, stated=stated)


@dataclass(frozen=True, slots=True)
class VersionRollout:
    """Rollout of the version `target`, which the fields `version` of its encoder make.

    `build` completes its collection as far as possible at once. The collection may lack `tolerated` images when
    the replicas change. Without `apply` somebody else changes the configuration within `wait_s`.
    """

    run: JobRun
    catalog: Catalog
    store: VectorStore
    serving: Serving
    target: EncoderInfo
    version: Mapping[str, Any]
    build: Callable[[], object]
    tolerated: int
    apply: bool
    wait_s: float

    def proceed(self) -> Change:
        """Do every step that is not done yet, until the version serves, is complete and live.

        The change that is returned includes what an interrupted attempt changed before the alias moved.

        Raises:
            ModelUnavailable: the new replicas do not start; the old version still serves.
            Unavailable: Serve, store or replicas were away for too long; asked for again, the rollout goes on.
            Conflict: the job was canceled.
        """
        # Before the replicas change, so that hardly anything is missing from the collection that they search.
        self._catch_up("before the replicas change", self.tolerated)
        self._remember(change(self.serving.config(), self.target.name, self.version))
        failed_before = self._failed_at()
        changed = self._configure(self.version)
        self._wait_for_replicas(changed, failed_before)
        # From now on live traffic writes to this version, so the gap no longer grows.
        self._catch_up("after the replicas have changed", 0)
        whole = self._since_the_live_version(changed)
        self._move_alias()
        return whole

    def _catch_up(self, when: str, tolerated: int) -> None:
        if not self._lacks_more_than(0):
            return
        for _ in range(_ROUNDS):
            self.run.report(stage=f"catching up {when}")
            self.build()
            self.run.check()
            if not self._lacks_more_than(tolerated):
                return
        # The repair closes the rest of the gap.
        logger.info("%s still lacks images %s", self.target.collection, when)

    def _lacks_more_than(self, count: int) -> bool:
        missing = self.catalog.ledger.missing(self.target.collection, count + 1, GRACE_S)
        return len(missing) > count

    def _remember(self, changed: Change) -> None:
        versions, name = self.catalog.versions, self.target.name
        live = self.store.alias_target(name)
        if changed and live is not None:
            served = served_collection(self.serving, name)
            # A model at zero may take long to answer. It most likely serves the live version, and a rollback
            # checks which version these settings make.
            likely = served is None and self._failed_at() is None and versions.settings(live) is None
            # What runs now is how to go back to the live version, unless it has been left already.
            if served == live or likely:
                versions.keep_settings(live, _version_fields(changed.before, name))
        versions.keep_settings(self.target.collection, _version_fields(changed.after, name))
        versions.choose(self.target.collection)

    def _failed_at(self) -> float | None:
        """Return when replicas that do not start were deployed; None where they start, or nothing is known."""
        try:
            status = self.serving.rollout(self.target.name)
        except Unavailable:
            return None
        return status.deployed_at if status.failed else None

    def _configure(self, version: Mapping[str, Any]) -> Change:
        """Change the running configuration; simultaneous changes of other models stay."""
        with self.run.locked(_SERVE_CONFIG) as keep_lock:
            # Read under the lock: Serve takes a whole configuration, with whatever was read before.
            changed = change(self.serving.config(), self.target.name, version)
            if changed and self.apply:
                keep_lock()
                self.serving.apply(changed.after)
        return changed

    def _wait_for_replicas(self, changed: Change, failed_before: float | None) -> None:
        manual = changed and not self.apply
        if changed:
            logger.info("the change of the configuration:\n%s", changed.diff)
        if manual:
            logger.info("the same as a patch of a RayService:\n%s", changed.rayservice_patch)
        self.run.report(
            stage="waiting for the change in the job's log" if manual else "waiting for the replicas"
        )
        deadline = time.monotonic() + self.wait_s
        while not self._serves(failed_before):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.target.name} does not serve {self.target.fingerprint} within {self.wait_s:g} s; "
                    "asked for again, the promotion goes on"
                )
            self.run.pause(_LOOK_S)

    def _serves(self, failed_before: float | None) -> bool:
        name, serving = self.target.name, self.serving
        try:
            # Read before the status, which may be that of another configuration until somebody changes it.
            configured = self.apply or not change(serving.config(), name, self.version)
            status = serving.rollout(name)
            if status.failed and configured and (self.apply or status.deployed_at != failed_before):
                self._give_up(status.message)
            # Serve calls an application running when no replica of an older version is left.
            return status.status == "RUNNING" and all(
                serving.describe(name).collection == self.target.collection for _ in range(_ANSWERS)
            )
        except ModelUnavailable:
            raise
        except Unavailable:
            return False

    def _give_up(self, reason: str) -> None:
        live, settings = self._live_settings()
        restored = ""
        if self.apply and settings is not None and live != self.target.collection:
            self._configure(settings)
            restored = "; the configuration is back to the live version's"
        raise ModelUnavailable(
            f"the replicas of {self.target.collection} do not start{restored}: {reason[-1000:]}"
        )

    def _live_settings(self) -> tuple[str | None, dict[str, Any] | None]:
        live = self.store.alias_target(self.target.name)
        return live, None if live is None else self.catalog.versions.settings(live)

    def _since_the_live_version(self, changed: Change) -> Change:
        live, settings = self._live_settings()
        if changed or settings is None or live == self.target.collection:
            return changed
        name = self.target.name
        return Change(name, change(changed.after, name, settings).after, changed.after)

    def _move_alias(self) -> None:
        name, collection = self.target.name, self.target.collection
        live = self.store.alias_target(name)
        if live == collection:
            return
        if live is not None:
            self.catalog.versions.retire(live)
        self.store.set_alias(name, collection)


def _version_fields(config: Mapping[str, Any], model: str) -> dict[str, Any]:
    stated = arguments(config, model)
    return {name: stated[name] for name in VERSION_FIELDS if name in stated}
