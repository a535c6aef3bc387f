"""A rollout of a version, killed before and after each of its steps, and under traffic."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.jobs import SqlJobs
from core.errors import ModelUnavailable, Unavailable
from core.indexing import Indexer
from core.types import EncoderInfo
from jobs.runner.context import JobRun, take_up
from jobs.upgrade.rollout import VersionRollout
from jobs.upgrade.serving import RolloutStatus, arguments
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.upgrade_stage import BROKEN, MODEL, Killed, Stage, configuration, info, stage


class Spy:
    """Passes calls on and counts those that change something, until it is time to die before or after one."""

    def __init__(self, part: Any, deaths: "Deaths") -> None:
        self._part = part
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._deaths.step()
            answer = method(*args, **kwargs)
            self._deaths.step()
            return answer

        return call


class Deaths:
    """Dies at the given step; `steps` counts them."""

    def __init__(self, at: int) -> None:
        self.steps = 0
        self._at = at

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._at:
            raise Killed

    def __call__(self, part: Any) -> Spy:
        return Spy(part, self)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def assert_rolled_out(shop: Stage, old: str, new: str) -> None:
    assert shop.live == info(new).collection
    assert shop.serve.describe(MODEL) == info(new)
    assert arguments(shop.serve.config(), MODEL)["checkpoint"] == new
    assert shop.keys(new) == shop.expected_keys()
    assert shop.catalog.versions.retired(MODEL)[0].collection == info(old).collection
    assert shop.catalog.versions.settings(info(old).collection) == {"family": "fake", "checkpoint": old}
    assert shop.catalog.versions.settings(info(new).collection) == {"family": "fake", "checkpoint": new}


def test_a_version_is_rolled_out_and_back(shop: Stage) -> None:
    shop.build("new")
    shop.put("written meanwhile")
    shop.promote("new")
    assert_rolled_out(shop, "old", "new")
    assert len(shop.serve.applied) == 1
    shop.put("written since")
    shop.build("new")
    shop.promote("old")
    assert_rolled_out(shop, "new", "old")


def test_a_rollout_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        with stage(tmp_path / str(at), products=3) as shop:
            shop.build("new")
            shop.put("meanwhile")
            try:
                shop.promote("new", Deaths(at))
                killed = False
            except Killed:
                # Whatever serves is served from a collection of its own.
                assert shop.serve.describe(MODEL).collection in {
                    known.name for known in shop.store.collections()
                }
                is_live = shop.live == info("new").collection
                diff = shop.promote("new").diff.splitlines()
                assert is_live or {"-checkpoint: old", "+checkpoint: new"} <= set(diff)
            assert_rolled_out(shop, "old", "new")
            assert len(shop.serve.applied) == 1
    assert at > 20


def test_what_another_upgrade_changes_while_this_one_prepares_stays(
    shop: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.build("new")
    describe = shop.serve.describe

    def change_and_describe(model: str) -> EncoderInfo:
        encoder, gateway = shop.serve.running["applications"]
        shop.serve.running = {"applications": [encoder, {**gateway, "args": {"changed": True}}]}
        return describe(model)

    monkeypatch.setattr(shop.serve, "describe", change_and_describe)
    shop.promote("new")
    (applied,) = shop.serve.applied
    assert applied["applications"][1]["args"] == {"changed": True}


def test_repeated_it_changes_nothing(shop: Stage) -> None:
    shop.build("new")
    shop.promote("new")
    shop.promote("new")
    assert_rolled_out(shop, "old", "new")
    assert len(shop.serve.applied) == 1


def test_replicas_that_do_not_start_leave_the_old_version_configured_and_live(shop: Stage) -> None:
    shop.build(BROKEN)
    with pytest.raises(ModelUnavailable, match="the weights do not load"):
        shop.promote(BROKEN)
    assert shop.live == info("old").collection
    assert arguments(shop.serve.config(), MODEL)["checkpoint"] == "old"
    shop.build("new")
    shop.promote("new")
    assert_rolled_out(shop, "old", "new")


def test_without_applying_it_logs_the_change_and_waits_for_somebody_to_make_it(
    shop: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shop.build("new")
    with pytest.raises(Unavailable, match="asked for again"):
        shop.promote("new", apply=False, wait_s=0)
    logged = [each.getMessage() for each in caplog.records]
    diff, patch = (each.partition("\n")[2] for each in logged if "\n" in each)
    assert {"-checkpoint: old", "+checkpoint: new"} <= set(diff.splitlines())
    resource = yaml.safe_load(patch)["spec"]["serveConfigV2"]
    assert arguments(yaml.safe_load(resource), MODEL)["checkpoint"] == "new"
    assert shop.serve.applied == []
    assert shop.live == info("old").collection
    shop.serve.apply(
        {
            "applications": [
                {**each, "args": {**each["args"], "checkpoint": "new"}} if "args" in each else each
                for each in shop.serve.config()["applications"]
            ]
        }
    )
    assert "+checkpoint: new" in shop.promote("new", apply=False).diff
    assert_rolled_out(shop, "old", "new")


def test_a_model_without_a_replica_is_promoted_and_rolled_back(shop: Stage) -> None:
    for old, new in (("old", "new"), ("new", "old")):
        shop.build(new)
        shop.serve.apply(configuration(BROKEN))
        shop.serve.serves = ""
        shop.promote(new)
        assert (shop.live, shop.serve.describe(MODEL)) == (info(new).collection, info(new))
        assert shop.catalog.versions.retired(MODEL)[0].collection == info(old).collection


def test_a_live_version_at_zero_that_does_not_answer_in_time_can_be_returned_to(
    shop: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.build("new")
    monkeypatch.setattr(shop.serve, "apply", lambda _config: None)
    shop.serve.serves = ""
    with pytest.raises(Unavailable):
        shop.promote("new", wait_s=0)
    assert shop.catalog.versions.settings(info("old").collection) == {"family": "fake", "checkpoint": "old"}


@pytest.mark.parametrize("target", ["new", BROKEN])
def test_without_applying_only_a_failure_of_this_attempt_ends_it(
    shop: Stage, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    shop.build(target)
    shop.serve.apply(configuration(BROKEN))
    with pytest.raises(Unavailable, match="asked for again"):
        shop.promote(target, apply=False, wait_s=0)

    def somebody_applies(_run: JobRun, _seconds: float) -> None:
        if len(shop.serve.applied) == 1:
            shop.serve.apply(configuration(target))

    monkeypatch.setattr(JobRun, "pause", somebody_applies)
    if target == BROKEN:
        with pytest.raises(ModelUnavailable, match="the weights do not load"):
            shop.promote(target, apply=False)
    else:
        shop.promote(target, apply=False)
        assert shop.live == info("new").collection


class SeveralModels:
    """A Serve of several encoders, each of which serves at once what the configuration says."""

    def __init__(self, *models: str) -> None:
        encoders = [configuration("old")["applications"][0] for _ in models]
        self.running: dict[str, Any] = {
            "applications": [
                {**encoder, "name": model, "args": {**encoder["args"], "name": model}}
                for encoder, model in zip(encoders, models, strict=True)
            ]
        }

    def config(self) -> dict[str, Any]:
        return deepcopy(self.running)

    def apply(self, config: Mapping[str, Any]) -> None:
        self.running = deepcopy(dict(config))

    def rollout(self, model: str) -> RolloutStatus:
        return RolloutStatus("RUNNING", "")

    def describe(self, model: str) -> EncoderInfo:
        checkpoint = arguments(self.running, model)["checkpoint"]
        return asyncio.run(LocalEncoder(model, checkpoint).describe())


class Slow:
    """Has read the configuration that it is about to change, and goes on only when another has had its turn."""

    def __init__(self, serve: SeveralModels, others_turn: threading.Event) -> None:
        self._serve = serve
        self._others_turn = others_turn
        self._reads = 0
        self.has_read = threading.Event()

    def config(self) -> dict[str, Any]:
        found = self._serve.config()
        self._reads += 1
        if self._reads == 2:
            self.has_read.set()
            assert self._others_turn.wait(120)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._serve, name)


@pytest.mark.parametrize("first_kind", ["promote", "rollback"])
def test_two_models_that_change_at_once_do_not_undo_each_other(
    shop: Stage, monkeypatch: pytest.MonkeyPatch, first_kind: str
) -> None:
    models = ("one", "two")
    for name in models:
        for checkpoint in ("old", "new"):
            encoder = LocalEncoder(name, checkpoint)
            asyncio.run(repair(Indexer(encoder, shop.store, shop.catalog.ledger, shop.catalog.blobs)))
    serve, others_turn = SeveralModels(*models), threading.Event()
    slow = Slow(serve, others_turn)

    def upgrade(kind: str, model: str, serving: Any) -> None:
        target = asyncio.run(LocalEncoder(model, "new").describe())
        with take_up(shop.catalog.jobs, kind, {"model": model}) as run:
            parts = run, shop.catalog, shop.store, serving
            version = {"family": "fake", "checkpoint": "new"}
            VersionRollout(*parts, target, version, lambda: None, 0, apply=True, wait_s=60).proceed()

    def second() -> None:
        try:
            assert slow.has_read.wait(120)
            upgrade("promote", "two", serve)
        finally:
            others_turn.set()

    lock = SqlJobs.lock

    def lock_and_tell(jobs: SqlJobs, job_id: str, name: str) -> bool:
        locked = lock(jobs, job_id, name)
        if not locked:
            others_turn.set()
        return locked

    monkeypatch.setattr(SqlJobs, "lock", lock_and_tell)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(upgrade, first_kind, "one", slow), pool.submit(second)]:
            done.result()
    checkpoints = {name: arguments(serve.running, name)["checkpoint"] for name in models}
    assert checkpoints == {"one": "new", "two": "new"}


def test_a_job_that_stood_still_while_another_took_its_lock_hands_nothing_over(
    shop: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.build("new")
    jobs, config, reads = shop.catalog.jobs, shop.serve.config, iter(range(10))

    def stand_still_and_read() -> dict[str, Any]:
        found = config()
        if next(reads) == 1:
            # As after a lease that has run out: another job has held the lock since.
            (holder,) = [job for job in jobs.page(10) if job.kind == "promote"]
            jobs.unlock(holder.job_id)
        return found

    monkeypatch.setattr(shop.serve, "config", stand_still_and_read)
    with pytest.raises(Unavailable, match="another job has taken the Serve configuration"):
        shop.promote("new")
    assert shop.serve.applied == []
    shop.promote("new")
    assert_rolled_out(shop, "old", "new")
