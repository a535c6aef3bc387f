"""Search, and embeddings for their own sake."""

from fastapi import APIRouter, Request

from core.errors import InvalidInput, VitrineError
from core.filters import parse_filter
from core.search import QueryPart
from core.types import EncoderInput
from deployments.api.answers import EmbeddingView, SearchView
from deployments.api.bodies import decode_base64, files_of, is_multipart, open_form, parse, read_json, text_of
from deployments.api.requests import EmbedBody, ImagePart, Part, SearchBody, TextPart
from deployments.searches import Request as SearchRequest
from deployments.services import Services, services

MAX_PARTS = 64

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/search", summary="Search by picture, words, products, or all of them")
async def search(request: Request) -> SearchView:
    """Find products.

    JSON, or multipart with the same JSON in the field `request` and picture files in other fields. A
    file that no part of the query names as its `upload` joins the query with weight 1.
    """
    service = services(request)
    body, uploads = await _read_search(request)
    service.check_page(body.limit, body.offset)
    parts = await _parts(service, body, uploads)
    found = await service.search.search(
        SearchRequest(
            parts=parts,
            model=body.model,
            limit=body.limit,
            offset=body.offset,
            filter=parse_filter(body.filter) if body.filter is not None else None,
            exclude_products=tuple(body.exclude),
            weights=body.weights,
            fusion=body.fusion,
        )
    )
    return SearchView.of(found, request.state.request_id)


@router.post("/embed/{model}", summary="Embed one picture or one text")
async def embed(model: str, request: Request) -> EmbeddingView:
    """Return the unit vector of one picture (a multipart file `image`, or base64) or of one text."""
    encoders = services(request).encoders
    item = await _read_embed(request)
    await encoders.require(model, [item])
    encoded = await encoders.get(model).encode([item])
    vector = encoded.vectors[0]
    if isinstance(vector, VitrineError):
        raise vector.at("text" if isinstance(item, str) else "image")
    return EmbeddingView(
        model=model,
        fingerprint=encoded.info.fingerprint,
        dimension=encoded.info.dimension,
        embedding=[float(value) for value in vector],
        timings_ms={stage: round(ms, 3) for stage, ms in encoded.timings_ms.items()},
        request_id=request.state.request_id,
    )


async def _read_search(request: Request) -> tuple[SearchBody, dict[str, bytes]]:
    if not is_multipart(request):
        return await read_json(request, SearchBody), {}
    uploads = {}
    async with open_form(request, MAX_PARTS) as form:
        body = parse(text_of(form, "request") or "{}", SearchBody, "request")
        for field in dict.fromkeys(name for name in form if name != "request"):
            for index, data in enumerate(await files_of(form, field)):
                uploads[f"{field}[{index}]" if index else field] = data
    return body, uploads


async def _parts(service: Services, body: SearchBody, uploads: dict[str, bytes]) -> tuple[QueryPart, ...]:
    given = [TextPart(type="text", text=body.query)] if isinstance(body.query, str) else body.query
    parts = [await _part(service, part, f"query[{i}]", uploads) for i, part in enumerate(given)]
    named = {part.upload for part in given if isinstance(part, ImagePart)}
    parts += [QueryPart(data) for name, data in uploads.items() if name not in named]
    if not parts:
        raise InvalidInput("the query is empty; give words, a picture or a product").at("query")
    if len(parts) > MAX_PARTS:
        raise InvalidInput(f"a query may have at most {MAX_PARTS} parts").at("query")
    return tuple(parts)


async def _part(service: Services, part: Part, param: str, uploads: dict[str, bytes]) -> QueryPart:
    if isinstance(part, TextPart):
        return QueryPart(part.text, part.weight)
    if isinstance(part, ImagePart):
        return QueryPart(_picture(part, param, uploads), part.weight)
    try:
        return QueryPart(await service.search.stored_part(part.product_id), part.weight)
    except VitrineError as error:
        raise error.at(f"{param}.product_id") from None


def _picture(part: ImagePart, param: str, uploads: dict[str, bytes]) -> bytes:
    if (part.image is None) == (part.upload is None):
        raise InvalidInput("give either `image` or `upload`").at(param)
    if part.image is not None:
        return decode_base64(part.image, f"{param}.image")
    if part.upload not in uploads:
        raise InvalidInput(f"the request has no file {part.upload!r}").at(f"{param}.upload")
    return uploads[part.upload]


async def _read_embed(request: Request) -> EncoderInput:
    if is_multipart(request):
        async with open_form(request, 1) as form:
            files = await files_of(form, "image")
            if len(form) != 1 or not files:
                raise InvalidInput("send one file in the form field `image`").at("image")
            return files[0]
    body = await read_json(request, EmbedBody)
    if body.text is not None and body.image is None:
        return body.text
    if body.image is not None and body.text is None:
        return decode_base64(body.image, "image")
    raise InvalidInput("give either `text` or `image`").at("body")
