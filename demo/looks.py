"""What a drawn garment looks like in words: the attributes, their values, and which were never trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

TYPES = ("dress", "shirt", "trousers", "skirt", "coat", "shorts", "shoe", "bag", "hat", "scarf")
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "pink", "brown")
PATTERNS = ("plain", "striped", "dotted", "checked", "floral")
BACKGROUNDS = ("white", "grey", "beige", "wooden")
PAIRS = ("trousers", "shorts")
"""Types that are plural already."""

_SPLIT_SEED = 7
_NEVER_TRAINED = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """A garment as words describe it; `type`, `colour` and `pattern` are what a search should match."""

    type: str
    colour: str
    pattern: str
    background: str

    @property
    def garment(self) -> tuple[str, str, str]:
        """Type, colour and pattern: two looks with the same are relevant for each other."""
        return (self.type, self.colour, self.pattern)

    @property
    def labels(self) -> tuple[int, int, int, int]:
        """Places of the four attributes in their vocabularies."""
        return (
            TYPES.index(self.type),
            COLOURS.index(self.colour),
            PATTERNS.index(self.pattern),
            BACKGROUNDS.index(self.background),
        )


def garments() -> Iterator[tuple[str, str, str]]:
    """All 500 combinations of type, colour and pattern."""
    return product(TYPES, COLOURS, PATTERNS)


def split_garments() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """The combinations that are trained and the tenth that never is, both in a fixed shuffled order."""
    everything = list(garments())
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything))
    held_out = round(len(everything) * _NEVER_TRAINED)
    shuffled = [everything[place] for place in order]
    return shuffled[held_out:], shuffled[:held_out]
