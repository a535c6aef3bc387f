"""Answers with vectors: their schemas, and values that are read as the float32 that the model has given."""

import base64
import json

import numpy as np
import pytest

from core.errors import InvalidInput
from core.types import Encoded, EncoderInfo, TokenCount
from deployments.http.routes import embeddings
from vitrine.schemas.embeddings import EmbeddingItem, EmbeddingsResponse, EncodingFormat, FailedItem

INFO = EncoderInfo("model", "fake", "checkpoint", "f" * 12, 96, ("image", "text"), "fp32", "cpu")
VECTORS = list(np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32))
ENCODED = Encoded(INFO, [*VECTORS, InvalidInput("no image")], {}, TokenCount(7, 1))


def written(encoding: EncodingFormat) -> EmbeddingsResponse:
    text = embeddings._openai_json(ENCODED, encoding, "request-1")
    assert set(json.loads(text)) == set(EmbeddingsResponse.model_fields)
    return EmbeddingsResponse.model_validate_json(text)


def test_numbers_are_read_as_the_same_float32() -> None:
    *items, failed = written("float").data
    for vector, item in zip(VECTORS, items, strict=True):
        assert isinstance(item, EmbeddingItem)
        assert np.array_equal(np.asarray(item.embedding, np.float32), vector)
    assert isinstance(failed, FailedItem)
    assert failed.error == {
        "type": "invalid_input",
        "message": "no image",
        "param": "input[3]",
        "request_id": "request-1",
    }


def test_base64_holds_the_same_bytes() -> None:
    for vector, item in zip(VECTORS, written("base64").data[:3], strict=True):
        assert isinstance(item.embedding, str)
        assert base64.b64decode(item.embedding, validate=True) == vector.tobytes()


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_tokens_are_counted(encoding: EncodingFormat) -> None:
    answer = written(encoding)
    assert (answer.usage.prompt_tokens, answer.usage.truncated_inputs) == (7, 1)
    assert (answer.model, answer.fingerprint, answer.id) == ("model", "f" * 12, "embd-request-1")
