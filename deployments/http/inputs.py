"""Turn images and queries of request bodies into domain types."""

from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request

from catalog.fetching.connections import is_url
from catalog.fetching.fetcher import Fetcher
from catalog.product_rows import is_product_id
from core.batching import input_bytes
from core.errors import InputTooLarge, InvalidInput, VitrineError
from core.filters import parse_filter
from core.search import QueryPart, SearchQuery, StoredPart
from core.types import Box, Cropped, ImageInput
from deployments.http.bodies import Form, RequestBody, decode_base64, files_of, parse, text_of
from deployments.services.assembly import Services
from vitrine.schemas import search as schemas
from vitrine.schemas.search import ImagePart, ImageUrlPart, Part, ProductImagePart, ProductPart, TextPart


async def read_images(sources: Sequence[str], fetcher: Fetcher) -> list[bytes | VitrineError]:
    """Read images, those behind URLs side by side; each succeeds or fails alone, in order."""
    fetched = iter(await fetcher.fetch_all([source for source in sources if _is_url(source)]))
    decoded = iter(await decode_images([source for source in sources if not _is_url(source)]))
    return [next(fetched if _is_url(source) else decoded) for source in sources]


async def decode_images(sources: Sequence[str]) -> list[bytes | VitrineError]:
    """Decode base64 and data URIs; each succeeds or fails alone, in order."""
    return [await _decode_or_error(source) for source in sources]


async def fetch_image(url: str, fetcher: Fetcher, param: str) -> bytes:
    """Fetch the one image of a request; the errors of `Fetcher.fetch` name `param`."""
    try:
        return await fetcher.fetch(url)
    except VitrineError as error:
        raise error.at(param) from None


def _is_url(source: str) -> bool:
    """Return whether this is a URL; base64 and data URIs never begin like one."""
    return source[:5].lower() != "data:" and is_url(source)


async def _decode_or_error(source: str) -> bytes | VitrineError:
    try:
        return await decode_base64(source, "image")
    except InvalidInput as error:
        return error


MAX_PARTS = 64
MAX_BYTES = 48 * 2**20
"""Most bytes of a query: it goes to a model in one call, and what carries the call takes 64 MB."""

B = TypeVar("B", bound=schemas.QueryRequest)


def query_of(kind: type[B]) -> RequestBody[B]:
    """Declare a body that holds a query: JSON, or a form with the JSON and the images as files."""
    return RequestBody(
        kind, Form(json={"request": kind}, any_file="An image file, named by a part's `upload`.")
    )


async def read_query(request: Request, service: Services, declared: RequestBody[B]) -> tuple[B, SearchQuery]:
    """Read a search as JSON, or as multipart with the JSON in the field `request` and files beside it.

    Returns the body, and its query of the ensemble; the route names another model.

    Raises:
        VitrineError: something is wrong; `param` names the field.
    """
    body, uploads = await _read(request, declared)
    service.check_page(body.limit, body.offset)
    parts = await _parts(service, body, uploads)
    named = () if body.include_query_products else _named_products(parts)
    return body, SearchQuery(
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
    )


async def _read(request: Request, declared: RequestBody[B]) -> tuple[B, dict[str, bytes]]:
    if not declared.is_form(request):
        return await declared.json(request), {}
    uploads = {}
    async with declared.form(request, MAX_PARTS) as form:
        body = parse(text_of(form, "request") or "{}", declared.model, "request")
        for field in dict.fromkeys(name for name in form if name != "request"):
            for index, data in enumerate(await files_of(form, field)):
                uploads[f"{field}[{index}]" if index else field] = data
    return body, uploads


async def _parts(
    service: Services, body: schemas.QueryRequest, uploads: dict[str, bytes]
) -> tuple[QueryPart, ...]:
    given = [TextPart(type="text", text=body.query)] if isinstance(body.query, str) else body.query
    named = {part.upload for part in given if isinstance(part, ImagePart)}
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


async def _fetched(service: Services, parts: Sequence[Part]) -> dict[str, bytes]:
    """Fetch the images that the parts name by URL, side by side."""
    urls = {f"query[{i}]": part.image_url for i, part in enumerate(parts) if isinstance(part, ImageUrlPart)}
    files = {}
    for param, file in zip(urls, await service.fetcher.fetch_all(list(urls.values())), strict=True):
        if isinstance(file, VitrineError):
            raise file.at(f"{param}.image_url")
        files[param] = file
    return files


async def _part(
    service: Services, part: Part, param: str, uploads: dict[str, bytes], fetched: dict[str, bytes]
) -> QueryPart:
    if isinstance(part, TextPart):
        return QueryPart(part.text, part.weight)
    if isinstance(part, ImagePart):
        return QueryPart(_cropped(await _file(part, param, uploads), part.box), part.weight)
    if isinstance(part, ImageUrlPart):
        return QueryPart(_cropped(fetched[param], part.box), part.weight)
    try:
        return QueryPart(await _stored(service, part), part.weight)
    except VitrineError as error:
        raise error.at(f"{param}.{part.type}") from None


async def _stored(service: Services, part: ProductPart | ProductImagePart) -> StoredPart:
    if isinstance(part, ProductPart):
        return await service.stored.product(part.product_id)
    return await service.stored.image(part.image_id)


def _cropped(data: bytes, box: schemas.Box | None) -> ImageInput:
    if box is None:
        return data
    return Cropped(data, Box(box.x, box.y, box.width, box.height))


async def _file(part: ImagePart, param: str, uploads: dict[str, bytes]) -> bytes:
    if (part.image is None) == (part.upload is None):
        raise InvalidInput("give either `image` or `upload`").at(param)
    if part.image is not None:
        return await decode_base64(part.image, f"{param}.image")
    if part.upload not in uploads:
        raise InvalidInput(f"the request has no file {part.upload!r}").at(f"{param}.upload")
    return uploads[part.upload]


def _named_products(parts: tuple[QueryPart, ...]) -> list[str]:
    return [part.content.product_id for part in parts if isinstance(part.content, StoredPart)]
