"""Reading requests: JSON or multipart, base64 or files, each mistake named."""

import base64
import binascii
import json
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from core.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)


def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read; a dependency of every route.

    Raises:
        InvalidInput: one is unknown.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            choice = f"parameters: {', '.join(sorted(known))}" if known else "this call takes none"
            raise InvalidInput(f"unknown query parameter; {choice}").at(name)


async def read_json(request: Request, model: type[M]) -> M:
    """Read a JSON body.

    Raises:
        InvalidInput: it is not JSON, or not of this form; `param` names the field.
    """
    return parse(await request.body(), model)


def parse(data: bytes | str, model: type[M], param: str = "body") -> M:
    """Check JSON text against a model; same errors as `read_json`."""
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidInput("the JSON is nested too deeply").at(param) from None
    except ValueError as error:
        raise InvalidInput(f"this is not valid JSON: {error}").at(param) from None
    if not isinstance(value, dict):
        raise InvalidInput("send a JSON object").at(param)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(_lower_first(first["msg"])).at(_path(first["loc"]) or param) from None


def is_multipart(request: Request) -> bool:
    """Tell whether the request carries a form with files."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def open_form(request: Request, max_files: int) -> AbstractAsyncContextManager[FormData]:
    """Read a multipart form; the context holds its files open.

    Raises:
        HTTPException: it cannot be parsed or has too many files.
    """
    return request.form(max_files=max_files, max_fields=100)


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
    value = form.get(field)
    if isinstance(value, UploadFile):
        raise InvalidInput("send this field as text, not as a file").at(field)
    return value


def refuse_unknown(form: FormData, known: set[str]) -> None:
    """Refuse form fields that nothing reads."""
    for name in form:
        if name not in known:
            raise InvalidInput(f"unknown form field; fields: {', '.join(sorted(known))}").at(name)


def decode_base64(value: str, param: str) -> bytes:
    """Decode base64 or a base64 data URI.

    Raises:
        InvalidInput: it is neither.
    """
    encoded = value
    if value.startswith("data:"):
        head, comma, encoded = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidInput("a data URI must look like data:image/jpeg;base64,…").at(param)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("not valid base64").at(param) from None


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


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
