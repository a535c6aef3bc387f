"""The examples of the docs that are no commands are what the service and its jobs take."""

import io
import json
from typing import Any

import yaml

from core.filters import parse_filter
from core.jobs import KINDS
from jobs.evaluation.queries import read_table
from milvus.config import MilvusConfig
from models.config import EncoderConfig
from tests.support.code_blocks import code_blocks
from vitrine.schemas.products import PutProductRequest
from vitrine.schemas.search import Rerank, SearchRequest


def bodies(page: str) -> list[dict[str, Any]]:
    return [body for block in code_blocks(page) if block.language == "json" for body in objects(block.text)]


def objects(text: str) -> list[dict[str, Any]]:
    """JSON objects that stand one behind another."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


def encoders(page: str) -> list[EncoderConfig]:
    read = [yaml.safe_load(block.text) for block in code_blocks(page) if block.language == "yaml"]
    applications = [each[0] if isinstance(each, list) else each for each in read]
    return [EncoderConfig.model_validate(each["args"]) for each in applications if "args" in each]


def test_the_search_in_full_and_the_filter_are_taken() -> None:
    search, condition, reranked = bodies("docs/searching.md")
    assert SearchRequest.model_validate(search).keyword_weight == 0.5
    assert parse_filter(condition)
    for body in (search, reranked):
        assert SearchRequest.model_validate(body).rerank == Rerank(model="blip2", depth=50)


def test_the_jobs_of_the_page_about_bulk_work_are_taken() -> None:
    jobs = [KINDS[body["kind"]].model_validate(body["args"]) for body in bodies("docs/imports.md")]
    assert len(jobs) == 5


def test_the_encoders_that_pages_show_can_be_configured() -> None:
    (captioner,) = encoders("docs/imports.md")
    (baseline,) = encoders("docs/migrating.md")
    assert (captioner.captions is not None, baseline.family) == (True, "timm")


def test_the_indexed_attributes_that_a_page_declares_can_be_configured() -> None:
    (text,) = [block.text for block in code_blocks("docs/upgrade.md") if block.language == "yaml"]
    milvus = MilvusConfig.model_validate(
        yaml.safe_load(text.replace("${VITRINE_MILVUS_URI}", "http://localhost:19530"))["milvus"]
    )
    assert {each.name: each.type for each in milvus.indexed_attributes} == {
        "color": "string",
        "price": "number",
        "on_sale": "bool",
    }


def test_what_is_brought_over_is_described_as_imports_take_it() -> None:
    row, job = bodies("docs/migrating.md")
    assert PutProductRequest.model_validate({name: row[name] for name in row if name != "product_id"}).images
    assert KINDS[job["kind"]].model_validate(job["args"])


def test_the_table_of_labels_can_be_read() -> None:
    (table,) = [block.text for block in code_blocks("docs/evaluation.md") if block.language == "csv"]
    rows = read_table("labels.csv", lambda: io.BytesIO(table.encode()))
    assert {row["query_id"] for row in rows} == {"q1", "q2", "q3"}
