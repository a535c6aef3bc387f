"""Ranges of image ids cover all of them once."""

import hashlib

import pytest

from jobs.shards import cut

IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(2000)]
EDGES = ["0" * 32, "f" * 32, "8" * 32]


@pytest.mark.parametrize("pictures", [0, 1, 1000, 100_000, 10**9])
def test_every_id_lies_in_exactly_one_range(pictures: int) -> None:
    shards = cut(pictures, 512)
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
