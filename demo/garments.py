"""Garments of the demo in words: attributes, captions, titles and descriptions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

TYPES = ("dress", "shirt", "trousers", "skirt", "coat", "shorts", "shoe", "bag", "hat", "scarf")
COLORS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "pink", "brown")
PATTERNS = ("plain", "striped", "dotted", "checked", "floral")
BACKGROUNDS = ("white", "gray", "beige", "wooden")
PAIRS = ("trousers", "shorts")
"""Types that are plural already."""

_SPLIT_SEED = 7
_NEVER_TRAINED = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """A garment as words describe it; `type`, `color` and `pattern` are what a search should match."""

    type: str
    color: str
    pattern: str
    background: str

    @property
    def garment(self) -> tuple[str, str, str]:
        """Type, color and pattern: two looks with the same are relevant for each other."""
        return (self.type, self.color, self.pattern)

    @property
    def labels(self) -> tuple[int, int, int, int]:
        """Places of the four attributes in their vocabularies."""
        return (
            TYPES.index(self.type),
            COLORS.index(self.color),
            PATTERNS.index(self.pattern),
            BACKGROUNDS.index(self.background),
        )


def garments() -> Iterator[tuple[str, str, str]]:
    """All 500 combinations of type, color and pattern."""
    return product(TYPES, COLORS, PATTERNS)


def split_garments() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """The combinations that are trained and the tenth that never is, both in a fixed shuffled order."""
    everything = list(garments())
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything))
    held_out = round(len(everything) * _NEVER_TRAINED)
    shuffled = [everything[place] for place in order]
    return shuffled[held_out:], shuffled[:held_out]


PLURALS = {name: name if name in PAIRS else name + ("es" if name.endswith("s") else "s") for name in TYPES}
_GLUE = ("a", "an", "the", "of", "on", "in", "with", "and", "photo", "image", "background", "product")
WORDS = tuple(dict.fromkeys([*_GLUE, *TYPES, *PLURALS.values(), *COLORS, *PATTERNS, *BACKGROUNDS]))
"""All words that the demo's models with a text tower know."""

Mentioned = tuple[bool, bool, bool, bool]
"""Whether words name the type, the color, the pattern and the background."""

_PREFIXES, _PREFIX_SHARES = ("a ", "", "a photo of a "), (0.5, 0.3, 0.2)
_MENTIONS: tuple[Mentioned, ...] = (
    (True, True, True, False),
    (True, True, True, True),
    (True, False, False, False),
    (True, True, False, False),
    (True, False, True, False),
)
_MENTION_SHARES = (0.45, 0.15, 0.15, 0.13, 0.12)
_OPENINGS = (
    "Made for everyday wear",
    "Cut for an easy fit",
    "A favorite of the season",
    "Light and comfortable",
)
_CLOTHS = ("cotton", "linen", "wool", "recycled fibre")


def caption(look: Look, attributes: Sequence[str] = ("color", "pattern"), prefix: str = "a ") -> str:
    """A phrase that names the type and those of `color`, `pattern` and `background` that are asked for.

    The first two stand in the order asked for; `prefix` stands before the phrase, as in "a photo of a ".
    """
    words = [getattr(look, name) for name in attributes if name != "background"]
    behind = f" on a {look.background} background" if "background" in attributes else ""
    return prefix + " ".join([*words, look.type]) + behind


def random_caption(look: Look, rng: np.random.Generator) -> tuple[str, Mentioned]:
    """A caption that names a random subset of the attributes, and which it names.

    Whole captions alone would let a model lean on color and never learn the garment's shape.
    """
    mentioned = _MENTIONS[rng.choice(len(_MENTIONS), p=_MENTION_SHARES)]
    named = [
        name for name, told in zip(("color", "pattern", "background"), mentioned[1:], strict=True) if told
    ]
    if rng.random() < 0.25:
        named.reverse()
    words = caption(look, named, prefix=str(rng.choice(_PREFIXES, p=_PREFIX_SHARES)))
    if words.startswith("a ") or rng.random() < 0.5:
        return words, mentioned
    return words.replace(look.type, PLURALS[look.type]), mentioned


def title(look: Look, brand: str) -> str:
    """A product's name, such as "Striped red dress by Marlow"."""
    named = ("color",) if look.pattern == "plain" else ("pattern", "color")
    return f"{caption(look, named, prefix='').capitalize()} by {brand}"


def description(look: Look, rng: np.random.Generator) -> str:
    """Two sentences as a shop would write them."""
    opening, fabric = rng.choice(_OPENINGS), rng.choice(_CLOTHS)
    subject = f"These {look.type} come" if look.type in PAIRS else f"This {look.type} comes"
    return f"{opening}. {subject} in {look.color} {fabric}, {look.pattern}."
