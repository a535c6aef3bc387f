"""Embed by other people's clients and print what they return: `python embedding_clients.py URL`.

It runs in an environment of its own, .venv-clients, and imports nothing of Vitrine.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

TEXTS = ["a red dress", "blue"]
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX/QACAgIAuXkqhAAAAGklEQVR42mNkYGBg"
    "+M/AwMDEAAWjjFEG8QwAyyMBf5gYzUkAAAAASUVORK5CYII="
)
MODEL, KEY = "both", "unused"
Vectors = list[list[float]]


def openai(url: str) -> Vectors:
    from openai import OpenAI

    answer = OpenAI(base_url=f"{url}/v1", api_key=KEY).embeddings.create(model=MODEL, input=[*TEXTS, IMAGE])
    return [item.embedding for item in answer.data]


def litellm(url: str, provider: str = "openai", **options: Any) -> Vectors:
    from litellm import embedding

    answer = embedding(f"{provider}/{MODEL}", [*TEXTS, IMAGE], api_base=f"{url}/v1", api_key=KEY, **options)
    return [item["embedding"] for item in answer.data]


def litellm_as_infinity(url: str) -> Vectors:
    return litellm(url, "infinity")


def litellm_as_vllm(url: str) -> Vectors:
    return litellm(url, "hosted_vllm", user="shop")


def langchain(url: str) -> Vectors:
    from langchain_openai import OpenAIEmbeddings

    client = OpenAIEmbeddings(
        model=MODEL, base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    return client.embed_documents([*TEXTS, IMAGE])


def llama_index(url: str) -> Vectors:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    client = OpenAILikeEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key=KEY)
    return client.get_text_embedding_batch([*TEXTS, IMAGE])


def infinity(url: str) -> Vectors:
    from infinity_client import Client
    from infinity_client.api.default import embeddings
    from infinity_client.models import OpenAIEmbeddingInputImage, OpenAIEmbeddingInputText

    client = Client(base_url=f"{url}/v1")
    bodies = OpenAIEmbeddingInputText(input_=TEXTS), OpenAIEmbeddingInputImage(input_=[IMAGE])
    answers = [embeddings.sync(client=client, body=body) for body in bodies]
    return [item.embedding for answer in answers for item in answer.data]


CLIENTS: dict[str, Callable[[str], Vectors]] = {
    each.__name__: each
    for each in (openai, litellm, litellm_as_infinity, litellm_as_vllm, langchain, llama_index, infinity)
}

if __name__ == "__main__":
    print(json.dumps({name: embed(sys.argv[1]) for name, embed in CLIENTS.items()}))
