"""Jobs `promote`, for a candidate that passes the quality gate, and `rollback`, to the version before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.errors import Conflict
from core.jobs import BuildArgs, EvaluateArgs, JobArgs, PromoteArgs, RollbackArgs
from core.types import EncoderInfo
from jobs.build.build import complete, describe
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.measures import GateDecision
from jobs.runner.context import JobContext, open_store
from jobs.runner.settings import EncoderSettings, settings_of
from jobs.upgrade.rollout import Surroundings, Takeover, as_it_was, version_to_return_to
from jobs.upgrade.serving import RunningServe, Serving, change

_CANDIDATE_FIELDS = ("checkpoint", "pretrained", "revision", "precision", "pooling")


def judge(context: JobContext, live: EncoderSettings, candidate: EncoderSettings) -> GateDecision | None:
    """Compare the candidate with the live version; None where nothing can be compared.

    Raises:
        VitrineError: as an evaluation.
    """
    model = live.config.name
    settings = replace(context.settings, encoders={**context.settings.encoders, model: live})
    before, after = live.config.model_dump(), candidate.config.model_dump()
    differs = {name: after[name] for name in _CANDIDATE_FIELDS if after[name] != before[name]}
    args = EvaluateArgs(models=[model], candidate=BuildArgs(model=model, **differs))
    return evaluate(replace(context, settings=settings), args).decision


Judge = Callable[[JobContext, EncoderSettings, EncoderSettings], GateDecision | None]
_TOLERATED = 0.1
"""Share of the images that a candidate may lack at most, however few they are."""


def promote(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Let the candidate take over from the live version.

    Raises:
        Conflict: the gate refuses it, its collection is not complete, or another upgrade is under way.
        VitrineError: as `Takeover.proceed`.
    """
    assert isinstance(args, PromoteArgs)
    with begun(context, RunningServe(), args.model) as upgrade:
        candidate = context.settings.encoder(args.model, args.candidate)
        context.run.report(stage="loading the model")
        info = describe(candidate, context.settings.bulk)
        upgrade.require_complete(info)
        verdict = upgrade.verdict(candidate, info, args.force, judge)
        return {"gate": verdict, **upgrade.take_over(candidate, info, args.apply, args.wait_s)}


def rollback(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Let an earlier version take over again, brought up to date first.

    Raises:
        NotFound: there is no earlier version.
        Conflict: how it was configured is not known, or gives other weights today.
        VitrineError: as `Takeover.proceed`.
    """
    assert isinstance(args, RollbackArgs)
    with begun(context, RunningServe(), args.model) as upgrade:
        target = version_to_return_to(context.catalog, context.run.job, upgrade.live)
        encoder = as_it_was(context.catalog, upgrade.current, target)
        context.run.report(stage="loading the model")
        info = describe(encoder, context.settings.bulk)
        if info.collection != target.collection:
            raise Conflict(
                f"{target.collection} cannot come back: its checkpoint is {info.fingerprint} today"
            )
        return upgrade.take_over(encoder, info, args.apply, args.wait_s)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An upgrade under way: what runs, and what is live."""

    context: JobContext
    around: Surroundings
    running: dict[str, Any]
    current: EncoderSettings
    live: str | None

    def require_complete(self, info: EncoderInfo) -> None:
        """Refuse a candidate whose collection lacks more than live traffic has added since its build.

        Raises:
            Conflict: it does; the message holds the numbers.
        """
        counts = self.context.catalog.ledger.counts(info.collection)
        allowed = min(self.context.settings.bulk.gap_threshold, int(counts.images * _TOLERATED))
        there = self.around.store.has_collection(info.collection)
        if not there or counts.missing > allowed:
            missing = counts.missing if there else counts.images
            raise Conflict(
                f"{info.collection} lacks {missing} of {counts.images} images, and may lack {allowed}; "
                "build it first"
            )

    def verdict(self, candidate: EncoderSettings, info: EncoderInfo, force: str | None, judge: Judge) -> str:
        """Have the candidate judged unless it is forced or runs already; returns the gate's words.

        Raises:
            Conflict: the gate refuses it.
        """
        runs = not change(self.running, info.name, candidate.version)
        if runs or self.around.serving.describe(info.name).collection == info.collection:
            return "not asked: this version runs already"
        if force is not None:
            return f"not asked: {force}"
        decision = judge(self.context, self.current, candidate)
        if decision is None:
            return "not asked: there is nothing to compare with"
        if not decision.passed:
            # For scripts, which should not have to read the message.
            self.context.run.result = {"gate": asdict(decision)}
            raise Conflict(f"the gate does not let {info.collection} take over: {decision.reason}")
        return decision.reason

    def take_over(
        self, encoder: EncoderSettings, info: EncoderInfo, apply: bool, wait_s: float
    ) -> dict[str, Any]:
        """Let a version take over; returns what changed."""

        def build() -> object:
            context = self.context
            return complete(context.run, context.settings, context.catalog, encoder, info)

        tolerated = self.context.settings.bulk.gap_threshold
        changed = Takeover(self.around, info, build, tolerated, wait_s).proceed(encoder.version, apply)
        return {
            "model": info.name,
            "from": self.live,
            "to": info.collection,
            "fingerprint": info.fingerprint,
            "dimension": info.dimension,
            "remaining": self.context.catalog.ledger.counts(info.collection).missing,
            # The whole configuration may hold secrets, and whoever may search reads results of jobs.
            "diff": changed.diff,
        }


@contextmanager
def begun(context: JobContext, serving: Serving, model: str) -> Iterator[Upgrade]:
    """Keep other upgrades of the model away, and look at what runs.

    Raises:
        Conflict: another upgrade is under way; the message holds its id.
        InvalidInput: there is no such encoder.
        StoreUnknown: Milvus is not the one that the ledger speaks of.
    """
    context.settings.encoder(model, {})
    context.run.claim(f"the upgrade of {model}")
    running = serving.config()
    current = settings_of(running["applications"]).encoder(model, {})
    with open_store(context) as store:
        around = Surroundings(context.run, context.catalog, store, serving)
        yield Upgrade(context, around, running, current, store.alias_target(model))
