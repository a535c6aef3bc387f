"""Schemathesis sends what the OpenAPI document allows, and what it does not, to every call."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from deployments.http.app import describe
from tests.support.documented_service import served_service


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
