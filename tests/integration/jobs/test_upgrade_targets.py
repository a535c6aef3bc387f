"""Targets of a rollback, refusals of a promotion, and collections that a prune drops."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog.blobs import FsspecBlobs
from catalog.image_files import PREFIXES
from core.errors import ConfigError, Conflict, NotFound, Unavailable
from core.jobs import Progress, PruneFilesArgs
from core.types import EncoderInfo
from jobs.evaluation.result import QualityGateDecision
from jobs.runner.context import JobContext, JobRun, take_up
from jobs.runner.settings import EncoderSettings
from jobs.upgrade.promote import Upgrade
from jobs.upgrade.prune import drop, prune_files, sort_out
from jobs.upgrade.rollout import as_it_was, version_to_return_to
from models.config import EncoderConfig
from tests.support.catalog_fixtures import sqlite_in
from tests.support.upgrade_stage import MODEL, Stage, info, job_settings, stage


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def target(shop: Stage, **args: Any) -> str:
    with shop.job("rollback", **args) as run:
        return version_to_return_to(shop.catalog, run.job, shop.live).checkpoint


def encoder(checkpoint: str) -> EncoderSettings:
    stated = {"name": MODEL, "family": "fake", "checkpoint": checkpoint, "threads": 2}
    return EncoderSettings(EncoderConfig.model_validate(stated), num_cpus=1, num_gpus=0, stated=stated)


def upgrade(shop: Stage, run: JobRun) -> Upgrade:
    return Upgrade(
        JobContext(run, job_settings(encoder("old")), shop.catalog),
        shop.store,
        shop.serve,
        shop.serve.config(),
        encoder("old"),
        shop.live,
    )


def test_a_rollback_goes_to_the_version_before_and_then_forward_again(shop: Stage) -> None:
    with pytest.raises(NotFound, match="no version that was live before"):
        target(shop)
    shop.build("new")
    shop.promote("new")
    assert target(shop) == "old"
    shop.promote("old")
    assert target(shop) == "new"


def test_a_rollback_goes_to_the_version_that_it_names(shop: Stage) -> None:
    shop.build("candidate")
    assert target(shop, fingerprint=info("candidate").fingerprint) == "candidate"
    with pytest.raises(NotFound, match="no version 000000000000"):
        target(shop, fingerprint="0" * 12)


def test_a_rollback_does_not_go_to_the_same_weights_with_other_indexed_attributes(shop: Stage) -> None:
    shop.build("new")
    shop.promote("new")
    now = replace(info("new"), index_schema="0123abcd")
    shop.store.ensure_collection(now.collection, now.dimension)
    shop.catalog.ledger.register(now)
    shop.catalog.versions.retire(info("new").collection)
    shop.store.set_alias(MODEL, now.collection)
    with shop.job("rollback") as run:
        found = version_to_return_to(shop.catalog, run.job, shop.live, now.index_schema)
    assert found.checkpoint == "old"


def test_a_rollback_that_died_after_the_alias_moved_does_not_go_forward_when_asked_again(shop: Stage) -> None:
    shop.build("new")
    shop.promote("new")
    jobs = shop.catalog.jobs
    died = jobs.begin(jobs.create("rollback", {"model": MODEL}).job_id)
    shop.catalog.versions.choose(info("old").collection)
    shop.catalog.versions.retire(info("new").collection)
    shop.store.set_alias(MODEL, info("old").collection)
    assert version_to_return_to(shop.catalog, died, shop.live).checkpoint == "old"
    jobs.finish(died.job_id, "interrupted", Progress())
    assert target(shop) == "old"


def test_what_does_not_make_a_version_stays_as_it_is_run_now(shop: Stage) -> None:
    version = info("old")
    with pytest.raises(Conflict, match="not known"):
        as_it_was(shop.catalog, encoder("new"), version)
    shop.catalog.versions.keep_settings(version.collection, {"family": "fake", "checkpoint": "old"})
    current = replace(encoder("new"), stated={**encoder("new").stated, "precision": "bf16", "threads": 8})
    restored = as_it_was(shop.catalog, current, version)
    assert restored.stated == {"name": MODEL, "family": "fake", "checkpoint": "old", "threads": 8}
    assert (restored.config.checkpoint, restored.config.precision, restored.config.threads) == (
        "old",
        "fp32",
        8,
    )


def test_a_rollback_says_which_variable_of_the_stored_settings_is_not_set(
    shop: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEIGHTS", raising=False)
    stored = {"family": "fake", "checkpoint": "${WEIGHTS}/old"}
    shop.catalog.versions.keep_settings(info("old").collection, stored)
    with pytest.raises(ConfigError), shop.job("rollback") as run:
        as_it_was(shop.catalog, encoder("new"), info("old"))
    error = shop.catalog.jobs.get(run.job.job_id).error or ""
    assert f"{info('old').collection} are wrong: " in error
    assert "refers to ${WEIGHTS}, which is not set" in error


def test_an_incomplete_candidate_is_refused_with_its_gap(shop: Stage) -> None:
    with shop.job() as run:
        with pytest.raises(Conflict, match="lacks 6 of 6 images, and may lack 0; build it first"):
            upgrade(shop, run).require_complete(info("new"))
        shop.build("new")
        upgrade(shop, run).require_complete(info("new"))


def test_a_worse_candidate_is_refused_with_the_figures_unless_it_is_forced(shop: Stage) -> None:
    def compare(
        _context: JobContext, baseline: EncoderSettings, candidate: EncoderSettings
    ) -> QualityGateDecision:
        assert (baseline.config.checkpoint, candidate.config.checkpoint) == ("old", "new")
        return QualityGateDecision(False, "refused: map goes from 0.9 to 0.5", "map", None)

    with shop.job() as run:
        begun = upgrade(shop, run)
        with pytest.raises(Conflict, match=r"refuses to promote .*: refused: map goes from 0.9 to 0.5"):
            begun.ask_quality_gate(encoder("new"), info("new"), None, compare)
        assert run.result is not None
        assert run.result["quality_gate"]["passed"] is False
        forced = begun.ask_quality_gate(encoder("new"), info("new"), "a test", compare)
        assert forced == QualityGateDecision(None, "not asked: a test")
        again = begun.ask_quality_gate(encoder("old"), info("old"), None, compare)
        assert "runs already" in again.reason


@pytest.mark.parametrize("serves", ["old", ""], ids=["served", "no replica"])
def test_a_better_candidate_passes_with_the_figures(shop: Stage, serves: str) -> None:
    decision = QualityGateDecision(True, "passed: map goes from 0.5 to 0.9", "map", None)
    shop.serve.serves = serves
    with shop.job() as run:
        begun = upgrade(shop, run)
        assert begun.ask_quality_gate(encoder("new"), info("new"), None, lambda *_: decision) is decision


def test_a_prune_keeps_what_is_live_serves_was_live_before_or_is_being_built(shop: Stage) -> None:
    for checkpoint in ("older", "new", "abandoned", "building"):
        shop.build(checkpoint)
    shop.promote("older")
    shop.promote("new")
    with shop.job("build", checkpoint="building") as run:
        run.claim(f"collection {info('building').collection}")
        dropped, kept = sort_out(shop.catalog, shop.store, shop.serve, MODEL, keep=1)
    assert {found.checkpoint: why for found, why in kept} == {
        "new": "live",
        "older": "was live before",
        "building": "is being built",
    }
    assert {found.checkpoint for found in dropped} == {"old", "abandoned"}
    for found in dropped:
        drop(shop.catalog, shop.store, found)
        drop(shop.catalog, shop.store, found)
    left = {info(each).collection for each in ("new", "older", "building")}
    assert {known.name for known in shop.store.collections()} == left
    assert {known.collection for known in shop.catalog.ledger.versions()} == left
    assert shop.catalog.ledger.counts(info("old").collection).indexed == 0


def test_a_prune_keeps_the_version_that_serves_though_another_is_live(shop: Stage) -> None:
    shop.build("new")
    shop.store.set_alias(MODEL, info("new").collection)
    dropped, kept = sort_out(shop.catalog, shop.store, shop.serve, MODEL, keep=0)
    assert dropped == []
    assert {found.checkpoint: why for found, why in kept} == {"new": "live", "old": "serves"}


def test_a_prune_drops_nothing_while_no_replica_says_what_it_serves(
    shop: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_model: str) -> EncoderInfo:
        raise Unavailable("no replica answers")

    shop.build("new")
    monkeypatch.setattr(shop.serve, "describe", away)
    with pytest.raises(Unavailable):
        sort_out(shop.catalog, shop.store, shop.serve, MODEL, keep=0)


def test_nothing_is_dropped_through_an_alias(shop: Stage) -> None:
    shop.build("new")
    with pytest.raises(Conflict, match="alias"):
        shop.store.drop_collection(MODEL)
    assert shop.keys("old") == shop.expected_keys()


def test_a_prune_of_files_removes_at_once_what_no_product_names(
    shop: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = shop.catalog
    kept = {each.sha256 for name in ("p1", "p2") for each in catalog.products.get(name).images}
    for name in ("p0", "p3", "p4", "p5"):
        catalog.products.delete(name)
    catalog.blobs.put(b"its product never came")

    remove = FsspecBlobs.remove

    def all_but_one(blobs: FsspecBlobs, name: str) -> None:
        if name == stuck:
            raise Unavailable("it may not be deleted")
        remove(blobs, name)

    def files() -> set[str]:
        return {name for prefix in PREFIXES for name in catalog.blobs.sizes(prefix)}

    planned = pruned(shop, tmp_path, dry_run=True)
    assert planned["would_remove"] == 5
    assert planned["bytes"] > 0
    assert len(files()) == 7
    assert catalog.blobs.owner() is None
    stuck = min(files() - kept)
    with monkeypatch.context() as patched:
        patched.setattr(FsspecBlobs, "remove", all_but_one)
        done = pruned(shop, tmp_path, dry_run=False)
    assert (done["removed"], done["failed"]) == (4, 1)
    assert files() == {*kept, stuck}
    done = pruned(shop, tmp_path, dry_run=False)
    assert (done["removed"], done["failed"]) == (1, 0)
    assert files() == kept
    assert catalog.image_files.waiting() == 0
    assert pruned(shop, tmp_path, dry_run=True) == {"would_remove": 0, "bytes": 0, "reports": 0}
    catalog.products.delete("p1")
    with catalog.image_files.holding(), pytest.raises(Conflict, match="backup"):
        pruned(shop, tmp_path, dry_run=False)
    assert files() == kept


def test_a_prune_of_files_removes_reports_of_jobs_that_nobody_remembers(shop: Stage, tmp_path: Path) -> None:
    jobs, reports = shop.catalog.jobs, shop.catalog.reports
    kept, forgotten = reports.put(b"<html>kept"), reports.put(b"<html>forgotten")
    with take_up(jobs, "evaluate", {}) as run:
        run.result = {"files": {"report.html": kept}}
    with take_up(jobs, "evaluate", {}):
        # It may have written a report that its result will name.
        assert pruned(shop, tmp_path, dry_run=False)["reports"] == 0
    assert pruned(shop, tmp_path, dry_run=True)["reports"] == 1
    assert reports.get(forgotten)
    assert pruned(shop, tmp_path, dry_run=False)["reports"] == 1
    assert reports.get(kept)
    with pytest.raises(NotFound):
        reports.get(forgotten)


def pruned(shop: Stage, folder: Path, dry_run: bool) -> dict[str, Any]:
    with take_up(shop.catalog.jobs, "prune_files", {"dry_run": dry_run}) as run:
        settings = job_settings(catalog=sqlite_in(folder))
        return prune_files(JobContext(run, settings, shop.catalog), PruneFilesArgs(dry_run=dry_run))
