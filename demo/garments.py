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
"""Types whose names are plural already."""

_SPLIT_SEED = 7
_NEVER_TRAINED = 0.1
PLURALS = {name: name if name in PAIRS else name + ("es" if name.endswith("s") else "s") for name in TYPES}
_GLUE = ("a", "an", "the", "of", "on", "in", "with", "and", "photo", "image", "background", "product")
WORDS = tuple(dict.fromkeys([*_GLUE, *TYPES, *PLURALS.values(), *COLORS, *PATTERNS, *BACKGROUNDS]))
"""Vocabulary of the demo's models with a text tower."""
_PREFIXES, _PREFIX_SHARES = ("a ", "", "a photo of a "), (0.5, 0.3, 0.2)
_MENTION_SHARES = (0.45, 0.15, 0.15, 0.13, 0.12)
_OPENINGS = (
    "Made for everyday wear",
    "Cut for an easy fit",
    "A favorite of the season",
    "Light and comfortable",
)
_CLOTHS = ("cotton", "linen", "wool", "recycled fiber")


@dataclass(frozen=True, slots=True)
class Design:
    """A garment in four attributes; a search should match `type`, `color` and `pattern`."""

    type: str
    color: str
    pattern: str
    background: str

    @property
    def garment(self) -> tuple[str, str, str]:
        """Type, color and pattern; designs that share them are relevant for each other."""
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
    """Yield all 500 combinations of type, color and pattern."""
    return product(TYPES, COLORS, PATTERNS)


def split_garments() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Split the combinations into those to train on and the tenth held out, in a fixed shuffled order."""
    everything = list(garments())
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything))
    held_out = round(len(everything) * _NEVER_TRAINED)
    shuffled = [everything[place] for place in order]
    return shuffled[held_out:], shuffled[:held_out]


Mentioned = tuple[bool, bool, bool, bool]
"""Flags of a caption: it names the type, the color, the pattern, the background."""

_MENTIONS: tuple[Mentioned, ...] = (
    (True, True, True, False),
    (True, True, True, True),
    (True, False, False, False),
    (True, True, False, False),
    (True, False, True, False),
)


def caption(design: Design, attributes: Sequence[str] = ("color", "pattern"), prefix: str = "a ") -> str:
    """Name the type and the attributes asked for, of `color`, `pattern` and `background`.

    Color and pattern keep the order asked for; `prefix` stands before the phrase, as in "a photo of a ".
    """
    adjectives = [getattr(design, name) for name in attributes if name != "background"]
    behind = f" on a {design.background} background" if "background" in attributes else ""
    return prefix + " ".join([*adjectives, design.type]) + behind


def random_caption(design: Design, rng: np.random.Generator) -> tuple[str, Mentioned]:
    """Write a caption that names a random subset of the attributes; returns it and which it names.

    With complete captions alone a model leans on color and never learns the garment's shape.
    """
    mentioned = _MENTIONS[rng.choice(len(_MENTIONS), p=_MENTION_SHARES)]
    named = [
        name
        for name, is_named in zip(("color", "pattern", "background"), mentioned[1:], strict=True)
        if is_named
    ]
    if rng.random() < 0.25:
        named.reverse()
    text = caption(design, named, prefix=str(rng.choice(_PREFIXES, p=_PREFIX_SHARES)))
    if text.startswith("a ") or rng.random() < 0.5:
        return text, mentioned
    return text.replace(design.type, PLURALS[design.type]), mentioned


def title(design: Design, brand: str) -> str:
    """Name a product, as in "Striped red dress by Marlow"."""
    named = ("color",) if design.pattern == "plain" else ("pattern", "color")
    return f"{caption(design, named, prefix='').capitalize()} by {brand}"


def description(design: Design, rng: np.random.Generator) -> str:
    """Write two sentences as a shop would."""
    opening, fabric = rng.choice(_OPENINGS), rng.choice(_CLOTHS)
    subject = f"These {design.type} come" if design.type in PAIRS else f"This {design.type} comes"
    return f"{opening}. {subject} in {design.color} {fabric}, {design.pattern}."
