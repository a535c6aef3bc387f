"""Reading requests: query parameters, JSON, base64, each mistake named."""

import asyncio
import base64
import binascii
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from core.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)

INLINE_BYTES = 256 * 1024
"""Bodies above it are parsed in a thread: one of 32 MB would hold up every other request for 40 ms."""
_NO_NUL = "a text may not hold the character NUL"


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read; a dependency of every route.

    It waits for nothing; FastAPI would run a plain function in a thread, at the cost of two switches.

    Raises:
        InvalidInput: one is unknown, or holds a NUL, which databases refuse.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            choice = f"parameters: {', '.join(sorted(known))}" if known else "this call takes none"
            raise InvalidInput(f"unknown query parameter; {choice}").at(name)
        if any("\0" in value for value in request.query_params.getlist(name)):
            raise InvalidInput(_NO_NUL).at(name)


async def read_json(request: Request, model: type[M]) -> M:
    """Read a JSON body.

    Raises:
        InvalidInput: it is not JSON, or not of this form; `param` names the field.
    """
    body = await request.body()
    if len(body) <= INLINE_BYTES:
        return parse(body, model)
    return await asyncio.to_thread(parse, body, model)


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


def decode_base64(value: str, param: str) -> bytes:
    """Decode base64 or a base64 data URI.

    Raises:
        InvalidInput: it is neither.
    """
    encoded = value
    if is_data_uri(value):
        head, comma, encoded = value.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidInput("a data URI must look like data:image/jpeg;base64,…").at(param)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("not valid base64").at(param) from None


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
