"""The OpenAPI document: examples and drawn requests are sent to a service, and what comes back is as it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from deployments.http.app import describe
from tests.support.documented_service import documented_service, examples, furnish, path_of, served_service

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with documented_service(tmp_path_factory.mktemp("document")) as app:
        content: dict[str, Any] = json.loads(json.dumps(app.openapi()))
        return content


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


CALLS = list(operations(describe()))


def schema_of(document: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    return {**content["schema"], "components": document["components"]}


def check(document: dict[str, Any], content: dict[str, Any], value: Any) -> None:
    jsonschema_rs.validator_for(schema_of(document, content)).validate(value)


@pytest.mark.parametrize(
    ("method", "path", "operation"), CALLS, ids=[f"{call[0]} {call[1]}" for call in CALLS]
)
async def test_examples_are_answered_as_documented(
    document: dict[str, Any], tmp_path: Path, method: str, path: str, operation: dict[str, Any]
) -> None:
    with documented_service(tmp_path) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await furnish(app, client)
            for example in examples(operation):
                answer = await client.request(method, path_of(path, operation), **example)
                check_answer(document, operation, answer)


def check_answer(document: dict[str, Any], operation: dict[str, Any], answer: httpx.Response) -> None:
    assert answer.is_success, answer.text
    contents = operation["responses"][str(answer.status_code)].get("content")
    if contents is None:
        assert answer.content == b""
        return
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in contents
    if kind == "application/json":
        check(document, contents[kind], answer.json())


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    for method, path, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                yield f"{method} {path}", content, example["value"]
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                if "example" in content:
                    yield f"{method} {path}", content, content["example"]


def test_the_examples_in_the_document_are_of_their_schemas(document: dict[str, Any]) -> None:
    seen = list(bodies(document))
    assert len(seen) > 50
    for call, content, value in seen:
        try:
            check(document, content, value)
        except jsonschema_rs.ValidationError as error:
            pytest.fail(f"{call}: {error}")


def test_every_call_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        answers = [answer for status, answer in operation["responses"].items() if status < "300"]
        contents = [content for answer in answers for content in answer.get("content", {}).items()]
        for kind, content in contents:
            assert "example" in content or kind.startswith("image/"), f"{method} {path}"
        bodies = operation.get("requestBody", {}).get("content", {})
        assert all(content["examples"] for content in bodies.values()), f"{method} {path}"


def test_every_call_says_what_it_takes_and_which_errors_it_answers(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        statuses = set(operation["responses"])
        assert {"422", "503"} <= statuses
        assert ("requestBody" in operation) == (method in ("PATCH", "POST", "PUT")), f"{method} {path}"
        if "requestBody" in operation:
            assert {"413", "415"} <= statuses
        assert ({"401", "403", "429"} <= statuses) == ("security" in operation)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                names.append(value["$ref"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    assert len(names) > 100
    for name in set(names):
        _, room, kind, part = name.split("/")
        assert part in document[room][kind]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    with served_service(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


DOCUMENT = schemathesis.openapi.from_dict(describe())
OPERATIONS = {each.ok().label: each.ok() for each in DOCUMENT.get_all_operations()}
CHECKS = [
    checks.not_a_server_error,
    *checks.CHECKS.get_by_names(
        [
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "response_headers_conformance",
        ]
    ),
]


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label, operation in OPERATIONS.items()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        # Without a parameter, a body or a key there is nothing that could be sent wrongly.
        if mode == GenerationMode.POSITIVE
        or {"parameters", "requestBody", "security"} & operation.definition.raw.keys()
    ],
)
def test_answers_are_as_documented(
    service: tuple[str, dict[str, str]], label: str, mode: GenerationMode
) -> None:
    url, headers = service
    operation = OPERATIONS[label]

    @settings(
        max_examples=25,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        case.validate_response(case.call(base_url=url, headers=headers), checks=CHECKS)

    send()
