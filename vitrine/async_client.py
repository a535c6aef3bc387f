"""The client for asyncio: a coroutine for each call of the API."""

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from vitrine import calls
from vitrine.errors import TryLater
from vitrine.query import ImageInput, Query
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
from vitrine.schemas.search import CompareResponse, Fusion, SearchResponse
from vitrine.transport import AsyncSender, Patience, Retries, settings


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
        self._sender = AsyncSender(settings(url, key, timeout_s, retries), transport)
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
    ) -> PutProductResponse:
        """Create or replace a product; it is durable when this returns."""
        return await self._sender.send(
            await asyncio.to_thread(calls.put_product, product_id, title, description, attributes, images)
        )

    async def product(self, product_id: str) -> Product:
        """Read a product; NotFound when there is none."""
        return await self._sender.send(calls.product(product_id))

    async def product_page(self, limit: int = 100, after: str | None = None) -> list[Product]:
        """Read a page of products, by id; `after` is the last id of the page before."""
        return await self._sender.send(calls.product_page(limit, after))

    async def products(self, page_size: int = 100, after: str | None = None) -> AsyncIterator[Product]:
        """Iterate over all products by id, those behind `after`."""
        while page := await self.product_page(page_size, after):
            for product in page:
                yield product
            after = page[-1].product_id

    async def delete_product(self, product_id: str) -> None:
        """Remove a product, its images and its vectors; NotFound when there is none."""
        await self._sender.send(calls.delete_product(product_id))

    async def image(self, image_id: str) -> bytes:
        """Read an image file as it was sent; NotFound when there is none."""
        return await self._sender.send(calls.image(image_id))

    async def thumbnail(self, image_id: str, size: ThumbnailSize = "small") -> bytes:
        """Read an image as WebP with at most 320 or 960 pixels a side; NotFound when there is none."""
        return await self._sender.send(calls.thumbnail(image_id, size))

    async def attributes(self) -> AttributesResponse:
        """List the attributes that products have, with their values: a filter can ask for these."""
        return await self._sender.send(calls.attributes())

    async def search(
        self,
        query: Query,
        *,
        model: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        filter: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion | None = None,
        keyword_weight: float | None = None,
        score_threshold: float | None = None,
        max_false_match_rate: float | None = None,
        exclude: Sequence[str] | None = None,
        include_query_products: bool | None = None,
    ) -> SearchResponse:
        """Find products by a text, an image, or weighted parts."""
        call = await asyncio.to_thread(
            calls.search,
            query,
            model=model,
            limit=limit,
            offset=offset,
            filter=filter,
            weights=weights,
            fusion=fusion,
            keyword_weight=keyword_weight,
            score_threshold=score_threshold,
            max_false_match_rate=max_false_match_rate,
            exclude=exclude,
            include_query_products=include_query_products,
        )
        return await self._sender.send(call)

    async def compare(
        self,
        query: Query,
        *,
        models: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int | None = None,
        filter: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: Fusion | None = None,
        keyword_weight: float | None = None,
        score_threshold: float | None = None,
        max_false_match_rate: float | None = None,
        exclude: Sequence[str] | None = None,
        include_query_products: bool | None = None,
    ) -> CompareResponse:
        """Find products with each of the models, by default with every encoder and the ensemble."""
        call = await asyncio.to_thread(
            calls.compare,
            query,
            models=models,
            limit=limit,
            offset=offset,
            filter=filter,
            weights=weights,
            fusion=fusion,
            keyword_weight=keyword_weight,
            score_threshold=score_threshold,
            max_false_match_rate=max_false_match_rate,
            exclude=exclude,
            include_query_products=include_query_products,
        )
        return await self._sender.send(call)

    async def similar(
        self,
        product_id: str,
        *,
        model: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        score_threshold: float | None = None,
        max_false_match_rate: float | None = None,
    ) -> SearchResponse:
        """Find products that look like this one; NotFound when there is none."""
        call = calls.similar(
            product_id,
            model=model,
            limit=limit,
            offset=offset,
            score_threshold=score_threshold,
            max_false_match_rate=max_false_match_rate,
        )
        return await self._sender.send(call)

    async def embed(
        self, model: str, *, text: str | None = None, image: ImageInput | None = None
    ) -> EmbedResponse:
        """Return the unit vector of one text or one image."""
        return await self._sender.send(await asyncio.to_thread(calls.embed, model, text, image))

    async def embed_texts(self, model: str, texts: Sequence[str]) -> EmbeddingsResponse:
        """Embed up to 2,048 texts; a text that cannot be embedded is a `FailedItem`."""
        return await self._sender.send(calls.embed_texts(model, texts))

    async def embed_images(self, model: str, images: Sequence[ImageInput]) -> EmbeddingsResponse:
        """Embed up to 64 images: paths, bytes or URLs; an image that cannot be embedded is a `FailedItem`."""
        return await self._sender.send(await asyncio.to_thread(calls.embed_images, model, images))

    async def caption(self, image: ImageInput, *, model: str | None = None) -> CaptionResponse:
        """Write a caption for an image, by default with the first model that writes captions."""
        return await self._sender.send(await asyncio.to_thread(calls.caption, image, model))

    async def models(self) -> list[Model]:
        """List the configured models with the versions that serve."""
        return await self._sender.send(calls.models())

    async def versions(self, model: str) -> list[ModelVersion]:
        """List the versions of a model that have a collection, oldest first."""
        return await self._sender.send(calls.versions(model))

    async def gaps(self, model: str, fingerprint: str, limit: int | None = None) -> GapsResponse:
        """List images that a version lacks, and as many that have failed with the reason."""
        return await self._sender.send(calls.gaps(model, fingerprint, limit))

    async def stats(self) -> StatsResponse:
        """Count products and images, and those that each model has indexed."""
        return await self._sender.send(calls.stats())

    async def ready(self) -> ReadyResponse:
        """Check the whole service; problems are in the response, and raise nothing."""
        return await self._sender.send(calls.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()


class AsyncJobs:
    """Bulk jobs of a service: `AsyncVitrine.jobs`."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def submit(self, kind: str, **args: Any) -> Job:
        """Start bulk work, such as `submit("build", model="dinov2")`."""
        return await self._sender.send(calls.submit_job(kind, args))

    async def list(self, limit: int | None = None) -> list[Job]:
        """List the latest jobs, newest first."""
        return await self._sender.send(calls.list_jobs(limit))

    async def get(self, job_id: str) -> Job:
        """Read the state, the progress and the result of a job."""
        return await self._sender.send(calls.job(job_id))

    async def logs(self, job_id: str, lines: int | None = None) -> str:
        """Return the last lines that the job's process has written."""
        return await self._sender.send(calls.job_logs(job_id, lines))

    async def report(self, job_id: str) -> bytes:
        """Return the page, in HTML, that an evaluation has written; NotFound for jobs that write none."""
        return await self._sender.send(calls.job_report(job_id))

    async def error_page(
        self, job_id: str, limit: int | None = None, after: int | None = None
    ) -> builtins.list[RowError]:
        """List broken rows of an import, those behind row `after`."""
        return await self._sender.send(calls.job_errors(job_id, limit, after))

    async def errors(self, job_id: str, page_size: int = 1000) -> AsyncIterator[RowError]:
        """Iterate over all broken rows of an import, in their order."""
        after = 0
        while page := await self.error_page(job_id, page_size, after):
            for error in page:
                yield error
            after = page[-1].row

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; what it has done stays done. Conflict when it has ended."""
        return await self._sender.send(calls.cancel_job(job_id))

    async def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> AsyncIterator[Job]:
        """Read a job every `poll_s` seconds until it has ended."""
        patience = Patience(patience_s)
        while True:
            try:
                job = await self.get(job_id)
            except TryLater as error:
                patience.failed(error)
            else:
                patience.succeeded()
                yield job
                if job.ended:
                    return
            await asyncio.sleep(poll_s)

    async def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it; `state` says how it ended."""
        async with asyncio.timeout(timeout_s):
            return [job async for job in self.follow(job_id, poll_s)][-1]


class AsyncKeys:
    """API keys of a service: `AsyncVitrine.keys`; every call needs an admin's key."""

    def __init__(self, sender: AsyncSender) -> None:
        self._sender = sender

    async def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        requests_per_s: float | None = None,
        burst: int | None = None,
    ) -> CreateKeyResponse:
        """Make a key and show it this once."""
        return await self._sender.send(calls.create_key(name, scopes, requests_per_s, burst))

    async def list(self) -> list[ApiKey]:
        """List all keys, revoked ones too, oldest first."""
        return await self._sender.send(calls.list_keys())

    async def revoke(self, key_id: str) -> None:
        """End a key for good."""
        await self._sender.send(calls.revoke_key(key_id))
