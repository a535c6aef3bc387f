"""Calls of the API: from arguments to a request, without sending it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from vitrine.query import ImageInput, Query, encoded, is_url, written
from vitrine.schemas import (
    Attributes,
    Caption,
    Comparison,
    Embedding,
    Embeddings,
    Gaps,
    Job,
    Key,
    Model,
    NewKey,
    Page,
    Product,
    Ready,
    RowError,
    Scope,
    Stats,
    Version,
    Written,
)
from vitrine.transport import Call, content, given, nothing, path, reader, text

_WRITTEN, _PRODUCT, _PRODUCTS = reader(Written), reader(Product), reader(list[Product])
_ATTRIBUTES = reader(Attributes)


def put_product(
    product_id: str,
    *,
    title: str = "",
    description: str = "",
    attributes: Mapping[str, Any] | None = None,
    images: Sequence[ImageInput] | None = None,
) -> Call[Written]:
    """Create or replace a product; it is durable when this returns.

    `images` are paths, bytes or URLs, in order. None keeps those that the product has, an empty list
    removes them.

    Raises:
        InvalidRequest: an image cannot be read, a limit is exceeded …; `param` names the field.
        FetchFailed: a server behind a URL failed.
        OSError: an image's file cannot be read.
    """
    body: dict[str, Any] = {"title": title, "description": description, "attributes": dict(attributes or {})}
    if images is not None:
        body["images"] = [encoded(image) for image in images]
    return Call("PUT", path("products", product_id), _WRITTEN, json=body)


def product(product_id: str) -> Call[Product]:
    """Read a product; NotFound when there is none."""
    return Call("GET", path("products", product_id), _PRODUCT)


def product_page(limit: int = 100, after: str | None = None) -> Call[list[Product]]:
    """Read a page of products, by id; `after` is the last id of the page before."""
    return Call("GET", path("products"), _PRODUCTS, params=given(limit=limit, after=after))


def delete_product(product_id: str) -> Call[None]:
    """Remove a product, its images and its vectors; NotFound when there is none."""
    return Call("DELETE", path("products", product_id), nothing)


def image(image_id: str) -> Call[bytes]:
    """Read an image file as it was sent; NotFound when there is none."""
    return Call("GET", path("images", image_id), content)


def thumbnail(image_id: str, size: Literal["small", "large"] = "small") -> Call[bytes]:
    """Read an image as WebP with at most 320 or 960 pixels a side; NotFound when there is none."""
    return Call("GET", path("images", image_id, "thumbnail"), content, params={"size": size})


def attributes() -> Call[Attributes]:
    """Say which attributes products have, and which values: what a filter can ask for."""
    return Call("GET", path("attributes"), _ATTRIBUTES)


_PAGE, _COMPARISON = reader(Page), reader(Comparison)


class PageOptions(TypedDict, total=False):
    """Which page of what is near enough; what is left out is for the service to decide."""

    limit: int | None
    offset: int | None
    score_threshold: float | None
    max_false_match_rate: float | None


class Options(PageOptions, total=False):
    """What a search may say beside its query."""

    filter: Mapping[str, Any] | None
    weights: Mapping[str, float] | None
    fusion: Literal["rrf", "weighted"] | None
    keyword_weight: float | None
    exclude: Sequence[str] | None
    include_query_products: bool | None


def search(query: Query, *, model: str | None = None, **options: Unpack[Options]) -> Call[Page]:
    """Find products by words, an image, or weighted parts.

    Raises:
        InvalidRequest: something is wrong; `param` names the field.
        NotFound: there is no such model, product or image.
        OSError: an image's file cannot be read.
    """
    body = given(query=written(query), model=model, **options)
    return Call("POST", path("search"), _PAGE, json=body)


def compare(
    query: Query, *, models: Sequence[str] | None = None, **options: Unpack[Options]
) -> Call[Comparison]:
    """Find products with each of the models; None: with every encoder and the ensemble. As `search`."""
    body = given(query=written(query), models=models if models is None else list(models), **options)
    return Call("POST", path("compare"), _COMPARISON, json=body)


def similar(product_id: str, *, model: str | None = None, **options: Unpack[PageOptions]) -> Call[Page]:
    """Find products that look like this one; NotFound when there is none."""
    params = given(model=model, **options)
    return Call("GET", path("products", product_id, "similar"), _PAGE, params=params)


_EMBEDDING, _EMBEDDINGS, _CAPTION = reader(Embedding), reader(Embeddings), reader(Caption)


def embed(model: str, *, text: str | None = None, image: ImageInput | None = None) -> Call[Embedding]:
    """Return the unit vector of one text or one image.

    Raises:
        InvalidRequest: both or none are given, or the model takes no such input.
        NotFound: there is no such model.
    """
    body = given(text=text) if image is None else given(text=text, **_field(image))
    return Call("POST", path("embed", model), _EMBEDDING, json=body)


def embed_texts(model: str, texts: Sequence[str]) -> Call[Embeddings]:
    """Embed up to 2,048 texts; one that cannot be costs the others nothing.

    Raises:
        InvalidRequest: nothing could be embedded; `param` names the first input.
        NotFound: there is no such model.
    """
    return _many(model, "text", list(texts))


def embed_images(model: str, images: Sequence[ImageInput]) -> Call[Embeddings]:
    """Embed up to 64 images, paths, bytes or URLs; one that cannot be costs the others nothing.

    Raises:
        InvalidRequest: nothing could be embedded; `param` names the first input.
        NotFound: there is no such model.
        OSError: an image's file cannot be read.
    """
    return _many(model, "image", [encoded(image) for image in images])


def caption(image: ImageInput, *, model: str | None = None) -> Call[Caption]:
    """Describe an image in words; by default with the first model that can.

    Raises:
        InvalidRequest: the model writes no captions, or the image cannot be read.
        NotFound: there is no such model, or none that writes captions.
    """
    return Call("POST", path("caption"), _CAPTION, json=given(model=model, **_field(image)))


def _many(model: str, modality: str, inputs: Sequence[str]) -> Call[Embeddings]:
    body = {"model": model, "modality": modality, "input": inputs}
    return Call("POST", path("embeddings"), _EMBEDDINGS, json=body)


def _field(image: ImageInput) -> dict[str, str]:
    return {"image_url" if is_url(image) else "image": encoded(image)}


_MODELS, _VERSIONS = reader(list[Model]), reader(list[Version])
_STATS, _READY, _GAPS = reader(Stats), reader(Ready), reader(Gaps)


def models() -> Call[list[Model]]:
    """List the configured models with the versions that serve."""
    return Call("GET", path("models"), _MODELS)


def versions(model: str) -> Call[list[Version]]:
    """List the versions of a model that have a collection, oldest first."""
    return Call("GET", path("models", model, "versions"), _VERSIONS)


def gaps(model: str, fingerprint: str, limit: int | None = None) -> Call[Gaps]:
    """List images that a version lacks, and as many that have failed with the reason."""
    return Call(
        "GET", path("models", model, "versions", fingerprint, "gaps"), _GAPS, params=given(limit=limit)
    )


def stats() -> Call[Stats]:
    """Count products, images, and how far each model has come."""
    return Call("GET", path("stats"), _STATS)


def ready() -> Call[Ready]:
    """Ask whether everything works; what is not ready is told, not raised."""
    return Call("GET", "/health/ready", _READY, repeatable=False, also_good=(503,))


_JOB, _JOBS, _ERRORS = reader(Job), reader(list[Job]), reader(list[RowError])


def submit(kind: str, **args: Any) -> Call[Job]:
    """Start bulk work, such as `submit("build", model="dinov2")`.

    Raises:
        InvalidRequest: the kind or an argument is unknown or wrong.
        Conflict: an equal job is at work; the message holds its id.
    """
    return Call("POST", path("jobs"), _JOB, json={"kind": kind, "args": args}, repeatable=False)


def list_jobs(limit: int | None = None) -> Call[list[Job]]:
    """List the latest jobs, newest first."""
    return Call("GET", path("jobs"), _JOBS, params=given(limit=limit))


def get(job_id: str) -> Call[Job]:
    """Say how far a job is, or what it came to."""
    return Call("GET", path("jobs", job_id), _JOB)


def logs(job_id: str, lines: int | None = None) -> Call[str]:
    """Return the last lines that the job's process has written."""
    return Call("GET", path("jobs", job_id, "logs"), text, params=given(lines=lines))


def report(job_id: str) -> Call[bytes]:
    """Return the page, in HTML, that an evaluation has written; NotFound for jobs that write none."""
    return Call("GET", path("jobs", job_id, "report"), content)


def errors(job_id: str, limit: int | None = None, after: int | None = None) -> Call[list[RowError]]:
    """Say what was wrong with rows of an import, those behind row `after`."""
    return Call("GET", path("jobs", job_id, "errors"), _ERRORS, params=given(limit=limit, after=after))


def cancel(job_id: str) -> Call[Job]:
    """Stop a job; what it has done stays done. Conflict when it has ended."""
    return Call("DELETE", path("jobs", job_id), _JOB, repeatable=False)


_NEW, _KEYS = reader(NewKey), reader(list[Key])


def create(
    name: str, scopes: Sequence[Scope], *, requests_per_s: float | None = None, burst: int | None = None
) -> Call[NewKey]:
    """Make a key and show it this once; the first one must be an admin's, and closes the service to others."""
    body = given(name=name, scopes=list(scopes), requests_per_s=requests_per_s, burst=burst)
    return Call("POST", path("keys"), _NEW, json=body, repeatable=False)


def list_keys() -> Call[list[Key]]:
    """List all keys, revoked ones too, oldest first."""
    return Call("GET", path("keys"), _KEYS)


def revoke(key_id: str) -> Call[None]:
    """End a key for good."""
    return Call("DELETE", path("keys", key_id), nothing)
