"""Requests of the client's methods, built without sending them.

`Vitrine` and `AsyncVitrine` send them; the methods there say what the arguments mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vitrine.query import ImageInput, Query, encode_image, encode_query, is_url
from vitrine.schemas.embeddings import CaptionResponse, EmbeddingsResponse, EmbedResponse, Modality
from vitrine.schemas.operations import (
    ApiKey,
    CreateKeyResponse,
    GapsResponse,
    Job,
    Model,
    ModelVersion,
    ReadyResponse,
    RowError,
    Scope,
    StatsResponse,
)
from vitrine.schemas.products import AttributesResponse, Product, PutProductResponse, ThumbnailSize
from vitrine.schemas.search import CompareResponse, SearchResponse
from vitrine.transport import Call, content, json_of, nothing, path, text


def given(**values: Any) -> dict[str, Any]:
    """Keep the values that are not None; the service decides about the others."""
    return {name: value for name, value in values.items() if value is not None}


# Products


def put_product(
    product_id: str,
    title: str,
    description: str,
    attributes: Mapping[str, Any] | None,
    images: Sequence[ImageInput] | None,
) -> Call[PutProductResponse]:
    body: dict[str, Any] = {"title": title, "description": description, "attributes": dict(attributes or {})}
    if images is not None:
        body["images"] = [encode_image(image) for image in images]
    return Call("PUT", path("products", product_id), json_of(PutProductResponse), json=body)


def product(product_id: str) -> Call[Product]:
    return Call("GET", path("products", product_id), json_of(Product))


def product_page(limit: int, after: str | None) -> Call[list[Product]]:
    return Call("GET", path("products"), json_of(list[Product]), params=given(limit=limit, after=after))


def delete_product(product_id: str) -> Call[None]:
    return Call("DELETE", path("products", product_id), nothing)


def image(image_id: str) -> Call[bytes]:
    return Call("GET", path("images", image_id), content)


def thumbnail(image_id: str, size: ThumbnailSize) -> Call[bytes]:
    return Call("GET", path("images", image_id, "thumbnail"), content, params={"size": size})


def attributes() -> Call[AttributesResponse]:
    return Call("GET", path("attributes"), json_of(AttributesResponse))


# Search


def search(query: Query, **options: Any) -> Call[SearchResponse]:
    body = given(query=encode_query(query), **options)
    return Call("POST", path("search"), json_of(SearchResponse), json=body)


def compare(query: Query, **options: Any) -> Call[CompareResponse]:
    body = given(query=encode_query(query), **options)
    return Call("POST", path("compare"), json_of(CompareResponse), json=body)


def similar(product_id: str, **options: Any) -> Call[SearchResponse]:
    params = given(**options)
    return Call("GET", path("products", product_id, "similar"), json_of(SearchResponse), params=params)


# Embeddings and captions


def embed(model: str, text: str | None, image: ImageInput | None) -> Call[EmbedResponse]:
    body = given(text=text, **_image_field(image))
    return Call("POST", path("embed", model), json_of(EmbedResponse), json=body)


def embed_texts(model: str, texts: Sequence[str]) -> Call[EmbeddingsResponse]:
    return _embed_many(model, "text", list(texts))


def embed_images(model: str, images: Sequence[ImageInput]) -> Call[EmbeddingsResponse]:
    return _embed_many(model, "image", [encode_image(image) for image in images])


def caption(image: ImageInput, model: str | None) -> Call[CaptionResponse]:
    body = given(model=model, **_image_field(image))
    return Call("POST", path("caption"), json_of(CaptionResponse), json=body)


def _embed_many(model: str, modality: Modality, inputs: Sequence[str]) -> Call[EmbeddingsResponse]:
    body = {"model": model, "modality": modality, "input": inputs}
    return Call("POST", path("embeddings"), json_of(EmbeddingsResponse), json=body)


def _image_field(image: ImageInput | None) -> dict[str, str]:
    if image is None:
        return {}
    return {"image_url" if is_url(image) else "image": encode_image(image)}


# Models and status


def models() -> Call[list[Model]]:
    return Call("GET", path("models"), json_of(list[Model]))


def versions(model: str) -> Call[list[ModelVersion]]:
    return Call("GET", path("models", model, "versions"), json_of(list[ModelVersion]))


def gaps(model: str, fingerprint: str, limit: int | None) -> Call[GapsResponse]:
    place = path("models", model, "versions", fingerprint, "gaps")
    return Call("GET", place, json_of(GapsResponse), params=given(limit=limit))


def stats() -> Call[StatsResponse]:
    return Call("GET", path("stats"), json_of(StatsResponse))


def ready() -> Call[ReadyResponse]:
    return Call("GET", "/health/ready", json_of(ReadyResponse), repeatable=False, accepted_statuses=(503,))


# Jobs


def submit_job(kind: str, args: Mapping[str, Any]) -> Call[Job]:
    body = {"kind": kind, "args": dict(args)}
    return Call("POST", path("jobs"), json_of(Job), json=body, repeatable=False)


def list_jobs(limit: int | None) -> Call[list[Job]]:
    return Call("GET", path("jobs"), json_of(list[Job]), params=given(limit=limit))


def job(job_id: str) -> Call[Job]:
    return Call("GET", path("jobs", job_id), json_of(Job))


def job_logs(job_id: str, lines: int | None) -> Call[str]:
    return Call("GET", path("jobs", job_id, "logs"), text, params=given(lines=lines))


def job_report(job_id: str) -> Call[bytes]:
    return Call("GET", path("jobs", job_id, "report"), content)


def job_errors(job_id: str, limit: int | None, after: int | None) -> Call[list[RowError]]:
    params = given(limit=limit, after=after)
    return Call("GET", path("jobs", job_id, "errors"), json_of(list[RowError]), params=params)


def cancel_job(job_id: str) -> Call[Job]:
    return Call("DELETE", path("jobs", job_id), json_of(Job), repeatable=False)


# API keys


def create_key(
    name: str, scopes: Sequence[Scope], requests_per_s: float | None, burst: int | None
) -> Call[CreateKeyResponse]:
    body = given(name=name, scopes=list(scopes), requests_per_s=requests_per_s, burst=burst)
    return Call("POST", path("keys"), json_of(CreateKeyResponse), json=body, repeatable=False)


def list_keys() -> Call[list[ApiKey]]:
    return Call("GET", path("keys"), json_of(list[ApiKey]))


def revoke_key(key_id: str) -> Call[None]:
    return Call("DELETE", path("keys", key_id), nothing)
