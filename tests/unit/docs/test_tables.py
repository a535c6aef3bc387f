"""Generated tables of the docs are in step with the OpenAPI document and the configuration."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from core.errors import ConfigError
from deployments.config import GatewayArgs
from deployments.config_check.tables import BEGIN, END, fill, tables
from deployments.http import api_reference
from deployments.http.api_reference import BLOCK, blocks
from deployments.http.app import describe
from deployments.http.openapi import operations
from deployments.observability import metrics
from models.config import EncoderConfig

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_the_page_is_as_the_document_says() -> None:
    assert api_reference.fill(PAGE, describe()) == PAGE, (
        "run python -m deployments.http.api_reference docs/api.md"
    )


def test_the_page_has_every_call_and_none_more() -> None:
    assert {block[2] for block in BLOCK.finditer(PAGE)} == set(blocks(describe()))
    sections = re.findall(r"^### ([A-Z]+ /\S+)$", PAGE, re.MULTILINE)
    calls = [f"{method} {path}" for method, path, _ in operations(describe())]
    assert sorted(sections) == sorted(calls)
    assert re.findall(r"^\| \[`([A-Z]+ /\S+)`\]", PAGE, re.MULTILINE) == calls


ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "operations.md"


def test_the_document_holds_the_tables_that_the_code_gives() -> None:
    text = DOCUMENT.read_text()
    assert text == fill(text, BEGIN, END, tables()), "run `make generate`"
    assert text == fill(text, metrics.BEGIN, metrics.END, metrics.table()), "run `make generate`"


@pytest.mark.parametrize("model", [EncoderConfig, GatewayArgs])
def test_every_field_has_a_row_with_its_description(model: type[BaseModel]) -> None:
    text = tables()
    for name, field in model.model_fields.items():
        assert f"| `{name}` |" in text
        assert field.description, f"{model.__name__}.{name} says nothing of itself"
        assert field.description.replace("|", "\\|") in text


def test_settings_within_settings_have_rows_too() -> None:
    text = tables()
    assert "| `jobs.evaluation.quality_gate.max_drop` |" in text
    assert "| `milvus.index.min_ef` |" in text


def test_every_row_has_four_cells_and_a_description() -> None:
    rows = [line for line in tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    for row in rows:
        cells = row.replace("\\|", "").strip("|").split("|")
        assert len(cells) == 4, row
        assert cells[3].strip(), row


def test_text_around_a_table_is_left_alone() -> None:
    changed = fill(f"before\n{BEGIN}\nthe table of last year\n{END}\nafter\n", BEGIN, END, "new")
    assert changed == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the lines"):
        fill("nothing here", BEGIN, END, "new")
