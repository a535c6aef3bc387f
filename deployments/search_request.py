"""What a search is asked, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.ensemble import ENSEMBLE, Fusion
from core.errors import InvalidInput
from core.filters import Filter
from core.hybrid import is_words_only, positive_words
from core.search import QueryPart, QueryVector, StoredPart
from core.types import EncoderInfo, EncoderInput, Hit, Product
from deployments.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class Request:
    """A search as the caller means it: parts, a model or the ensemble, and a page."""

    parts: tuple[QueryPart, ...]
    model: str = ENSEMBLE
    limit: int = 10
    offset: int = 0
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    fusion: Fusion | None = None
    lexical_weight: float | None = None
    threshold: Threshold = field(default_factory=Threshold)
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse options that do not apply to what is asked.

        Raises:
            InvalidInput: options of the ensemble for one model, a threshold that is none, a lexical weight
                beside a threshold or without words.
        """
        if self.model != ENSEMBLE:
            for option, value in (("weights", self.weights), ("fusion", self.fusion)):
                if value is not None:
                    message = f"{option!r} applies to the ensemble only, not to model {self.model!r}"
                    raise InvalidInput(message).at(option)
        self.threshold.check(self.model)
        if not self.lexical_weight:
            return
        if self.threshold:
            message = "a threshold is about vectors: leave `lexical_weight` out, or 0"
            raise InvalidInput(message).at("lexical_weight")
        if not positive_words(self.parts):
            message = "a lexical weight needs words of a positive weight in the query"
            raise InvalidInput(message).at("lexical_weight")

    def share_of_words(self, configured: float) -> float:
        """The share of the ranking by words: what is asked for, else what is configured where it applies."""
        if self.threshold:
            return 0.0
        if self.lexical_weight is not None:
            return self.lexical_weight
        # Pictures and stored products say what to look for better than the words beside them.
        return configured if self.model == ENSEMBLE and is_words_only(self.parts) else 0.0


def to_encode(parts: Sequence[QueryPart]) -> list[EncoderInput]:
    """What a model has to encode of a query: the parts that the catalog does not hold already."""
    return [part.content for part in parts if not isinstance(part.content, StoredPart)]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of products, best first, and how it came about."""

    results: list[tuple[Hit, Product]]
    infos: list[EncoderInfo]
    weights: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    degraded: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)
    lexical_weight: float = 0.0
    thresholds: dict[str, float] = field(default_factory=dict)
    incomplete: dict[str, str] = field(default_factory=dict)
