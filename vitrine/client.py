"""The client: a method for each call of the API."""

import builtins
import time
from collections.abc import Iterator, Mapping, Sequence
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
from vitrine.transport import Patience, Retries, Sender, settings


class Vitrine:
    """A client of a Vitrine service; safe to use from several threads.

    `url` is by default VITRINE_URL, or else port 8000 of this machine. `key` is by default VITRINE_KEY.
    `timeout_s` bounds each attempt, in seconds. `retries` says how often a call is sent again that does no harm
    when it is done twice. As a context manager the client closes its connections.

    Every method raises a `ServiceError` where the service answers with an error. An argument that is None is
    not sent, so that the service decides.
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
        self._sender = Sender(settings(url, key, timeout_s, retries), transport)
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
    ) -> PutProductResponse:
        """Create or replace a product; it is durable when this returns.

        `images` are paths, bytes or URLs, in order. None keeps those that the product has, an empty list
        removes them.

        Raises:
            InvalidRequest: an image cannot be read, or a limit is exceeded; `param` names the field.
            FetchFailed: a server behind a URL failed.
            OSError: an image's file cannot be read.
        """
        return self._sender.send(calls.put_product(product_id, title, description, attributes, images))

    def product(self, product_id: str) -> Product:
        """Read a product; NotFound when there is none."""
        return self._sender.send(calls.product(product_id))

    def product_page(self, limit: int = 100, after: str | None = None) -> list[Product]:
        """Read a page of products, by id; `after` is the last id of the page before."""
        return self._sender.send(calls.product_page(limit, after))

    def products(self, page_size: int = 100, after: str | None = None) -> Iterator[Product]:
        """Iterate over all products by id, those behind `after`."""
        while page := self.product_page(page_size, after):
            yield from page
            after = page[-1].product_id

    def delete_product(self, product_id: str) -> None:
        """Remove a product, its images and its vectors; NotFound when there is none."""
        self._sender.send(calls.delete_product(product_id))

    def image(self, image_id: str) -> bytes:
        """Read an image file as it was sent; NotFound when there is none."""
        return self._sender.send(calls.image(image_id))

    def thumbnail(self, image_id: str, size: ThumbnailSize = "small") -> bytes:
        """Read an image as WebP with at most 320 or 960 pixels a side; NotFound when there is none."""
        return self._sender.send(calls.thumbnail(image_id, size))

    def attributes(self) -> AttributesResponse:
        """List the attributes that products have, with their values: a filter can ask for these."""
        return self._sender.send(calls.attributes())

    def search(
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
        """Find products by a text, an image, or weighted parts.

        `model` is an encoder's name, by default the ensemble. docs/api.md describes the other options.

        Raises:
            InvalidRequest: something is wrong; `param` names the field.
            NotFound: there is no such model, product or image.
            OSError: an image's file cannot be read.
        """
        call = calls.search(
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
        return self._sender.send(call)

    def compare(
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
        """Find products with each of the models, by default with every encoder and the ensemble.

        The other arguments and the errors are those of `search`.
        """
        call = calls.compare(
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
        return self._sender.send(call)

    def similar(
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
        return self._sender.send(call)

    def embed(self, model: str, *, text: str | None = None, image: ImageInput | None = None) -> EmbedResponse:
        """Return the unit vector of one text or one image.

        Raises:
            InvalidRequest: both or none are given, or the model takes no such input.
            NotFound: there is no such model.
            OSError: the image's file cannot be read.
        """
        return self._sender.send(calls.embed(model, text, image))

    def embed_texts(self, model: str, texts: Sequence[str]) -> EmbeddingsResponse:
        """Embed up to 2,048 texts; a text that cannot be embedded is a `FailedItem`.

        Raises:
            InvalidRequest: nothing could be embedded; `param` names the first input.
            NotFound: there is no such model.
        """
        return self._sender.send(calls.embed_texts(model, texts))

    def embed_images(self, model: str, images: Sequence[ImageInput]) -> EmbeddingsResponse:
        """Embed up to 64 images: paths, bytes or URLs; an image that cannot be embedded is a `FailedItem`.

        Raises:
            InvalidRequest: nothing could be embedded; `param` names the first input.
            NotFound: there is no such model.
            OSError: an image's file cannot be read.
        """
        return self._sender.send(calls.embed_images(model, images))

    def caption(self, image: ImageInput, *, model: str | None = None) -> CaptionResponse:
        """Write a caption for an image, by default with the first model that writes captions.

        Raises:
            InvalidRequest: the model writes no captions, or the image cannot be read.
            NotFound: there is no such model, or none that writes captions.
            OSError: the image's file cannot be read.
        """
        return self._sender.send(calls.caption(image, model))

    def models(self) -> list[Model]:
        """List the configured models with the versions that serve."""
        return self._sender.send(calls.models())

    def versions(self, model: str) -> list[ModelVersion]:
        """List the versions of a model that have a collection, oldest first."""
        return self._sender.send(calls.versions(model))

    def gaps(self, model: str, fingerprint: str, limit: int | None = None) -> GapsResponse:
        """List images that a version lacks, and as many that have failed with the reason."""
        return self._sender.send(calls.gaps(model, fingerprint, limit))

    def stats(self) -> StatsResponse:
        """Count products and images, and those that each model has indexed."""
        return self._sender.send(calls.stats())

    def ready(self) -> ReadyResponse:
        """Check the whole service; problems are in the response, and raise nothing."""
        return self._sender.send(calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()


class Jobs:
    """Bulk jobs of a service: `Vitrine.jobs`."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def submit(self, kind: str, **args: Any) -> Job:
        """Start bulk work, such as `submit("build", model="dinov2")`.

        Raises:
            InvalidRequest: the kind or an argument is unknown or wrong.
            Conflict: an equal job is at work; the message holds its id.
        """
        return self._sender.send(calls.submit_job(kind, args))

    def list(self, limit: int | None = None) -> list[Job]:
        """List the latest jobs, newest first."""
        return self._sender.send(calls.list_jobs(limit))

    def get(self, job_id: str) -> Job:
        """Read the state, the progress and the result of a job."""
        return self._sender.send(calls.job(job_id))

    def logs(self, job_id: str, lines: int | None = None) -> str:
        """Return the last lines that the job's process has written."""
        return self._sender.send(calls.job_logs(job_id, lines))

    def report(self, job_id: str) -> bytes:
        """Return the page, in HTML, that an evaluation has written; NotFound for jobs that write none."""
        return self._sender.send(calls.job_report(job_id))

    def error_page(
        self, job_id: str, limit: int | None = None, after: int | None = None
    ) -> builtins.list[RowError]:
        """List broken rows of an import, those behind row `after`."""
        return self._sender.send(calls.job_errors(job_id, limit, after))

    def errors(self, job_id: str, page_size: int = 1000) -> Iterator[RowError]:
        """Iterate over all broken rows of an import, in their order."""
        after = 0
        while page := self.error_page(job_id, page_size, after):
            yield from page
            after = page[-1].row

    def cancel(self, job_id: str) -> Job:
        """Stop a job; what it has done stays done. Conflict when it has ended."""
        return self._sender.send(calls.cancel_job(job_id))

    def follow(self, job_id: str, poll_s: float = 1.0, patience_s: float = 120.0) -> Iterator[Job]:
        """Read a job every `poll_s` seconds until it has ended.

        Raises:
            TryLater: the service has not answered for `patience_s` seconds.
        """
        patience = Patience(patience_s)
        while True:
            try:
                job = self.get(job_id)
            except TryLater as error:
                patience.failed(error)
            else:
                patience.succeeded()
                yield job
                if job.ended:
                    return
            time.sleep(poll_s)

    def wait(self, job_id: str, timeout_s: float | None = None, poll_s: float = 1.0) -> Job:
        """Wait until a job has ended, and return it; `state` says how it ended.

        Raises:
            TimeoutError: it goes on after `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for job in self.follow(job_id, poll_s):
            if job.ended:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                break
        raise TimeoutError(f"job {job_id} has not ended within {timeout_s:g} s")


class Keys:
    """API keys of a service: `Vitrine.keys`; every call needs an admin's key."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def create(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        requests_per_s: float | None = None,
        burst: int | None = None,
    ) -> CreateKeyResponse:
        """Make a key and show it this once.

        The first key must be an admin's. From then on the service refuses requests without a key.
        """
        return self._sender.send(calls.create_key(name, scopes, requests_per_s, burst))

    def list(self) -> list[ApiKey]:
        """List all keys, revoked ones too, oldest first."""
        return self._sender.send(calls.list_keys())

    def revoke(self, key_id: str) -> None:
        """End a key for good."""
        self._sender.send(calls.revoke_key(key_id))
