"""How much the words of products count."""

from pydantic import Field

from core.config import Config


class LexicalConfig(Config):
    """Lexical search beside the search by vectors."""

    weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the words' own ranking when the ensemble is asked for words and the request "
        "does not say: 0 ranks by vectors alone, 1 by words alone.",
    )
    deadline_s: float = Field(2.0, gt=0, description="How long the lexical search may take, in seconds.")
