"""Routes of products: put, patch, get, list, delete, more like this."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import FiniteFloat

from catalog.fetching.fetcher import Fetcher
from catalog.products import DeleteProduct, Operation, PatchProduct, PutProduct
from core.concurrency import DECODERS, batched, run_in
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.indexing import IndexState
from core.search import QueryPart, SearchQuery
from core.types import NewImage
from deployments.http.auth import READ, WRITE
from deployments.http.errors import WITH_BODY, WITH_KEY, fails
from deployments.http.middleware import request_ends_at
from deployments.http.requests import (
    MERGE_PATCH,
    BodyRoute,
    Files,
    file_field,
    form,
    json_field,
    read_images,
    services,
)
from deployments.http.responses import product_response, search_response
from deployments.services.assembly import Services
from deployments.services.products import Written
from models.images import ImageLimits, inspect_image
from vitrine.schemas.products import (
    IndexStatus,
    PatchProductRequest,
    Product,
    PutProductRequest,
    PutProductResponse,
)
from vitrine.schemas.search import MAX_FALSE_MATCH_RATE, SCORE_THRESHOLD, SearchResponse

_CHECKED_AT_ONCE = 4
RESPOND_ASYNC = "respond-async"
Wait = Annotated[
    bool,
    Query(
        description="Whether the answer waits for the index; false: it comes as soon as the write is durable."
    ),
]
Prefer = Annotated[
    list[str] | None, Header(description="`respond-async`, as `wait=false`; the answer confirms it.")
]
router = APIRouter(
    prefix="/v1", tags=["products"], dependencies=[READ], responses=fails(*WITH_KEY), route_class=BodyRoute
)


@router.put(
    "/products/{product_id}",
    summary="Create or replace a product",
    response_model=PutProductResponse,
    dependencies=[WRITE],
    openapi_extra=form(
        {
            "metadata": json_field(PutProductRequest),
            "images": file_field(
                "Image files, in order; without any the product keeps those it has.", several=True
            ),
        }
    ),
    responses={201: {"model": PutProductResponse, "description": "Created."}, **fails(*WITH_BODY, 424)},
)
async def put_product(
    product_id: str,
    request: Request,
    response: Response,
    body: PutProductRequest,
    files: Files,
    wait: Wait = True,
    prefer: Prefer = None,
) -> PutProductResponse:
    """Store a product with its images, durably, and index it.

    JSON with images as base64, data URIs or http(s) URLs, or multipart with a JSON field `metadata` and
    files `images`. Without images in the request the product keeps those it has; an empty list of JSON
    `images` removes them.
    The answer says per model whether the images are `indexed`, still `pending` or have `failed`.
    """
    if files and body.images is not None:
        raise InvalidInput("send images as files of the form field `images`").at("metadata.images")
    sent: Sequence[str | bytes] | None = [file.data for file in files] or body.images
    operation = await put_operation(services(request), product_id, body, sent)
    written = await _write(request, response, operation, wait, prefer)
    response.status_code = 201 if written.created else 200
    return _stored(written)


@router.patch(
    "/products/{product_id}",
    summary="Change fields of a product",
    dependencies=[WRITE],
    openapi_extra={"requestBody": {"content": {MERGE_PATCH: {"schema": json_field(PatchProductRequest)}}}},
    responses=fails(*WITH_BODY, 404),
)
async def patch_product(
    product_id: str,
    request: Request,
    response: Response,
    body: PatchProductRequest,
    wait: Wait = True,
    prefer: Prefer = None,
) -> PutProductResponse:
    """Change title, description or attributes of a product by a JSON merge patch (RFC 7396).

    What is left out stays, the images too. An attribute that is null is removed. The answer is that of a put.
    """
    return _stored(await _write(request, response, patch_operation(product_id, body), wait, prefer))


@router.get("/products/{product_id}", summary="Read a product", responses=fails(404))
async def get_product(product_id: str, request: Request) -> Product:
    """Return a product with its images."""
    products = services(request).catalog.products
    return product_response(await asyncio.to_thread(products.get, product_id))


@router.get("/products", summary="List products")
async def list_products(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> list[Product]:
    """List products by id, a page at a time."""
    page = await asyncio.to_thread(services(request).catalog.products.page, limit, after)
    return [product_response(product) for product in page]


@router.delete(
    "/products/{product_id}",
    summary="Delete a product",
    status_code=204,
    dependencies=[WRITE],
    responses=fails(404),
)
async def delete_product(product_id: str, request: Request) -> None:
    """Remove a product, its images and its vectors."""
    await services(request).writes.write_one(DeleteProduct(product_id))


@router.get("/products/{product_id}/similar", summary="More like this", responses=fails(404, 409, 413))
async def similar_products(
    product_id: str,
    request: Request,
    model: str = "ensemble",
    limit: Annotated[int, Query(ge=1)] = 10,
    offset: Annotated[int, Query(ge=0)] = 0,
    score_threshold: Annotated[FiniteFloat | None, Query(ge=-1, le=1, description=SCORE_THRESHOLD)] = None,
    max_false_match_rate: Annotated[
        FiniteFloat | None, Query(gt=0, lt=1, description=MAX_FALSE_MATCH_RATE)
    ] = None,
) -> SearchResponse:
    """Find products that look like this one, by all its images; the product itself is left out."""
    service = services(request)
    service.check_page(limit, offset)
    part = await service.stored.product(product_id)
    found = await service.search.search(
        SearchQuery(
            (QueryPart(part),),
            limit,
            exclude_products=(product_id,),
            model=model,
            offset=offset,
            score_threshold=score_threshold,
            max_false_match_rate=max_false_match_rate,
        )
    )
    return search_response(found, request.state.request_id)


def applied_wait(response: Response, wait: bool, prefer: Sequence[str] | None) -> bool:
    """Return whether a write waits for the index, and confirm `Prefer: respond-async` (RFC 7240)."""
    preferences = [
        each.partition(";")[0].strip().lower() for line in prefer or () for each in line.split(",")
    ]
    if RESPOND_ASYNC not in preferences:
        return wait
    response.headers["Preference-Applied"] = RESPOND_ASYNC
    return False


async def _write(
    request: Request, response: Response, operation: Operation, wait: bool, prefer: Sequence[str] | None
) -> Written:
    waits = applied_wait(response, wait, prefer)
    return await services(request).writes.write_one(operation, waits)


def _stored(written: Written) -> PutProductResponse:
    assert written.product is not None, "only a delete leaves no product"
    return PutProductResponse(
        product=product_response(written.product),
        created=written.created,
        index={
            model: IndexStatus(state=overall(states), images=states)
            for model, states in written.index.items()
        },
    )


async def put_operation(
    service: Services, product_id: str, body: PutProductRequest, sent: Sequence[str | bytes] | None
) -> PutProduct:
    """Read and check the images of a put: files, base64, data URIs or URLs.

    Raises:
        InvalidInput, FetchFailed: one of them cannot be used; `param` names it.
    """
    if sent and len(sent) > service.max_images_per_product:
        limit = service.max_images_per_product
        raise InputTooLarge(f"a product may have at most {limit} images").at("images")
    images = None if sent is None else await _read_and_check(sent, service.fetcher, service.image_limits)
    return PutProduct(product_id, body.title, body.description, body.attributes, images)


def patch_operation(product_id: str, body: PatchProductRequest) -> PatchProduct:
    """Read a patch; the fields that the caller has left out are no changes."""
    fields = {"title", "description", "attributes"}
    return PatchProduct(product_id, body.model_dump(include=fields, exclude_unset=True))


async def _read_and_check(
    sent: Sequence[str | bytes], fetcher: Fetcher, limits: ImageLimits
) -> list[NewImage]:
    read = iter(await read_images([image for image in sent if isinstance(image, str)], fetcher))
    files = [image if isinstance(image, bytes) else next(read) for image in sent]
    checked: list[NewImage] = []
    # A few at once, so that a product with many images does not delay all others.
    for some in batched(list(enumerate(files)), _CHECKED_AT_ONCE):
        checked += await asyncio.gather(*(_check_image(index, data, limits) for index, data in some))
    return checked


async def _check_image(index: int, data: bytes | VitrineError, limits: ImageLimits) -> NewImage:
    try:
        if isinstance(data, VitrineError):
            raise data
        facts = await run_in(DECODERS, inspect_image, data, limits, request_ends_at())
    except VitrineError as error:
        raise error.at(f"images[{index}]") from None
    return NewImage(data, facts.media_type, facts.width, facts.height)


def overall(states: dict[str, IndexState]) -> IndexState:
    """Return the worst of the images' states."""
    order: list[IndexState] = ["failed", "pending"]
    return next((state for state in order if state in states.values()), "indexed")
