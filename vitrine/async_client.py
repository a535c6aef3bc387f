"""The client for asyncio: a coroutine for each call of the API."""

import asyncio
import builtins
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self, Unpack

import httpx

from vitrine.batches import (
    BatchOptions,
    BatchSummary,
    NewProduct,
    Source,
    delete_operation,
    patch_operation,
    put_operation,
    send_all_async,
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
from vitrine.transport import AsyncSender, Call, Retries, connection, given, path, waiting


class AsyncVitrine:
    """A client of a Vitrine service for one event loop; arguments and errors are those of `Vitrine`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        http = httpx.AsyncClient(transport=transport, **connection(url, key, timeout_s))
        self._sender = AsyncSender(http, retries)
        self._send = self._sender.send
        self.jobs = AsyncJobs(self._sender)
        self.keys = AsyncKeys(self._sender)

    async def put_product(
        self,
        product_id: str,
        *,
        title: str = "",
        description: str = "",
        attributes: Mapping[str, Any] | None = None,
        images: Sequence[ImageInput] | None = None,
        wait: bool = True,
    ) -> PutProductResponse:
        """Create or replace a product; it is durable when this returns."""
        body = given(
            title=title,
            description=description,
            attributes=dict(attributes or {}),
            images=None if images is None else await asyncio.to_thread(encode_images, images),
        )
        place = path("products", product_id)
        return await self._send(Call("PUT", place, PutProductResponse, params=waiting(wait), json=body))

    async def patch_product(
        self, product_id: str, changes: Mapping[str, Any], *, wait: bool = True
    ) -> PutProductResponse:
        """Change title, description or attributes; what is left out stays, and the images too."""
        place, body = path("products", product_id), dict(changes)
        return await self._send(Call("PATCH", place, PutProductResponse, params=waiting(wait), json=body))

    async def put_products(
        self, products: Source[NewProduct], **options: Unpack[BatchOptions]
    ) -> BatchSummary:
        """Put any number of products, many in a request; those that fail are `errors` of the summary."""
        return await send_all_async(self._sender, put_operation, products, options)

    async def patch_products(
        self,
        patches: Source[tuple[str, Mapping[str, Any]]],
        **options: Unpack[BatchOptions],
    ) -> BatchSummary:
        """Patch any number of products, given as pairs of an id and its changes."""
        return await send_all_async(self._sender, patch_operation, patches, options)

    async def delete_products(
        self, product_ids: Source[str], **options: Unpack[BatchOptions]
    ) -> BatchSummary:
        """Delete any number of products."""
        return await send_all_async(self._sender, delete_operation, product_ids, options)

    async def product(self, product_id: str) -> Product:
        """Read a product; raises NotFound if there is none."""
        return await self._send(Call("GET", path("products", product_id), Product))

    async def product_page(self, limit: int = 100, after: str | None = None) -> list[Product]:
        """Read a page of products in the order of their ids; `after` is the last id of the previous page."""
        params = given(limit=limit, after=after)
        return await self._send(Call("GET", path("products"), list[Product], params=params))

    async def products(self, page_size: int = 100, after: str | None = None) -> AsyncIterator[Product]:
        """Iterate over the products after the id `after`, or over all, in the order of their ids."""
        while page := await self.product_page(page_size, after):
            for product in page:
                yield product
            after = page[-1].product_id

    async def delete_product(self, product_id: str) -> None:
        """Delete a product, its images and its vectors; raises NotFound if there is none."""
        await self._send(Call("DELETE", path("products", product_id), type(None)))

    async def image(self, image_id: str) -> bytes:
        """Read an original image file; raises NotFound if there is none."""
        return await self._send(Call("GET", path("images", image_id), bytes))

    async def thumbnail(self, image_id: str, size: ThumbnailSize = "small") -> bytes:
        """Read an image as WebP of at most 320 (small) or 960 pixels a side; raises NotFound if there is none."""
        return await self._send(
            Call("GET", path("images", image_id, "thumbnail"), bytes, params={"size": size})
        )

    async def attributes(self) -> AttributesResponse:
        """List the attributes that a filter can use, with their values."""
        return await self._send(Call("GET", path("attributes"), AttributesResponse))

    async def search(self, query: Query, **options: Unpack[SearchOptions]) -> SearchResponse:
        """Find products by a text, an image, or weighted parts."""
        body = given(query=await asyncio.to_thread(encode_query, query), **options)
        return await self._send(Call("POST", path("search"), SearchResponse, json=body))

    async def compare(self, query: Query, **options: Unpack[CompareOptions]) -> CompareResponse:
        """Search with each of the models, by default with every encoder and the ensemble."""
        body = given(query=await asyncio.to_thread(encode_query, query), **options)
        return await self._send(Call("POST", path("compare"), CompareResponse, json=body))

    async def similar(self, product_id: str, **options: Unpack[SimilarOptions]) -> SearchResponse:
        """Find products that look like this one; raises NotFound if this one does not exist."""
        place = path("products", product_id, "similar")
        return await self._send(Call("GET", place, SearchResponse, params=given(**options)))

    async def embed(
        self, model: str, *, text: str | None = None, image: ImageInput | None = None
    ) -> EmbedResponse:
        """Return the unit vector of one text or one image."""
        body = given(text=text, **await asyncio.to_thread(image_field, image))
        return await self._send(Call("POST", path("embed", model), EmbedResponse, json=body))

    async def embed_texts(self, model: str, texts: Sequence[str]) -> EmbeddingsResponse:
        """Embed up to 2,048 texts; a text that cannot be embedded is a `FailedItem`."""
        body = {"model": model, "modality": "text", "input": list(texts)}
        return await self._send(Call("POST", path("embeddings"), EmbeddingsResponse, json=body))

    async def embed_images(self, model: str, images: Sequence[ImageInput]) -> EmbeddingsResponse:
        """Embed up to 64 images: paths, bytes or URLs; an image that cannot be embedded is a `FailedItem`."""
        inputs = await asyncio.to_thread(encode_images, images)
        body = {"model": model, "modality": "image", "input": inputs}
        return await self._send(Call("POST", path("embeddings"), EmbeddingsResponse, json=body))

    async def caption(self, image: ImageInput, *, model: str | None = None) -> CaptionResponse:
        """Caption an image, by default with the first model that writes captions."""
        body = given(model=model, **await asyncio.to_thread(image_field, image))
        return await self._send(Call("POST", path("caption"), CaptionResponse, json=body))

    async def models(self) -> list[Model]:
        """List the configured models with the versions that serve."""
        return await self._send(Call("GET", path("models"), list[Model]))

    async def versions(self, model: str) -> list[ModelVersion]:
        """List the versions of a model that have a collection, oldest first."""
        return await self._send(Call("GET", path("models", model, "versions"), list[ModelVersion]))

    async def gaps(self, model: str, fingerprint: str, limit: int | None = None) -> GapsResponse:
        """List up to `limit` images that a version lacks, and up to `limit` that failed, with the reason."""
        place = path("models", model, "versions", fingerprint, "gaps")
        return await self._send(Call("GET", place, GapsResponse, params=given(limit=limit)))

    async def stats(self) -> StatsResponse:
        """Count products and images, and those that each model has indexed."""
        return await self._send(Call("GET", path("stats"), StatsResponse))

    async def ready(self) -> ReadyResponse:
        """Check the whole service; the response holds the problems, which are not raised."""
        # Its problems are in the answer, which asks for no retry.
        return await self._send(
            Call("GET", "/health/ready", ReadyResponse, repeatable=False, accepted_statuses=(503,))
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()


class AsyncJobs:
    """Bulk jobs of a service: `AsyncVitrine.jobs`."""

    def __init__(self, sender: AsyncSender) -> None:
        self._send = sender.send

    async def submit(self, kind: str, **args: Any) -> Job:
        """Start bulk work, such as `submit("build", model="dinov2")`."""
        body = {"kind": kind, "args": args}
        return await self._send(Call("POST", path("jobs"), Job, json=body, repeatable=False))

    async def list(self, limit: int | None = None) -> list[Job]:
        """List the latest jobs, newest first."""
        return await self._send(Call("GET", path("jobs"), builtins.list[Job], params=given(limit=limit)))

    async def get(self, job_id: str) -> Job:
        """Read the state, the progress and the result of a job."""
        return await self._send(Call("GET", path("jobs", job_id), Job))

    async def logs(self, job_id: str, lines: int | None = None) -> str:
        """Return the last lines that the job's process has written."""
        return await self._send(Call("GET", path("jobs", job_id, "logs"), str, params=given(lines=lines)))

    async def report(self, job_id: str) -> bytes:
        """Return the HTML report of an evaluation; raises NotFound for jobs that write none."""
        return await self._send(Call("GET", path("jobs", job_id, "report"), bytes))

    async def error_page(
        self, job_id: str, limit: int | None = None, after: int | None = None
    ) -> builtins.list[RowError]:
        """List broken rows of an import, after row `after`."""
        params = given(limit=limit, after=after)
        return await self._send(
            Call("GET", path("jobs", job_id, "errors"), builtins.list[RowError], params=params)
        )

    async def errors(self, job_id: str, page_size: int = 1000) -> AsyncIterator[RowError]:
        """Iterate over all broken rows of an import, in the order of the rows."""
        after = 0
        while page := await self.error_page(job_id, page_size, after):
            for error in page:
                yield error
            after = page[-1].row

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; its finished work is kept. Raises Conflict if it has ended."""
        return await self._send(Call("DELETE", path("jobs", job_id), Job, repeatable=False))

    async def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> AsyncIterator[Job]:
        """Read a job every `poll_s` seconds until it has ended."""
        failing_since = None
        while True:
            try:
                job = await self.get(job_id)
            except TryLater:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since >= patience_s:
                    raise
            else:
                failing_since = None
                yield job
                if job.ended:
                    return
            await asyncio.sleep(poll_s)

    async def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it; `state` says how it ended."""
        try:
            async with asyncio.timeout(timeout_s):
                async for job in self.follow(job_id, poll_s):
                    last = job
        except TimeoutError:
            raise TimeoutError(f"job {job_id} has not ended within {timeout_s:g} s") from None
        return last


class AsyncKeys:
    """API keys of a service: `AsyncVitrine.keys`. Once a key exists, every call needs one with the scope `admin`."""

    def __init__(self, sender: AsyncSender) -> None:
        self._send = sender.send

    async def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        requests_per_s: float | None = None,
        burst: int | None = None,
    ) -> CreateKeyResponse:
        """Make a key; only this response shows it."""
        body = given(name=name, scopes=[*scopes], requests_per_s=requests_per_s, burst=burst)
        return await self._send(Call("POST", path("keys"), CreateKeyResponse, json=body, repeatable=False))

    async def list(self) -> list[ApiKey]:
        """List all keys, including revoked ones, oldest first."""
        return await self._send(Call("GET", path("keys"), builtins.list[ApiKey]))

    async def revoke(self, key_id: str) -> None:
        """Revoke a key permanently."""
        await self._send(Call("DELETE", path("keys", key_id), type(None)))
