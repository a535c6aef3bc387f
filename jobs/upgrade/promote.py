"""Jobs `promote`, for a candidate that passes the quality gate, and `rollback`, to the version before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from core.errors import Conflict
from core.jobs import EvaluateArgs, PromoteArgs, RollbackArgs, version_facts
from core.ports import VectorStore
from core.types import EncoderInfo
from jobs.build.build import complete, describe
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.result import QualityGateDecision
from jobs.runner.context import JobContext, open_store
from jobs.runner.settings import EncoderSettings, settings_of
from jobs.upgrade.rollout import VersionRollout, as_it_was, version_to_return_to
from jobs.upgrade.serving import RunningServe, Serving, change, served_collection

_TOLERATED = 0.1
"""Share of the images that a candidate may lack at most, however few they are."""


def compare(
    context: JobContext, baseline: EncoderSettings, candidate: EncoderSettings
) -> QualityGateDecision | None:
    """Evaluate the candidate against the baseline; None where nothing can be compared.

    Raises:
        VitrineError: as an evaluation.
    """
    model = baseline.config.name
    settings = replace(context.settings, encoders={**context.settings.encoders, model: baseline})
    args = EvaluateArgs(model=model)
    return evaluate(replace(context, settings=settings), args, candidate=candidate).decision


Compare = Callable[[JobContext, EncoderSettings, EncoderSettings], QualityGateDecision | None]


def promote(context: JobContext, args: PromoteArgs) -> dict[str, Any]:
    """Make the candidate the live version.

    Raises:
        Conflict: the quality gate refuses it, its collection is incomplete, or another upgrade is under way.
        VitrineError: as `VersionRollout.proceed`.
    """
    with begun(context, RunningServe(), args.model) as upgrade:
        candidate = context.settings.encoder(args.model, args.changes)
        context.run.report(stage="loading the model")
        info = describe(candidate, context.settings)
        upgrade.require_complete(info)
        decision = upgrade.ask_quality_gate(candidate, info, args.force, compare)
        return upgrade.roll_out(candidate, info, args.apply, args.wait_s) | {"quality_gate": asdict(decision)}


def rollback(context: JobContext, args: RollbackArgs) -> dict[str, Any]:
    """Make an earlier version the live one again, brought up to date first.

    Raises:
        NotFound: there is no earlier version.
        Conflict: its configuration is not known, or gives other weights today.
        ConfigError: its configuration cannot be used here.
        VitrineError: as `VersionRollout.proceed`.
    """
    with begun(context, RunningServe(), args.model) as upgrade:
        target = version_to_return_to(
            context.catalog, context.run.job, upgrade.live, context.settings.milvus.index_schema
        )
        encoder = as_it_was(context.catalog, upgrade.current, target)
        context.run.report(stage="loading the model")
        info = describe(encoder, context.settings)
        if info.fingerprint != target.fingerprint:
            raise Conflict(
                f"{target.collection} cannot come back: its checkpoint is {info.fingerprint} today"
            )
        return upgrade.roll_out(encoder, info, args.apply, args.wait_s)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An upgrade under way: the running configuration, its encoder, and the live collection."""

    job: JobContext
    store: VectorStore
    serving: Serving
    running: dict[str, Any]
    current: EncoderSettings
    live: str | None

    def require_complete(self, info: EncoderInfo) -> None:
        """Refuse a candidate whose collection lacks more than live traffic has added since its build.

        Raises:
            Conflict: it does; the message holds the numbers.
        """
        counts = self.job.catalog.ledger.counts(info.collection)
        allowed = min(self.job.settings.bulk.gap_threshold, int(counts.images * _TOLERATED))
        there = self.store.has_collection(info.collection)
        if not there or counts.missing > allowed:
            missing = counts.missing if there else counts.images
            raise Conflict(
                f"{info.collection} lacks {missing} of {counts.images} images, and may lack {allowed}; "
                "build it first"
            )

    def ask_quality_gate(
        self, candidate: EncoderSettings, info: EncoderInfo, force: str | None, compare: Compare
    ) -> QualityGateDecision:
        """Compare the candidate with the live version, unless it is forced or runs already.

        Raises:
            Conflict: the quality gate refuses it.
        """
        runs = not change(self.running, info.name, candidate.version)
        if runs or served_collection(self.serving, info.name) == info.collection:
            return _not_asked("this version runs already")
        if force is not None:
            return _not_asked(force)
        decision = compare(self.job, self.current, candidate)
        if decision is None:
            return _not_asked("there is nothing to compare with")
        if not decision.passed:
            # For scripts, which should not have to read the message.
            self.job.run.result = {**version_facts(info), "quality_gate": asdict(decision)}
            raise Conflict(f"the quality gate refuses to promote {info.collection}: {decision.reason}")
        return decision

    def roll_out(
        self, encoder: EncoderSettings, info: EncoderInfo, apply: bool, wait_s: float
    ) -> dict[str, Any]:
        """Make a version the live one; return what changed."""
        job = self.job
        changed = VersionRollout(
            job.run,
            job.catalog,
            self.store,
            self.serving,
            info,
            encoder.version,
            build=partial(complete, job.run, job.settings, job.catalog, encoder, info),
            tolerated=job.settings.bulk.gap_threshold,
            apply=apply,
            wait_s=wait_s,
        ).proceed()
        return {
            **version_facts(info),
            "baseline": self.live,
            "remaining": job.catalog.ledger.counts(info.collection).missing,
            # The whole configuration may hold secrets, and results of jobs are open to whoever may search.
            "diff": changed.diff,
        }


def _not_asked(why: str) -> QualityGateDecision:
    return QualityGateDecision(None, f"not asked: {why}")


@contextmanager
def begun(context: JobContext, serving: Serving, model: str) -> Iterator[Upgrade]:
    """Lock out other upgrades of the model, and read what runs.

    Raises:
        Conflict: another upgrade is under way; the message holds its id. Or the service runs with other indexed
            attributes.
        InvalidInput: there is no such encoder.
        StoreUnknown: Milvus is not the one that the ledger describes.
    """
    context.settings.encoder(model, {})
    context.run.claim(f"the upgrade of {model}")
    running = serving.config()
    settings = settings_of(running["applications"])
    if settings.milvus.index_schema != context.settings.milvus.index_schema:
        raise Conflict(
            "the service runs with other milvus.indexed_attributes than this configuration; deploy it first"
        )
    current = settings.encoder(model, {})
    with open_store(context) as store:
        yield Upgrade(context, store, serving, running, current, store.alias_target(model))
