"""Words for looks: captions to train and search with, titles and descriptions for the catalogue."""

from collections.abc import Sequence

import numpy as np

from demo.looks import BACKGROUNDS, COLOURS, PAIRS, PATTERNS, TYPES, Look

PLURALS = {name: name if name in PAIRS else name + ("es" if name.endswith("s") else "s") for name in TYPES}
_GLUE = ("a", "an", "the", "of", "on", "in", "with", "and", "photo", "picture", "background", "product")
WORDS = tuple(dict.fromkeys([*_GLUE, *TYPES, *PLURALS.values(), *COLOURS, *PATTERNS, *BACKGROUNDS]))
"""All words that the demo's models with a text tower know."""

Mentioned = tuple[bool, bool, bool, bool]
"""Whether words name the type, the colour, the pattern and the background."""

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
    "A favourite of the season",
    "Light and comfortable",
)
_CLOTHS = ("cotton", "linen", "wool", "recycled fibre")


def caption(look: Look, attributes: Sequence[str] = ("colour", "pattern"), prefix: str = "a ") -> str:
    """A phrase that names the type and those of `colour`, `pattern` and `background` that are asked for.

    The first two stand in the order asked for; `prefix` stands before the phrase, as in "a photo of a ".
    """
    words = [getattr(look, name) for name in attributes if name != "background"]
    behind = f" on a {look.background} background" if "background" in attributes else ""
    return prefix + " ".join([*words, look.type]) + behind


def random_caption(look: Look, rng: np.random.Generator) -> tuple[str, Mentioned]:
    """A caption that names a random subset of the attributes, and which it names.

    Whole captions alone would let a model lean on colour and never learn the garment's shape.
    """
    mentioned = _MENTIONS[rng.choice(len(_MENTIONS), p=_MENTION_SHARES)]
    named = [
        name for name, told in zip(("colour", "pattern", "background"), mentioned[1:], strict=True) if told
    ]
    if rng.random() < 0.25:
        named.reverse()
    words = caption(look, named, prefix=str(rng.choice(_PREFIXES, p=_PREFIX_SHARES)))
    if words.startswith("a ") or rng.random() < 0.5:
        return words, mentioned
    return words.replace(look.type, PLURALS[look.type]), mentioned


def title(look: Look, brand: str) -> str:
    """A product's name, such as "Striped red dress by Marlow"."""
    named = ("colour",) if look.pattern == "plain" else ("pattern", "colour")
    return f"{caption(look, named, prefix='').capitalize()} by {brand}"


def description(look: Look, rng: np.random.Generator) -> str:
    """Two sentences as a shop would write them."""
    opening, fabric = rng.choice(_OPENINGS), rng.choice(_CLOTHS)
    subject = f"These {look.type} come" if look.type in PAIRS else f"This {look.type} comes"
    return f"{opening}. {subject} in {look.colour} {fabric}, {look.pattern}."
