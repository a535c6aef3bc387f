"""Routes of search: search, compare models, attributes to filter by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request

from catalog.product_rows import is_product_id
from core.concurrency import input_bytes
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.filters import parse_filter
from core.rerank import Rerank
from core.search import QueryPart, SearchQuery, SearchResult, StoredPart
from core.types import Box, Cropped
from deployments.http.auth import READ
from deployments.http.errors import WITH_BODY, WITH_KEY, fails
from deployments.http.requests import BodyRoute, File, Files, decode_base64, form, json_field, services
from deployments.http.responses import product_response, rerank_score, search_details, search_response
from deployments.services import products
from deployments.services.assembly import Services
from deployments.services.compare import Compared
from vitrine.schemas import search as schemas
from vitrine.schemas.products import Attribute, AttributesResponse, AttributeValue

router = APIRouter(
    prefix="/v1", tags=["search"], dependencies=[READ], responses=fails(*WITH_KEY), route_class=BodyRoute
)
_FILE = "An image file, named by a part's `upload`."
MAX_PARTS = 64
MAX_BYTES = 48 * 2**20
"""Most bytes of a query: it goes to a model in one call, and what carries the call takes 64 MB."""


@router.post(
    "/search",
    summary="Search by image, text, products, or all of them",
    openapi_extra=form({"request": json_field(schemas.SearchRequest)}, other_files=_FILE),
    responses=fails(*WITH_BODY, 404, 409, 424),
)
async def search(request: Request, body: schemas.SearchRequest, files: Files) -> schemas.SearchResponse:
    """Find products.

    JSON, or multipart with the same JSON in the field `request` and image files in other fields. A
    file that no part of the query names as its `upload` joins the query with weight 1.
    """
    service = services(request)
    query = await _query(service, body, files)
    found = await service.search.search(replace(query, model=body.model))
    return search_response(found, request.state.request_id)


@router.post(
    "/compare",
    summary="Ask several models the same",
    openapi_extra=form({"request": json_field(schemas.CompareRequest)}, other_files=_FILE),
    responses=fails(*WITH_BODY, 404, 409, 424),
)
async def compare(request: Request, body: schemas.CompareRequest, files: Files) -> schemas.CompareResponse:
    """Find products with each of the models, and say how far their lists agree.

    Takes what a search takes, as JSON or multipart, with `models` in the place of `model`.
    """
    service = services(request)
    query = await _query(service, body, files)
    return _compare_response(await service.comparison.compare(query, body.models), request.state.request_id)


async def _query(service: Services, body: schemas.QueryRequest, files: Sequence[File]) -> SearchQuery:
    """Convert a body and the files of its form to a query of the ensemble; the route names another model."""
    service.check_page(body.limit, body.offset)
    parts = await _parts(service, body, _uploads(files))
    stored = [part.content.product_id for part in parts if isinstance(part.content, StoredPart)]
    named = [] if body.include_query_products else stored
    return SearchQuery(
        parts=parts,
        limit=body.limit,
        offset=body.offset,
        filter=parse_filter(body.filter) if body.filter is not None else None,
        exclude_products=tuple(dict.fromkeys(filter(is_product_id, (*body.exclude, *named)))),
        weights=body.weights,
        fusion=body.fusion,
        keyword_weight=body.keyword_weight,
        score_threshold=body.score_threshold,
        max_false_match_rate=body.max_false_match_rate,
        rerank=None if body.rerank is None else Rerank(body.rerank.model, body.rerank.depth),
    )


def _uploads(files: Sequence[File]) -> dict[str, bytes]:
    """Name the files by their fields; further ones of one field are `field[1]`, `field[2]` and so on."""
    uploads: dict[str, bytes] = {}
    seen = Counter[str]()
    for field, data in files:
        name = f"{field}[{seen[field]}]" if seen[field] else field
        seen[field] += 1
        if name in uploads:
            raise InvalidInput(f"two files have the name {name!r}; rename one of their fields").at(field)
        uploads[name] = data
    return uploads


async def _parts(
    service: Services, body: schemas.QueryRequest, uploads: dict[str, bytes]
) -> tuple[QueryPart, ...]:
    given = [schemas.TextPart(type="text", text=body.query)] if isinstance(body.query, str) else body.query
    named = {part.upload for part in given if isinstance(part, schemas.ImagePart)}
    unnamed = [data for name, data in uploads.items() if name not in named]
    if not given and not unnamed:
        raise InvalidInput("the query is empty; give text, an image or a product").at("query")
    if len(given) + len(unnamed) > MAX_PARTS:
        raise InvalidInput(f"a query may have at most {MAX_PARTS} parts").at("query")
    fetched = await _fetched(service, given)
    parts = [await _part(service, part, f"query[{i}]", uploads, fetched) for i, part in enumerate(given)]
    parts += [QueryPart(data) for data in unnamed]
    encoded = [part.content for part in parts if not isinstance(part.content, StoredPart)]
    if sum(map(input_bytes, encoded)) > MAX_BYTES:
        raise InputTooLarge(f"the images of a query may have {MAX_BYTES:,} bytes together").at("query")
    return tuple(parts)


async def _fetched(service: Services, parts: Sequence[schemas.Part]) -> dict[str, bytes]:
    """Fetch the images that the parts name by URL, side by side."""
    urls = {
        f"query[{i}]": part.image_url
        for i, part in enumerate(parts)
        if isinstance(part, schemas.ImageUrlPart)
    }
    files: dict[str, bytes] = {}
    fetched = await service.fetcher.fetch_all(list(urls.values())) if urls else []
    for param, file in zip(urls, fetched, strict=True):
        if isinstance(file, VitrineError):
            raise file.at(f"{param}.image_url")
        files[param] = file
    return files


async def _part(
    service: Services, part: schemas.Part, param: str, uploads: dict[str, bytes], fetched: dict[str, bytes]
) -> QueryPart:
    if isinstance(part, schemas.TextPart):
        return QueryPart(part.text, part.weight)
    if isinstance(part, schemas.ProductPart | schemas.ProductImagePart):
        try:
            if isinstance(part, schemas.ProductPart):
                return QueryPart(await service.stored.product(part.product_id), part.weight)
            return QueryPart(await service.stored.image(part.image_id), part.weight)
        except VitrineError as error:
            raise error.at(f"{param}.{part.type}") from None
    data = fetched[param] if isinstance(part, schemas.ImageUrlPart) else await _file(part, param, uploads)
    box = part.box
    content = data if box is None else Cropped(data, Box(box.x, box.y, box.width, box.height))
    return QueryPart(content, part.weight)


async def _file(part: schemas.ImagePart, param: str, uploads: dict[str, bytes]) -> bytes:
    if (part.image is None) == (part.upload is None):
        raise InvalidInput("give either `image` or `upload`").at(param)
    if part.image is not None:
        return await decode_base64(part.image, f"{param}.image")
    if part.upload not in uploads:
        raise InvalidInput(f"the request has no file {part.upload!r}").at(f"{param}.upload")
    return uploads[part.upload]


@router.get("/attributes", summary="What products can be filtered by")
async def attributes(request: Request) -> AttributesResponse:
    """Sum up the attributes of products that have images, as they were at most half a minute ago.

    At most 50 attributes and 50 values of each, from at most 2,000 products.
    """
    summary = await services(request).attributes.current()
    attributes = [_attribute(each) for each in summary.attributes]
    return AttributesResponse(products_read=summary.products_read, attributes=attributes)


def _compare_response(compared: Compared, request_id: str) -> schemas.CompareResponse:
    shown = {
        hit.product_id: found.products[hit.product_id]
        for found in compared.lists.values()
        for hit in found.hits
    }
    return schemas.CompareResponse(
        lists=[_model_results(model, found) for model, found in compared.lists.items()],
        agreements=[
            schemas.Agreement.model_validate(each, from_attributes=True) for each in compared.agreements
        ],
        products={product_id: product_response(product) for product_id, product in shown.items()},
        skipped=compared.skipped,
        degraded=compared.degraded,
        request_id=request_id,
    )


def _model_results(model: str, found: SearchResult) -> schemas.ModelResults:
    results = [
        schemas.RankedProduct(
            product_id=hit.product_id,
            score=hit.score,
            image_id=hit.image_id,
            rerank_score=rerank_score(found, hit.product_id),
        )
        for hit in found.hits
    ]
    return schemas.ModelResults(model=model, results=results, **search_details(found))


def _attribute(attribute: products.Attribute) -> Attribute:
    values = sorted(attribute.values.items(), key=lambda each: (-each[1], str(each[0])))
    return Attribute(
        name=attribute.name,
        products=attribute.products,
        values=[
            AttributeValue(value=value, products=count) for value, count in values[: products.MAX_VALUES]
        ],
        more_values=len(values) > products.MAX_VALUES,
        minimum=attribute.minimum,
        maximum=attribute.maximum,
    )
