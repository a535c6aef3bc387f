"""Queries whose answers are known."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.search import QueryPart
from core.types import EncoderInput


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """Words, a picture file or both, and how well products answer them: grades above 0 by product id.

    `kind` tells which queries are summed up together: what words find says nothing of pictures.
    """

    query_id: str
    kind: str
    words: str | None
    picture: bytes | None
    grades: Mapping[str, int]

    @property
    def inputs(self) -> tuple[EncoderInput, ...]:
        """What an encoder is given."""
        return tuple(each for each in (self.words, self.picture) if each is not None)

    @property
    def parts(self) -> tuple[QueryPart, ...]:
        """What is searched for: words and picture count alike."""
        return tuple(QueryPart(content) for content in self.inputs)
