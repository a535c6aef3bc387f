"""Stages are timed, and reported to the watch."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.telemetry import Stage, StageName, watch_stages


@pytest.fixture
def watched() -> Iterator[list[tuple[str, str, str]]]:
    reported: list[tuple[str, str, str]] = []

    @contextmanager
    def watch(stage: StageName, model: str) -> Iterator[None]:
        try:
            yield
            reported.append((stage, model, "ok"))
        except ValueError:
            reported.append((stage, model, "failed"))
            raise

    watch_stages(watch)
    yield reported
    watch_stages(None)


def test_a_stage_says_how_long_it_took() -> None:
    with Stage("search", "dinov2") as stage:
        assert stage.ms == 0
    assert stage.ms > 0


def test_the_watch_gets_ends_and_errors_which_go_on(
    watched: list[tuple[str, str, str]],
) -> None:
    with Stage("search", "dinov2"):
        pass
    with pytest.raises(ValueError, match="broken"), Stage("encode", "blip2"):
        raise ValueError("broken")
    assert watched == [("search", "dinov2", "ok"), ("encode", "blip2", "failed")]


def test_nothing_is_reported_after_the_watch_has_ended(watched: list[tuple[str, str, str]]) -> None:
    watch_stages(None)
    with Stage("fuse", "ensemble"):
        pass
    assert watched == []
