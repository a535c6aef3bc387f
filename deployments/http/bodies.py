"""Read request bodies: JSON, multipart forms and base64, and declare them for OpenAPI."""

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.concurrency import BODIES, run_in
from core.errors import InputTooLarge, InvalidInput, UnsupportedMediaType, VitrineError

M = TypeVar("M", bound=BaseModel)

INLINE_BYTES = 256 * 1024
"""Bodies above it are parsed in a thread: one of 32 MB would hold up every other request for 40 ms."""
_PIECE_CHARS = 1024 * 1024
"""Of base64, decoded at once: each piece holds the interpreter's lock until it is done."""
_ALPHABET = bytes.maketrans(b"-_=", b"+/!")
"""From the URL-safe alphabet of RFC 4648 to the other; padding before the end is wrong, as ! is in both."""
_WHITESPACE = b" \t\n\v\f\r"
_NO_NUL = "a text may not hold the character NUL"


async def read_json(request: Request, model: type[M]) -> M:
    """Read a JSON body.

    Raises:
        InvalidInput: it is not JSON, or not of this form; `param` names the field.
    """
    body = await request.body()
    if len(body) <= INLINE_BYTES:
        return parse(body, model)
    return await run_in(BODIES, parse, body, model)


def parse(data: bytes | str, model: type[M], param: str = "body") -> M:
    """Check JSON text against a model; same errors as `read_json`."""
    try:
        # Three times as fast as the json module, which matters as both hold the interpreter's lock; and it
        # refuses NaN, nesting beyond 200 and halves of characters, which no database can keep.
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"this is not valid JSON: {error}").at(param) from None
    if not isinstance(value, dict):
        raise InvalidInput("send a JSON object").at(param)
    if "\\u0000" in data if isinstance(data, str) else b"\\u0000" in data:
        _refuse_nul(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(_lower_first(first["msg"])).at(_path(first["loc"]) or param) from None


def is_data_uri(value: str) -> bool:
    """Tell a data URI from other text; schemes are the same in either case (RFC 3986, 3.1)."""
    return value[:5].lower() == "data:"


async def decode_base64(value: str, param: str) -> bytes:
    """Decode base64 or a base64 data URI, in a thread where it is large.

    Both alphabets of RFC 4648 are read, with or without padding, also in lines.

    Raises:
        InvalidInput: it is neither.
    """
    if len(value) <= INLINE_BYTES:
        return _decode(value, param)
    return await run_in(BODIES, _decode, value, param)


def _decode(value: str, param: str) -> bytes:
    if is_data_uri(value):
        head, comma, value = value.partition(",")
        if not (head + comma).lower().endswith(";base64,"):
            raise InvalidInput("a data URI must look like data:image/jpeg;base64,…").at(param)
        value = unquote(value)
    end = len(value.rstrip(f"={_WHITESPACE.decode()}"))
    decoded, rest = bytearray(), b""
    try:
        for start in range(0, end, _PIECE_CHARS):
            piece = value[start : min(start + _PIECE_CHARS, end)].encode("ascii")
            rest += piece.translate(_ALPHABET, _WHITESPACE)
            whole = len(rest) // 4 * 4
            decoded += base64.b64decode(rest[:whole], validate=True)
            rest = rest[whole:]
        decoded += base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("not valid base64").at(param) from None
    return bytes(decoded)


def _refuse_nul(value: dict[str, Any]) -> None:
    for name, item in value.items():
        if _holds_nul(name) or _holds_nul(item):
            raise InvalidInput(_NO_NUL).at(name)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _path(location: tuple[int | str, ...]) -> str:
    """Write a location as a caller would; tags of unions begin with a colon and are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(":"):
            text += f".{part}" if text else part
    return text


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


MAX_TEXTS = 100
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{1,70}")
_BEYOND_A_LIMIT = ("Too many", "Part exceeded")


@asynccontextmanager
async def open_form(request: Request, max_files: int) -> AsyncIterator[FormData]:
    """Read a multipart form; the context holds its files open.

    Raises:
        InvalidInput: it cannot be parsed, or a text is not UTF-8.
        InputTooLarge: it has too many files, or too much text.
    """
    # The parser falls back to Latin-1, and what other charsets make of text is the caller's guess; so it
    # reads all as Latin-1, which keeps the bytes, and they are read as UTF-8 after it.
    content_type = b'multipart/form-data; charset=latin-1; boundary="' + _boundary(request) + b'"'
    headers = Headers(raw=[(b"content-type", content_type)])
    parser = MultiPartParser(headers, request.stream(), max_files=max_files, max_fields=MAX_TEXTS)
    try:
        raw = await parser.parse()
    except MultiPartException as error:
        raise _refusal(error.message) from None
    try:
        yield FormData([(_utf8(name), _content(name, value)) for name, value in raw.multi_items()])
    finally:
        await raw.close()


async def files_of(form: FormData, field: str) -> list[bytes]:
    """Read all files of a form field, in order."""
    files = []
    for index, value in enumerate(form.getlist(field)):
        if not isinstance(value, UploadFile):
            raise InvalidInput("send images as files").at(f"{field}[{index}]")
        files.append(await value.read())
    return files


def text_of(form: FormData, field: str) -> str | None:
    """Read a text field of a form, None when it is missing."""
    values = form.getlist(field)
    if len(values) > 1:
        raise InvalidInput("send this field once").at(field)
    value = form.get(field)
    if isinstance(value, UploadFile):
        raise InvalidInput("send this field as text, not as a file").at(field)
    return value


def refuse_unknown(form: FormData, known: set[str]) -> None:
    """Refuse form fields that nothing reads."""
    for name in form:
        if name not in known:
            raise InvalidInput(f"unknown form field; fields: {', '.join(sorted(known))}").at(name)


def _boundary(request: Request) -> bytes:
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidInput("multipart/form-data needs a boundary as RFC 2046 has it").at("Content-Type")
    return boundary


def _refusal(message: str) -> VitrineError:
    if message.startswith(_BEYOND_A_LIMIT):
        return InputTooLarge(message).at("body")
    return InvalidInput(f"this form cannot be read: {message}").at("body")


def _content(name: str, value: str | UploadFile) -> str | UploadFile:
    return _utf8(value, _utf8(name)) if isinstance(value, str) else value


def _utf8(latin: str, param: str = "body") -> str:
    try:
        text = latin.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidInput("text in a form must be UTF-8").at(param) from None
    if "\0" in text:
        raise InvalidInput("a text may not hold the character NUL").at(param)
    return text


JSON = "application/json"
FORM = "multipart/form-data"
REFERENCE = "#/components/schemas/{model}"
_FILE = {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a multipart form, with what each is.

    `json` are fields that hold JSON of a model; `files` names fields with one file, `file_lists` fields
    that may come several times. With `any_file` all other fields are files too.
    """

    json: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    file_lists: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    any_file: str | None = None

    @property
    def names(self) -> set[str]:
        """All fields that are known by name."""
        return {*self.json, *self.texts, *self.files, *self.file_lists}

    def described(self) -> dict[str, Any]:
        """The content of this form in an OpenAPI document."""
        fields: dict[str, Any] = {name: _schema(model) for name, model in self.json.items()}
        fields |= {name: {"type": "string", "description": what} for name, what in self.texts.items()}
        fields |= {name: {**_FILE, "description": what} for name, what in self.files.items()}
        for name, what in self.file_lists.items():
            fields[name] = {"type": "array", "items": _FILE, "description": what}
        others: Any = {**_FILE, "description": self.any_file} if self.any_file else False
        schema = {"type": "object", "properties": fields, "additionalProperties": others}
        if self.required:
            schema["required"] = list(self.required)
        return {"schema": schema, "encoding": {name: {"contentType": JSON} for name in self.json}}


class RequestBody(Generic[M]):
    """A body: JSON of a model, or where there is a form, that as well."""

    def __init__(self, model: type[M], form: Form | None = None) -> None:
        self.model = model
        self._form = form

    @property
    def described(self) -> dict[str, Any]:
        """What a route says of it: the argument `openapi_extra`."""
        content: dict[str, Any] = {JSON: {"schema": _schema(self.model)}}
        if self._form is not None:
            content[FORM] = self._form.described()
        return {"requestBody": {"required": True, "content": content}}

    async def json(self, request: Request) -> M:
        """Read a JSON body.

        Raises:
            UnsupportedMediaType: the body says that it is something else.
            InvalidInput: it is not JSON, or not of this form; `param` names the field.
        """
        self.is_form(request)
        return await read_json(request, self.model)

    def is_form(self, request: Request) -> bool:
        """Tell a form from JSON by the header Content-Type; without one, which some clients leave out, it is JSON.

        Raises:
            UnsupportedMediaType: it is neither, or a form where none is taken.
        """
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind == FORM and self._form is not None:
            return True
        if kind not in (JSON, "") and not (kind.startswith("application/") and kind.endswith("+json")):
            accepted = JSON if self._form is None else f"{JSON} or {FORM}"
            raise UnsupportedMediaType(f"send the body as {accepted}, and say so in Content-Type").at(
                "Content-Type"
            )
        return False

    @asynccontextmanager
    async def form(self, request: Request, max_files: int) -> AsyncIterator[FormData]:
        """Read a form with no other fields than these; the context holds its files open.

        Raises:
            InvalidInput: it cannot be parsed, or has other fields, or lacks one.
            InputTooLarge: it has too many files, or too much text.
        """
        assert self._form is not None
        async with open_form(request, max_files) as form:
            if not self._form.any_file:
                refuse_unknown(form, self._form.names)
            for name in self._form.required:
                if name not in form:
                    raise InvalidInput(f"the form lacks the field `{name}`").at(name)
            yield form


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template=REFERENCE)
