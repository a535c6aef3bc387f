"""The speed of a bulk job, apart from its start."""

import pytest

from jobs.speed import Speed


def result(began: float, ended: float, indexed: int, failed: int = 0) -> dict[str, float]:
    return {"began": began, "ended": ended, "indexed": indexed, "failed": failed}


def test_shards_that_overlap_add_up() -> None:
    speed = Speed(started=100.0)
    speed.add(result(110.0, 120.0, 90, 10))
    speed.add(result(112.0, 130.0, 100))
    assert speed.startup_s == 10.0
    assert speed.images_per_s == 10.0
    assert speed.seconds_for(50) == 5.0


def test_nothing_is_known_before_the_first_pictures() -> None:
    speed = Speed(started=100.0)
    speed.add(result(101.0, 150.0, 0))
    assert (speed.images_per_s, speed.seconds_for(10), speed.startup_s) == (None, None, 0.0)


def test_the_prediction_of_a_share_is_that_of_the_whole_at_equal_speed() -> None:
    share, whole = Speed(0.0), Speed(0.0)
    share.add(result(20.0, 25.0, 100))
    for number in range(10):
        whole.add(result(20.0 + 5 * number, 25.0 + 5 * number, 100))
    took = 20.0 + 1000 / (whole.images_per_s or 0)
    assert share.startup_s + (share.seconds_for(1000) or 0) == pytest.approx(took)
