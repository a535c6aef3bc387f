"""Words for looks: captions to train and search with, titles and descriptions for the catalogue."""

from collections.abc import Sequence

import numpy as np

from demo.looks import Look

_PAIRS = ("trousers", "shorts")
_OPENINGS = (
    "Made for everyday wear",
    "Cut for an easy fit",
    "A favourite of the season",
    "Light and comfortable",
)
_CLOTHS = ("cotton", "linen", "wool", "recycled fibre")


def caption(look: Look, attributes: Sequence[str] = ("colour", "pattern"), prefix: str = "a ") -> str:
    """A phrase that names the type and those of `colour`, `pattern` and `background` that are asked for.

    `prefix` stands before the phrase, as in "a photo of a ".
    """
    words = [getattr(look, name) for name in ("colour", "pattern") if name in attributes]
    behind = f" on a {look.background} background" if "background" in attributes else ""
    return prefix + " ".join([*words, look.type]) + behind


def title(look: Look, brand: str) -> str:
    """A product's name, such as "Striped red dress by Marlow"."""
    words = (
        f"{look.pattern} {look.colour} {look.type}"
        if look.pattern != "plain"
        else f"{look.colour} {look.type}"
    )
    return f"{words.capitalize()} by {brand}"


def description(look: Look, rng: np.random.Generator) -> str:
    """Two sentences as a shop would write them."""
    opening, fabric = rng.choice(_OPENINGS), rng.choice(_CLOTHS)
    article = "These" if look.type in _PAIRS else "This"
    verb = "come" if look.type in _PAIRS else "comes"
    return f"{opening}. {article} {look.type} {verb} in {look.colour} {fabric}, {look.pattern}."
