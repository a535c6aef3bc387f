"""What the service answers to many inputs at once; each stands or falls alone."""

from typing import Any, Literal

from vitrine.answers import Answer


class EmbeddingItem(Answer):
    """A unit vector, and the place of its input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float]


class FailedItem(Answer):
    """An input that could not be embedded: `error` has the type, the message and the field."""

    object: Literal["embedding"]
    index: int
    embedding: None
    error: dict[str, Any]


class Usage(Answer):
    """OpenAI's count of tokens, which the service leaves at 0."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    """One item for each input, in their order, all by one model version."""

    object: Literal["list"]
    data: list[EmbeddingItem | FailedItem]
    model: str
    fingerprint: str
    usage: Usage
    id: str
    created: int
