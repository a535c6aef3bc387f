"""Build the OpenAPI document: request bodies, errors, security and examples."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import Field
from pydantic.json_schema import models_json_schema

from core.config import Config
from core.errors import VitrineError
from deployments.http.auth import needs_key
from deployments.http.bodies import FORM, JSON, REFERENCE
from deployments.http.errors import status_of
from vitrine.schemas.base import ErrorResponse, WeaviateErrorResponse

FOLDER = Path(__file__).parent / "examples"


class RequestExample(Config):
    """A request; a string `@file` in a form stands for the file of that name, as in curl."""

    name: str = Field(description="What it shows, in a few words.")
    path: dict[str, str] = Field({}, description="Values of the parameters in the path.")
    query: dict[str, str | int] = Field({}, description="Query parameters.")
    json_body: dict[str, Any] | None = Field(None, alias="json", description="The JSON body.")
    form: dict[str, Any] | None = Field(None, description="The fields of a multipart body; objects are JSON.")


class CallExample(Config):
    """What is sent to one call, and what it answers to the first of the requests."""

    requests: tuple[RequestExample, ...] = Field(min_length=1, description="At least one request.")
    answer: Any = Field(None, description="The JSON or text of the answer; none where it is a file or empty.")


@cache
def examples() -> dict[str, CallExample]:
    """Read all examples, by the operation id of their call."""
    return {
        operation: CallExample.model_validate(example)
        for file in sorted(FOLDER.glob("*.yaml"))
        for operation, example in yaml.safe_load(file.read_text()).items()
    }


_HEADERS = {
    401: {"WWW-Authenticate": "How to send a key."},
    429: {"Retry-After": "Seconds after which one more request is taken."},
    503: {"Retry-After": "Seconds after which it is worth trying again."},
}


def kinds() -> Iterator[tuple[str, int, str]]:
    """List the errors that may be answered: type, status, and when."""
    for error in _tree(VitrineError):
        status = status_of(error(""))
        if status != 500:
            when = " ".join((error.__doc__ or "").partition("\n\n")[0].partition("; `")[0].split())
            yield error.kind, status, when.rstrip(".")


def components(shape: str) -> dict[str, Any]:
    """The answers that calls refer to, with errors in a shape."""
    return {reference(status, shape): _error_response(status, shape) for status in sorted(_statuses())}


def reference(status: int, shape: str) -> str:
    """Name an answer within the components of the document."""
    return f"{shape.removesuffix('Response')}{status}"


def own_statuses(operation: dict[str, Any], guarded: bool) -> list[int]:
    """Tell what a call can answer because it is a call, needs a key, or takes a body."""
    return [
        422,
        503,
        *([401, 403, 429] if guarded else []),
        *([413, 415] if "requestBody" in operation else []),
    ]


def _error_response(status: int, shape: str) -> dict[str, Any]:
    lines = [f"`{kind}`: {when}." for kind, each, when in kinds() if each == status]
    headers = {
        name: {"description": what, "schema": {"type": "string"}}
        for name, what in _HEADERS.get(status, {}).items()
    }
    schema = {"$ref": f"#/components/schemas/{shape}"}
    return {
        "description": " ".join(lines),
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _statuses() -> set[int]:
    return {status for _, status, _ in kinds()}


def _tree(root: type[VitrineError]) -> Iterator[type[VitrineError]]:
    """Walk the errors of `core/errors.py`, each after its parent."""
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


Document = dict[str, Any]
ERRORS = (ErrorResponse, WeaviateErrorResponse)


class DocumentedApp(FastAPI):
    """A FastAPI application whose document says all that its calls take and answer."""

    def openapi(self) -> Document:
        """Build the document once."""
        if self.openapi_schema is None:
            self.openapi_schema = _build(self)
        return self.openapi_schema


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """List method, path and description of every call, in the order of the routes."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _build(app: FastAPI) -> Document:
    document = get_openapi(
        title=app.title, summary=app.summary, version=version("vitrine"), routes=app.routes
    )
    parts = document["components"]
    _, described = models_json_schema([(model, "serialization") for model in ERRORS], ref_template=REFERENCE)
    parts["schemas"] |= described["$defs"]
    parts["responses"] = {name: each for shape in ERRORS for name, each in components(shape.__name__).items()}
    parts["securitySchemes"]["ApiKeyHeader"] = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    for _, path, operation in operations(document):
        _take_over_bodies(operation, parts["schemas"])
        _add_failures(operation, path)
        for scopes in [each["ApiKey"] for each in operation.get("security", [])]:
            operation["security"].append({"ApiKeyHeader": scopes})
        if operation["operationId"] in examples():
            _add_examples(operation, examples()[operation["operationId"]])
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    return document


def _take_over_bodies(operation: Document, schemas: Document) -> None:
    """Move the schemas of a body, which stand in it whole, to where all calls find them."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        fields = content["schema"].get("properties", {})
        for name in content.get("encoding", {}):
            fields[name] = _moved(fields[name], schemas)
        if "encoding" not in content:
            content["schema"] = _moved(content["schema"], schemas)


def _moved(schema: Document, schemas: Document) -> Document:
    schemas |= schema.pop("$defs", {})
    schemas[schema["title"]] = schema
    return {"$ref": REFERENCE.format(model=schema["title"])}


def _add_failures(operation: Document, path: str) -> None:
    answers = operation["responses"]
    shape = "WeaviateErrorResponse" if "weaviate" in operation.get("tags", []) else "ErrorResponse"
    declared = [int(status) for status in answers if int(status) >= 400]
    for status in sorted({*declared, *own_statuses(operation, needs_key(path))}):
        own = answers.pop(str(status), {}).get("content", {}).get(JSON, {}).get("schema")
        answers[str(status)] = {"$ref": f"#/components/responses/{reference(status, shape)}"}
        if own is not None and own != {"$ref": "#/components/schemas/HTTPValidationError"}:
            either = [own, {"$ref": REFERENCE.format(model=shape)}]
            content = {JSON: {"schema": {"anyOf": either}}}
            answers[str(status)] = {"description": "Not ready, or out of time.", "content": content}


def _add_examples(operation: Document, call: CallExample) -> None:
    contents = operation.get("requestBody", {}).get("content", {})
    for request in call.requests:
        body = request.json_body if request.form is None else request.form
        if body is not None:
            kind = JSON if request.form is None else FORM
            contents[kind].setdefault("examples", {})[request.name] = {"value": body}
        _add_parameters(operation, request)
    for status, answer in operation["responses"].items():
        if status.startswith("2") and call.answer is not None:
            (content,) = answer["content"].values()
            content["example"] = call.answer


def _add_parameters(operation: Document, request: RequestExample) -> None:
    values = request.path | request.query
    for parameter in operation.get("parameters", []):
        if parameter["name"] in values:
            parameter.setdefault("example", values[parameter["name"]])
