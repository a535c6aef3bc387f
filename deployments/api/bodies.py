"""Reading requests: query parameters, JSON, base64, each mistake named."""

import base64
import binascii
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from core.errors import InvalidInput
from deployments.threads import BODIES, run_in

M = TypeVar("M", bound=BaseModel)

INLINE_BYTES = 256 * 1024
"""Bodies above it are parsed in a thread: one of 32 MB would hold up every other request for 40 ms."""
_PIECE_CHARS = 1024 * 1024
"""Of base64; a multiple of 4, so that each piece is base64 by itself."""
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

    Raises:
        InvalidInput: it is neither.
    """
    if len(value) <= INLINE_BYTES:
        return _decode(value, param)
    return await run_in(BODIES, _decode, value, param)


def _decode(value: str, param: str) -> bytes:
    begin = 0
    if is_data_uri(value):
        begin = value.find(",") + 1
        if not value[:begin].lower().endswith(";base64,"):
            raise InvalidInput("a data URI must look like data:image/jpeg;base64,…").at(param)
    decoded = bytearray()
    try:
        # By pieces, as each holds the interpreter's lock until it is done: the event loop gets its turns between.
        for start in range(begin, len(value), _PIECE_CHARS):
            piece = base64.b64decode(value[start : start + _PIECE_CHARS], validate=True)
            decoded += piece
            if len(piece) < _PIECE_CHARS // 4 * 3 and start + _PIECE_CHARS < len(value):
                raise ValueError("padding before the end")
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
