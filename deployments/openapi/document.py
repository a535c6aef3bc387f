"""The OpenAPI document: what FastAPI knows of the routes, with bodies, errors, keys and examples."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from deployments.api.taken import FORM, JSON, REFERENCE
from deployments.door import needs_key
from deployments.openapi.examples import CallExample, RequestExample, examples
from deployments.openapi.failures import ErrorView, WeaviateErrorView, components, own_statuses, reference

Document = dict[str, Any]
ERRORS = (ErrorView, WeaviateErrorView)


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
    shape = "WeaviateErrorView" if "weaviate" in operation.get("tags", []) else "ErrorView"
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
