"""The client: one method for each call of the HTTP API."""

import builtins
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

import httpx

from vitrine.batches import (
    BatchOptions,
    BatchSummary,
    NewProduct,
    delete_operation,
    patch_operation,
    put_operation,
    send_all,
)
from vitrine.errors import TryLater
from vitrine.query import (
    CompareOptions,
    ImageInput,
    Query,
    SearchOptions,
    SimilarOptions,
    encode_images,
    encode_query,
    image_field,
)
from vitrine.schemas.embeddings import CaptionResponse, EmbeddingsResponse, EmbedResponse
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
from vitrine.transport import Call, Retries, Sender, connection, given, path, waiting


class Vitrine:
    """A client of a Vitrine service; safe to use from several threads.

    `url` is by default the variable VITRINE_URL, or else port 8000 of this machine. `key` is by default the variable
    VITRINE_KEY; an empty one is none. `timeout_s` bounds each attempt, in seconds. `retries` sets how often a call is
    repeated; only calls that are safe to repeat are. As a context manager, the client closes its connections.

    If the service answers with an error, every method raises a `ServiceError`. InvalidRequest: an argument is wrong,
    and `param` names it. NotFound: there is no such product, image, model or job. FetchFailed: the server behind a
    URL failed. A method that takes an image raises OSError if its file cannot be read.

    An argument that is None is not sent: the service then uses its default.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        http = httpx.Client(transport=transport, **connection(url, key, timeout_s))
        self._sender = Sender(http, retries)
        self._send = self._sender.send
        self.jobs = Jobs(self._sender)
        self.keys = Keys(self._sender)

    def put_product(
        self,
        product_id: str,
        *,
        title: str = "",
        description: str = "",
        attributes: Mapping[str, Any] | None = None,
        images: Sequence[ImageInput] | None = None,
        wait: bool = True,
    ) -> PutProductResponse:
        """Create or replace a product; it is durable when this returns.

        `images` are paths, bytes or URLs, in order. None keeps the product's images. An empty list removes them.
        Title, description and attributes that are left out become empty. It returns when the images are indexed, at
        the latest after some seconds, and with `wait=False` as soon as the product is durable.
        """
        body = given(
            title=title,
            description=description,
            attributes=dict(attributes or {}),
            images=None if images is None else encode_images(images),
        )
        place = path("products", product_id)
        return self._send(Call("PUT", place, PutProductResponse, params=waiting(wait), json=body))

    def patch_product(
        self, product_id: str, changes: Mapping[str, Any], *, wait: bool = True
    ) -> PutProductResponse:
        """Change title, description or attributes; what is left out stays, and the images too.

        `changes` are a JSON merge patch: `{"attributes": {"price": 9, "sale": None}}` sets an attribute and removes
        another. Raises NotFound if there is no such product.
        """
        place, body = path("products", product_id), dict(changes)
        return self._send(Call("PATCH", place, PutProductResponse, params=waiting(wait), json=body))

    def put_products(self, products: Iterable[NewProduct], **options: Unpack[BatchOptions]) -> BatchSummary:
        """Put any number of products, many in a request; those that fail are `errors` of the summary.

        The products are read as they are sent, so they may be more than fit into memory. Two with the same id are put
        in order. A request that fails as a whole is sent again, and then raised: others may be stored already.
        """
        return send_all(self._sender, map(put_operation, products), options)

    def patch_products(
        self, patches: Iterable[tuple[str, Mapping[str, Any]]], **options: Unpack[BatchOptions]
    ) -> BatchSummary:
        """Patch any number of products, given as pairs of an id and its changes.

        The items of a dict will do. All else is as for `put_products`.
        """
        return send_all(self._sender, map(patch_operation, patches), options)

    def delete_products(self, product_ids: Iterable[str], **options: Unpack[BatchOptions]) -> BatchSummary:
        """Delete any number of products.

        One that does not exist is an error with status 404. All else is as for `put_products`.
        """
        return send_all(self._sender, map(delete_operation, product_ids), options)

    def product(self, product_id: str) -> Product:
        """Read a product; raises NotFound if there is none."""
        return self._send(Call("GET", path("products", product_id), Product))

    def product_page(self, limit: int = 100, after: str | None = None) -> list[Product]:
        """Read a page of products in the order of their ids; `after` is the last id of the previous page."""
        params = given(limit=limit, after=after)
        return self._send(Call("GET", path("products"), list[Product], params=params))

    def products(self, page_size: int = 100, after: str | None = None) -> Iterator[Product]:
        """Iterate over the products after the id `after`, or over all, in the order of their ids."""
        while page := self.product_page(page_size, after):
            yield from page
            after = page[-1].product_id

    def delete_product(self, product_id: str) -> None:
        """Delete a product, its images and its vectors; raises NotFound if there is none."""
        self._send(Call("DELETE", path("products", product_id), type(None)))

    def image(self, image_id: str) -> bytes:
        """Read an original image file; raises NotFound if there is none."""
        return self._send(Call("GET", path("images", image_id), bytes))

    def thumbnail(self, image_id: str, size: ThumbnailSize = "small") -> bytes:
        """Read an image as WebP of at most 320 (small) or 960 pixels a side; raises NotFound if there is none."""
        return self._send(Call("GET", path("images", image_id, "thumbnail"), bytes, params={"size": size}))

    def attributes(self) -> AttributesResponse:
        """List the attributes that a filter can use, with their values."""
        return self._send(Call("GET", path("attributes"), AttributesResponse))

    def search(self, query: Query, **options: Unpack[SearchOptions]) -> SearchResponse:
        """Find products by a text, an image, or weighted parts.

        `model` is the name of an encoder, by default the ensemble. docs/searching.md describes the other options.
        """
        body = given(query=encode_query(query), **options)
        return self._send(Call("POST", path("search"), SearchResponse, json=body))

    def compare(self, query: Query, **options: Unpack[CompareOptions]) -> CompareResponse:
        """Search with each of the models, by default with every encoder and the ensemble."""
        body = given(query=encode_query(query), **options)
        return self._send(Call("POST", path("compare"), CompareResponse, json=body))

    def similar(self, product_id: str, **options: Unpack[SimilarOptions]) -> SearchResponse:
        """Find products that look like this one; raises NotFound if this one does not exist."""
        place = path("products", product_id, "similar")
        return self._send(Call("GET", place, SearchResponse, params=given(**options)))

    def embed(self, model: str, *, text: str | None = None, image: ImageInput | None = None) -> EmbedResponse:
        """Return the unit vector of one text or one image."""
        body = given(text=text, **image_field(image))
        return self._send(Call("POST", path("embed", model), EmbedResponse, json=body))

    def embed_texts(self, model: str, texts: Sequence[str]) -> EmbeddingsResponse:
        """Embed up to 2,048 texts; a text that cannot be embedded is a `FailedItem`."""
        body = {"model": model, "modality": "text", "input": list(texts)}
        return self._send(Call("POST", path("embeddings"), EmbeddingsResponse, json=body))

    def embed_images(self, model: str, images: Sequence[ImageInput]) -> EmbeddingsResponse:
        """Embed up to 64 images: paths, bytes or URLs; an image that cannot be embedded is a `FailedItem`."""
        inputs = encode_images(images)
        body = {"model": model, "modality": "image", "input": inputs}
        return self._send(Call("POST", path("embeddings"), EmbeddingsResponse, json=body))

    def caption(self, image: ImageInput, *, model: str | None = None) -> CaptionResponse:
        """Caption an image, by default with the first model that writes captions."""
        body = given(model=model, **image_field(image))
        return self._send(Call("POST", path("caption"), CaptionResponse, json=body))

    def models(self) -> list[Model]:
        """List the configured models with the versions that serve."""
        return self._send(Call("GET", path("models"), list[Model]))

    def versions(self, model: str) -> list[ModelVersion]:
        """List the versions of a model that have a collection, oldest first."""
        return self._send(Call("GET", path("models", model, "versions"), list[ModelVersion]))

    def gaps(self, model: str, fingerprint: str, limit: int | None = None) -> GapsResponse:
        """List up to `limit` images that a version lacks, and up to `limit` that failed, with the reason."""
        place = path("models", model, "versions", fingerprint, "gaps")
        return self._send(Call("GET", place, GapsResponse, params=given(limit=limit)))

    def stats(self) -> StatsResponse:
        """Count products and images, and those that each model has indexed."""
        return self._send(Call("GET", path("stats"), StatsResponse))

    def ready(self) -> ReadyResponse:
        """Check the whole service; the response holds the problems, which are not raised."""
        # A 503 is the result of this call, so it is not repeated.
        return self._send(
            Call("GET", "/health/ready", ReadyResponse, repeatable=False, accepted_statuses=(503,))
        )

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()


class Jobs:
    """Bulk jobs of a service: `Vitrine.jobs`."""

    def __init__(self, sender: Sender) -> None:
        self._send = sender.send

    def submit(self, kind: str, **args: Any) -> Job:
        """Start bulk work, such as `submit("build", model="dinov2")`.

        Raises:
            InvalidRequest: the kind or an argument is unknown or wrong.
            Conflict: an equal job is running; the message holds its id.
        """
        body = {"kind": kind, "args": args}
        return self._send(Call("POST", path("jobs"), Job, json=body, repeatable=False))

    def list(self, limit: int | None = None) -> list[Job]:
        """List the latest jobs, newest first."""
        return self._send(Call("GET", path("jobs"), builtins.list[Job], params=given(limit=limit)))

    def get(self, job_id: str) -> Job:
        """Read the state, the progress and the result of a job."""
        return self._send(Call("GET", path("jobs", job_id), Job))

    def logs(self, job_id: str, lines: int | None = None) -> str:
        """Return the last lines that the job's process has written."""
        return self._send(Call("GET", path("jobs", job_id, "logs"), str, params=given(lines=lines)))

    def report(self, job_id: str) -> bytes:
        """Return the HTML report of an evaluation; raises NotFound for jobs that write none."""
        return self._send(Call("GET", path("jobs", job_id, "report"), bytes))

    def error_page(
        self, job_id: str, limit: int | None = None, after: int | None = None
    ) -> builtins.list[RowError]:
        """List broken rows of an import, after row `after`."""
        params = given(limit=limit, after=after)
        return self._send(Call("GET", path("jobs", job_id, "errors"), builtins.list[RowError], params=params))

    def errors(self, job_id: str, page_size: int = 1000) -> Iterator[RowError]:
        """Iterate over all broken rows of an import, in the order of the rows."""
        after = 0
        while page := self.error_page(job_id, page_size, after):
            yield from page
            after = page[-1].row

    def cancel(self, job_id: str) -> Job:
        """Stop a job; its finished work is kept. Raises Conflict if it has ended."""
        return self._send(Call("DELETE", path("jobs", job_id), Job, repeatable=False))

    def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> Iterator[Job]:
        """Read a job every `poll_s` seconds until it has ended.

        Raises:
            TryLater: the service has not answered for `patience_s` seconds.
        """
        failing_since = None
        while True:
            try:
                job = self.get(job_id)
            except TryLater:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since >= patience_s:
                    raise
            else:
                failing_since = None
                yield job
                if job.ended:
                    return
            time.sleep(poll_s)

    def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it; `state` says how it ended.

        Raises:
            TimeoutError: the job has not ended within `timeout_s` seconds.
            TryLater: the service has not answered for two minutes.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for job in self.follow(job_id, poll_s):
            if job.ended:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                break
        raise TimeoutError(f"job {job_id} has not ended within {timeout_s:g} s")


class Keys:
    """API keys of a service: `Vitrine.keys`. Once a key exists, every call needs one with the scope `admin`."""

    def __init__(self, sender: Sender) -> None:
        self._send = sender.send

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        requests_per_s: float | None = None,
        burst: int | None = None,
    ) -> CreateKeyResponse:
        """Make a key; only this response shows it.

        The first key must have the scope `admin`. From then on the service refuses requests without a key.
        """
        body = given(name=name, scopes=[*scopes], requests_per_s=requests_per_s, burst=burst)
        return self._send(Call("POST", path("keys"), CreateKeyResponse, json=body, repeatable=False))

    def list(self) -> list[ApiKey]:
        """List all keys, including revoked ones, oldest first."""
        return self._send(Call("GET", path("keys"), builtins.list[ApiKey]))

    def revoke(self, key_id: str) -> None:
        """Revoke a key permanently."""
        self._send(Call("DELETE", path("keys", key_id), type(None)))
