"""How products are found by words."""

from collections.abc import Sequence
from typing import Protocol

from core.filters import Filter
from core.types import Hit


class LexicalIndex(Protocol):
    """Full-text search over what is written about products. Blocking; safe to call from anywhere.

    Products are found by the words of their id, title, attributes, description and captions, from the
    moment that these are stored. Every method may raise Unavailable.
    """

    def search(
        self,
        words: str,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
        every_word: bool = True,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """Find the `limit` products with pictures that fit best, each by its first picture.

        A product fits when it holds every one of the words, or with `every_word=False` at least one.
        `words` may be any text. Best first, ties by product id; scores are comparable within one answer
        only. Fewer hits come back only when fewer products fit, under the filter and without the
        excluded ones.

        Raises:
            DeadlineExceeded: it took longer than `timeout_s`, and has stopped.
        """
        ...
