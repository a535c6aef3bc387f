"""Read requests: query parameters, JSON, forms with files, and images as base64 or URLs."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, cast

from fastapi import Depends, Request, Response
from fastapi.params import Security
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from catalog.fetching import texts
from catalog.fetching.fetcher import Fetcher
from core.concurrency import BODIES, run_in
from core.errors import InputTooLarge, InvalidInput, UnfetchableUrl, UnsupportedMediaType, VitrineError
from deployments.http.auth import check_scopes
from deployments.http.errors import invalid
from deployments.services.assembly import Services

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

JSON = "application/json"
FORM = "multipart/form-data"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"
INLINE_BYTES = 256 * 1024
"""Larger bodies are parsed in a thread: on the event loop, 32 MB would delay every other request by 40 ms."""
MAX_TEXTS = 100
MAX_FILES = 256
_BEYOND_A_LIMIT = ("Too many", "Part exceeded")
_NO_NUL = "a text may not hold the character NUL"


def services(request: Request) -> Services:
    """Return the services of the replica that answers this request."""
    current: Services = request.app.state.services
    return current


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read.

    It is `async` although it awaits nothing: FastAPI would run a plain function in a thread.

    Raises:
        InvalidInput: a parameter is unknown, or holds the character NUL, which databases refuse.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            choice = f"parameters: {', '.join(sorted(known))}" if known else "this call takes none"
            raise InvalidInput(f"unknown query parameter; {choice}").at(name)
        if any("\0" in value for value in request.query_params.getlist(name)):
            raise InvalidInput(_NO_NUL).at(name)


class File(NamedTuple):
    """A file of a form, and the name of its field."""

    field: str
    data: bytes


async def _files(request: Request) -> list[File]:
    files: list[File] = request.state.files
    return files


Files = Annotated[list[File], Depends(_files)]
"""A parameter of routes that take a form: its files, in order."""


def form(
    fields: dict[str, Any], required: Sequence[str] = (), other_files: str | None = None
) -> dict[str, Any]:
    """Declare that a route takes a form as well as JSON; return its `openapi_extra`, which BodyRoute reads.

    `fields` are schemas by `json_field`, `file_field` and `text_field`. The field with JSON holds the whole body.
    Text fields are single fields of the body. `other_files` describes files in fields of any other name.
    """
    schema = {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": file_field(other_files) if other_files else False,
    }
    encoding = {name: {"contentType": JSON} for name, field in fields.items() if "$ref" in field}
    return {"requestBody": {"content": {FORM: {"schema": schema, "encoding": encoding}}}}


def json_field(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a form field that holds the JSON of a body."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def text_field(description: str) -> dict[str, Any]:
    """Describe a form field that holds a text."""
    return {"type": "string", "description": description}


def file_field(description: str, several: bool = False) -> dict[str, Any]:
    """Describe a form field that holds a file, or several files."""
    file = {"type": "string", "format": "binary"}
    return (
        {"type": "array", "items": file, "description": description}
        if several
        else file | text_field(description)
    )


class BodyRoute(APIRoute):
    """Reads and checks the body that a route declares: JSON, or a form if `openapi_extra` has one.

    FastAPI parses on the event loop, accepts NaN and NUL, and does not accept both JSON and a form.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the body, and pass it to FastAPI's handler as the model that the route declares."""
        handle = super().get_route_handler()
        guards = [each for each in self.dependencies if isinstance(each, Security)]
        scopes = {scope for guard in guards for scope in guard.scopes or ()}

        async def read_and_handle(request: Request) -> Response:
            if self.body_field is None:
                return await handle(request)
            # FastAPI checks scopes after the body is read. A caller without the scope must not cause that work.
            check_scopes(request, scopes)
            model: Any = self.body_field.field_info.annotation
            return await handle(_ReadRequest(request, await self.read(request, model)))

        return read_and_handle

    async def read(self, request: Request, model: type[M]) -> M:
        """Read the body as the model that the route declares.

        Raises:
            UnsupportedMediaType, InputTooLarge, InvalidInput: the body is not as declared.
        """
        request.state.files = []
        content = (self.openapi_extra or {}).get("requestBody", {}).get("content", {})
        kind = media_type(request, (JSON, *content))
        if kind == FORM:
            return await _read_form(request, model, content[FORM]["schema"])
        return await _parse(await request.body(), model, "body")


def media_type(request: Request, accepted: Iterable[str]) -> str:
    """Return the declared type of the body, `application/json` for every kind of JSON.

    Raises:
        UnsupportedMediaType: it is none of the accepted types.
    """
    # Some clients leave out the header. Their bodies are JSON.
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind in accepted:
        return kind
    if kind == "" or (kind.startswith("application/") and kind.endswith("+json")):
        return JSON
    known = " or ".join(dict.fromkeys(accepted))
    message = f"send the body as {known}, and say so in Content-Type"
    raise UnsupportedMediaType(message).at("Content-Type")


class _ReadRequest(Request):
    """A request whose body has been read; FastAPI treats it as JSON."""

    def __init__(self, request: Request, body: BaseModel) -> None:
        headers = [each for each in request.scope["headers"] if each[0] != b"content-type"]
        headers.append((b"content-type", JSON.encode()))
        super().__init__({**request.scope, "headers": headers}, request.receive)
        self._read_body = body

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> BaseModel:
        return self._read_body


async def _parse(data: bytes | str, model: type[M], param: str) -> M:
    if len(data) <= INLINE_BYTES:
        return parse(data, model, param)
    return await run_in(BODIES, parse, data, model, param)


def parse(data: bytes | str, model: type[M], param: str) -> M:
    """Parse JSON as a model.

    Raises:
        InvalidInput: it is not JSON, or does not match the model; the error's `param` names the field.
    """
    value = parse_json(data, param)
    if not isinstance(value, dict):
        raise InvalidInput("send a JSON object").at(param)
    raw = data.encode() if isinstance(data, str) else data
    # Base64 holds no backslash: one character is found 80 times as fast as the whole escape.
    if b"\\" in raw and b"\\u0000" in raw:
        check_nul(value)
    return check_model(value, model, param)


def check_nul(value: dict[str, Any]) -> None:
    """Refuse the character NUL, which databases refuse.

    Raises:
        InvalidInput: a name or a value of this object holds it.
    """
    for name, item in value.items():
        if _holds_nul(name) or _holds_nul(item):
            raise InvalidInput(_NO_NUL).at(name)


def parse_json(data: bytes | str, param: str) -> Any:
    """Parse JSON.

    Raises:
        InvalidInput: it is not JSON.
    """
    try:
        # It is three times as fast as the json module, and both hold the interpreter's lock. It refuses NaN,
        # nesting beyond 200 levels, and lone surrogates, which no database can store.
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"this is not valid JSON: {error}").at(param) from None


def check_model(value: Any, model: type[T], param: str) -> T:
    """Read a value as a model, or as another type that pydantic knows.

    Raises:
        InvalidInput: it does not match; `param` is the place of an error that is about no field.
    """
    try:
        checked: T = _adapter(cast(Any, model)).validate_python(value)
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise invalid(first["msg"], first["loc"], param) from None


_adapter = cache(TypeAdapter[Any])


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


class _FormParser(MultiPartParser):
    spool_max_size = 16 * 2**20
    """Bytes of a file that are kept in memory. A file on disk takes a thread hop a chunk: with starlette's limit of
    1 MB, a photo of 3 MB took 14 ms of the event loop, and takes 4."""


async def _read_form(request: Request, model: type[M], form: dict[str, Any]) -> M:
    # The parser uses the charset that the caller names, and falls back to Latin-1. So it gets Latin-1, which
    # keeps all bytes. They are decoded as UTF-8 afterwards.
    content_type = request.headers["content-type"].encode("latin-1") + b"; charset=latin-1"
    headers = Headers(raw=[(b"content-type", content_type)])
    try:
        parsed = await _FormParser(
            headers, request.stream(), max_files=MAX_FILES, max_fields=MAX_TEXTS
        ).parse()
    except MultiPartException as error:
        if error.message.startswith(_BEYOND_A_LIMIT):
            raise InputTooLarge(error.message).at("body") from None
        raise InvalidInput(f"this form cannot be read: {error.message}").at("body") from None
    try:
        texts = await _read_fields(parsed, form, request.state.files)
    finally:
        await parsed.close()
    for name, schema in form["properties"].items():
        if "$ref" in schema:
            return await _parse(texts.get(name) or "{}", model, name)
    return check_model(texts, model, "body")


async def _read_fields(parsed: FormData, form: dict[str, Any], files: list[File]) -> dict[str, str]:
    """Append the files of a form to `files`, and return its texts by field."""
    known, texts = form["properties"], dict[str, str]()
    for raw_name, value in parsed.multi_items():
        name = _utf8(raw_name, "body")
        schema = known.get(name, form["additionalProperties"])
        if not schema:
            raise InvalidInput(f"unknown form field; fields: {', '.join(sorted(known))}").at(name)
        many, takes_file = "items" in schema or name not in known, "items" in schema or "format" in schema
        if not many and (name in texts or any(file.field == name for file in files)):
            raise InvalidInput("send this field once").at(name)
        if isinstance(value, str) == takes_file:
            raise InvalidInput(f"send this field as {'a file' if takes_file else 'text'}").at(name)
        if isinstance(value, str):
            texts[name] = _utf8(value, name)
        else:
            files.append(File(name, await value.read()))
            # At once, so that no two files are held twice.
            await value.close()
    if not texts and not files:
        raise InvalidInput("the form is empty").at("body")
    for name in form["required"]:
        if name not in texts and not any(file.field == name for file in files):
            raise InvalidInput(f"the form lacks the field `{name}`").at(name)
    return texts


def _utf8(latin: str, param: str) -> str:
    try:
        text = latin.encode("latin-1").decode()
    except UnicodeError:
        raise InvalidInput("text in a form must be UTF-8").at(param) from None
    if "\0" in text:
        raise InvalidInput(_NO_NUL).at(param)
    return text


async def read_images(sources: Sequence[str], fetcher: Fetcher) -> list[bytes | VitrineError]:
    """Read images, those behind URLs in parallel; return images and errors in the order of the sources."""
    urls = [source for source in sources if is_url(source)]
    fetched = iter(await fetcher.fetch_all(urls) if urls else [])
    decoded = iter(await decode_images([source for source in sources if not is_url(source)]))
    return [next(fetched if is_url(source) else decoded) for source in sources]


async def read_image(image: str | None, image_url: str | None, fetcher: Fetcher) -> tuple[str, bytes]:
    """Read the only image of a request; return the name of its field and its bytes."""
    if image is not None:
        return "image", await decode_base64(image, "image")
    try:
        return "image_url", await fetcher.fetch(str(image_url))
    except VitrineError as error:
        raise error.at("image_url") from None


async def decode_images(sources: Sequence[str]) -> list[bytes | VitrineError]:
    """Decode base64 and data URIs; return images and errors in the order of the sources."""
    return [await _decode_or_error(source) for source in sources]


async def _decode_or_error(source: str) -> bytes | VitrineError:
    try:
        return await decode_base64(source, "image")
    except InvalidInput as error:
        return error


def is_url(source: str) -> bool:
    """Return whether this is a URL to fetch, neither base64 nor a data URI."""
    return not is_data_uri(source) and texts.is_url(source)


def is_data_uri(value: str) -> bool:
    """Return whether this is a data URI; schemes are case-insensitive (RFC 3986, 3.1)."""
    return value[:5].lower() == "data:"


async def decode_base64(value: str, param: str) -> bytes:
    """Decode base64 or a base64 data URI, in a thread if it is large.

    It may use either alphabet of RFC 4648, with or without padding, and may contain line breaks.

    Raises:
        InvalidInput: it is neither.
    """
    if len(value) <= INLINE_BYTES:
        return _decode(value, param)
    return await run_in(BODIES, _decode, value, param)


def _decode(value: str, param: str) -> bytes:
    if is_data_uri(value) and not value.partition(",")[0].lower().endswith(";base64"):
        raise InvalidInput("a data URI must look like data:image/jpeg;base64,…").at(param)
    if texts.other_scheme(value):
        raise InvalidInput(f"{texts.ONLY_HTTP}; send such a URL, a data URI or base64").at(param)
    try:
        return (
            texts.read_data_uri(value) if is_data_uri(value) else texts.decode_base64(value.encode("ascii"))
        )
    except (ValueError, UnfetchableUrl):
        raise InvalidInput("not valid base64").at(param) from None
