import numpy as np
import pytest

from demo.captions import PLURALS, WORDS, caption, random_caption
from demo.looks import Look

LOOK = Look("dress", "red", "striped", "wooden")


@pytest.mark.parametrize(
    ("attributes", "prefix", "words"),
    [
        (["colour", "pattern"], "a ", "a red striped dress"),
        (["pattern", "colour"], "", "striped red dress"),
        (["colour"], "a photo of a ", "a photo of a red dress"),
        (["colour", "background"], "a ", "a red dress on a wooden background"),
        ([], "", "dress"),
    ],
)
def test_a_caption_names_what_is_asked_for(attributes: list[str], prefix: str, words: str) -> None:
    assert caption(LOOK, attributes, prefix) == words


def test_a_random_caption_names_exactly_what_it_reports() -> None:
    rng = np.random.default_rng(0)
    told = ({"dress", "dresses"}, {"red"}, {"striped"}, {"wooden"})
    for _ in range(200):
        words, mentioned = random_caption(LOOK, rng)
        assert tuple(bool(names & set(words.split())) for names in told) == mentioned


def test_every_word_of_a_random_caption_is_in_the_vocabulary() -> None:
    rng = np.random.default_rng(1)
    words = {word for _ in range(200) for word in random_caption(LOOK, rng)[0].split()}
    assert words <= set(WORDS)


def test_plurals_are_english() -> None:
    assert (PLURALS["dress"], PLURALS["hat"], PLURALS["shorts"]) == ("dresses", "hats", "shorts")
