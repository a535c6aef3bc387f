"""Reading multipart forms: texts in UTF-8, files, each mistake named."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from core.errors import InputTooLarge, InvalidInput, VitrineError

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
            raise InvalidInput("send pictures as files").at(f"{field}[{index}]")
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
