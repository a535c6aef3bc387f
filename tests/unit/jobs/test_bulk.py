"""Ranges of image ids of a bulk build, and its speed."""

import hashlib

import pytest

from jobs.build.shards import Speed, cut

IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(2000)]
EDGES = ["0" * 32, "f" * 32, "8" * 32]


@pytest.mark.parametrize("images", [0, 1, 1000, 100_000, 10**9])
def test_every_id_lies_in_exactly_one_range(images: int) -> None:
    shards = cut(images, 512)
    for image_id in IDS[:50] + EDGES:
        assert sum(shard.first <= image_id < shard.beyond for shard in shards) == 1


def test_ranges_hold_about_equally_many() -> None:
    sizes = [sum(shard.first <= each < shard.beyond for each in IDS) for shard in cut(2000, 200)]
    assert len(sizes) == 10
    assert min(sizes) > 150
    assert max(sizes) < 250


def test_a_share_is_a_prefix_of_the_whole() -> None:
    shards = cut(2000, 50, share=0.1)
    inside = [each for each in IDS if any(shard.first <= each < shard.beyond for shard in shards)]
    assert inside == [each for each in IDS if each < shards[-1].beyond]
    assert len(inside) == pytest.approx(200, rel=0.2)
    assert shards[0] == cut(2000, 50)[0]


def test_a_huge_gap_does_not_make_more_ranges_than_can_be_planned() -> None:
    assert len(cut(10**9, 512)) == 4096


def result(warmed: float, ended: float, indexed: int, failed: int = 0) -> dict[str, float]:
    began = warmed - 4
    return {
        "began": began, "warmed": warmed, "warm_up": 10, "ended": ended, "indexed": indexed, "failed": failed
    }  # fmt: skip


def test_shards_that_overlap_add_up_behind_the_first_batch() -> None:
    speed = Speed(started=100.0)
    speed.add(result(112.0, 130.0, 100))
    speed.add(result(110.0, 120.0, 90, 10))
    assert speed.startup_s == 10.0
    assert speed.images_per_s == 9.5
    assert speed.seconds_for(19) == 2.0


def test_nothing_is_known_before_the_first_images() -> None:
    speed = Speed(started=100.0)
    speed.add({"began": 101.0, "warmed": None, "warm_up": 0, "ended": 150.0, "indexed": 0, "failed": 0})
    assert (speed.images_per_s, speed.seconds_for(10), speed.startup_s) == (None, None, 0.0)


def test_a_single_batch_is_all_that_there_is_to_measure_by() -> None:
    speed = Speed(started=100.0)
    speed.add(result(109.0, 110.0, 10))
    assert (speed.images_per_s, speed.startup_s) == (2.0, 5.0)


def test_what_comes_behind_the_last_shard_counts_as_time() -> None:
    speed = Speed(started=100.0)
    speed.add(result(110.0, 120.0, 110))
    assert speed.images_per_s == 10.0
    speed.lasted_until(130.0)
    assert speed.images_per_s == 5.0


def test_the_prediction_of_a_share_is_that_of_the_whole_though_the_first_batch_is_slow() -> None:
    share, whole = Speed(0.0), Speed(0.0)
    share.add(result(22.0, 26.5, 100))
    for number in range(10):
        whole.add(result(22.0 + 5 * number, 26.5 + 5 * number, 100))
    took = 22.0 + 990 / (whole.images_per_s or 0)
    assert share.startup_s + (share.seconds_for(1000 - 10) or 0) == pytest.approx(took, rel=0.01)
