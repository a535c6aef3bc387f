"""Cut-outs of any size with transparency, and titles in 78 languages: the stamps of Tux Paint."""

import io
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.support.corpora import stamps
from tests.support.real_images import ALL, MODEL, at_once, rank, real_shop, recall
from vitrine import ImagePart, NewProduct, Vitrine

EVERY, ASKED = (1, 500) if ALL else (6, 50)
TINY = 20
"""Each sixth stamp takes part by default, and all with a side below so many pixels."""
TITLES = 50 if ALL else 4
"""Of each language."""
WHITE, BEIGE = (255, 255, 255), (225, 208, 180)


@dataclass(frozen=True)
class Stamp:
    """A stamp with its titles by language."""

    product_id: str
    file: Path
    titles: dict[str, str]

    def shortest_side(self) -> int:
        with Image.open(self.file) as opened:
            return min(opened.size)

    def on(self, color: tuple[int, int, int], margin: float = 0.0) -> bytes:
        """Draw it on a color with this margin, in shares of its sides; returns a PNG file."""
        with Image.open(self.file) as opened:
            drawn = opened.convert("RGBA")
        left, top = (round(side * margin) for side in drawn.size)
        canvas = Image.new("RGB", (drawn.width + 2 * left, drawn.height + 2 * top), color)
        canvas.paste(drawn, (left, top), drawn)
        file = io.BytesIO()
        canvas.save(file, "PNG")
        return file.getvalue()


def titles(file: Path) -> dict[str, str]:
    """Read the titles by language; the first line is English."""
    first, *others = file.read_text(encoding="utf-8").splitlines()
    named = {"en": first.strip()}
    for line in others:
        language, _, title = line.partition(".utf8=")
        if title.strip():
            named[language] = title.strip()
    return named


@pytest.fixture(scope="module")
def catalog() -> list[Stamp]:
    home = stamps()
    every = [
        Stamp(str(file.relative_to(home).with_suffix("")).replace("/", ":"), file, titles(named))
        for file in sorted(home.rglob("*.png"))
        if (named := file.with_suffix(".txt")).exists()
    ]
    return [each for number, each in enumerate(every) if number % EVERY == 0 or each.shortest_side() < TINY]


@pytest.fixture(scope="module")
def shop(catalog: list[Stamp]) -> Iterator[Vitrine]:
    products = (
        NewProduct(
            each.product_id,
            title=each.titles["en"],
            description="\n".join(each.titles.values()),
            images=[each.file],
        )
        for each in catalog
    )
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name, real_shop(Path(name), products) as running:
        yield running


def drawn(catalog: list[Stamp]) -> list[Stamp]:
    return random.Random(7).sample(catalog, ASKED)


def test_every_stamp_is_indexed_however_small(shop: Vitrine, catalog: list[Stamp]) -> None:
    assert min(each.shortest_side() for each in catalog) < 10
    counts = shop.stats().models[MODEL]
    assert counts is not None
    assert (counts.indexed, counts.failed, counts.missing) == (len(catalog), 0, 0)


def test_transparency_is_white(shop: Vitrine, catalog: list[Stamp]) -> None:
    def score(each: Stamp) -> float:
        answer = shop.search([ImagePart(each.on(WHITE))], model=MODEL, limit=10)
        return {hit.product_id: hit.score for hit in answer.results}.get(each.product_id, 0.0)

    scores = at_once(score, drawn(catalog))
    print(f"{len(scores)} of {len(catalog)} stamps on white: least cosine with themselves {min(scores):.4f}")
    assert min(scores) >= 0.995


def test_a_cut_out_is_found_on_another_background(shop: Vitrine, catalog: list[Stamp]) -> None:
    def found(each: Stamp) -> int | None:
        return rank(shop.search([ImagePart(each.on(BEIGE, 0.2))], limit=10), each.product_id)

    ranks = at_once(found, drawn(catalog))
    print(f"{len(ranks)} stamps on beige: recall@1 {recall(ranks, 1):.3f}, @10 {recall(ranks, 10):.3f}")
    assert recall(ranks, 10) >= 0.85


def test_a_title_is_found_in_every_language(shop: Vitrine, catalog: list[Stamp]) -> None:
    named: dict[str, set[str]] = defaultdict(set)
    bearers: dict[str, set[str]] = defaultdict(set)
    for each in catalog:
        for language, title in each.titles.items():
            named[language].add(title)
            bearers[title.casefold()].add(each.product_id)

    def found(title: str) -> int | None:
        answer = shop.search(title, keyword_weight=1, limit=10)
        # Languages share titles, and so do stamps.
        places = (rank(answer, product_id) for product_id in bearers[title.casefold()])
        return min((place for place in places if place is not None), default=None)

    ranks: dict[str, list[int | None]] = {}
    for language, titles in sorted(named.items()):
        ranks[language] = at_once(found, random.Random(7).sample(sorted(titles), min(TITLES, len(titles))))
    every = [each for of_language in ranks.values() for each in of_language]
    lowest = sorted((recall(of_language, 1), language) for language, of_language in ranks.items())[:5]
    print(
        f"{len(every)} titles in {len(ranks)} languages: recall@1 {recall(every, 1):.3f}, "
        f"@10 {recall(every, 10):.3f}; lowest recall@1: {lowest}"
    )
    assert len(ranks) >= 75
    assert recall(every, 1) >= 0.93
    assert recall(every, 10) >= 0.97
