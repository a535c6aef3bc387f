"""docs/api.md is in step with the OpenAPI document."""

import json
import re
from pathlib import Path

from core.filters.parse import parse_filter
from deployments.ingress import describe
from deployments.openapi.document import operations
from deployments.openapi.page import BLOCK, blocks, fill

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_the_page_is_as_the_document_says() -> None:
    assert fill(PAGE, describe()) == PAGE, "run python -m deployments.openapi docs/api.md"


def test_the_page_has_every_call_and_none_more() -> None:
    assert {block[2] for block in BLOCK.finditer(PAGE)} == set(blocks(describe()))
    sections = re.findall(r"^### ([A-Z]+ /\S+)$", PAGE, re.MULTILINE)
    calls = [f"{method} {path}" for method, path, _ in operations(describe())]
    assert sorted(sections) == sorted(calls)
    assert re.findall(r"^\| \[`([A-Z]+ /\S+)`\]", PAGE, re.MULTILINE) == calls


def test_the_filter_that_the_page_shows_is_one() -> None:
    (shown,) = re.findall(r"\*\*Filters\.\*\*.*?```json\n(.*?)\n```", PAGE, re.DOTALL)
    assert parse_filter(json.loads(shown)) is not None
