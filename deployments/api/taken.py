"""What a call takes as its body: one declaration that reads it and describes it in the OpenAPI document."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import FormData

from core.errors import InvalidInput, UnsupportedMediaType
from deployments.api.bodies import read_json
from deployments.api.forms import open_form, refuse_unknown

M = TypeVar("M", bound=BaseModel)

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


class Taken(Generic[M]):
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
            taken = JSON if self._form is None else f"{JSON} or {FORM}"
            raise UnsupportedMediaType(f"send the body as {taken}, and say so in Content-Type").at(
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
