"""Tables of the docs, and the OpenAPI document, are in step with the code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from core.errors import ConfigError
from core.jobs import KINDS
from deployments.config import GatewayArgs
from deployments.config_check.tables import BEGIN, END, fill, tables
from deployments.http.app import describe
from deployments.http.errors import kinds
from deployments.observability import metrics
from models.config import EncoderConfig

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "operations.md"


def test_the_document_of_the_api_is_as_the_routes_say() -> None:
    text = (ROOT / "docs" / "openapi.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(describe())), "run `make generate`"


def calls() -> list[str]:
    return [
        f"| `{method.upper()} {path}` | {call['summary']} | {scope_of(call)} |"
        for path, methods in describe()["paths"].items()
        for method, call in methods.items()
    ]


def scope_of(call: dict[str, Any]) -> str:
    scopes = [scope for each in call.get("security", []) for scope in each.get("ApiKey", [])]
    return scopes[-1] if scopes else "none"


def job_kinds() -> list[str]:
    rows = []
    for kind, args in KINDS.items():
        fields = [f"**{name}**" if each.is_required() else name for name, each in args.model_fields.items()]
        rows.append(f"| `{kind}` | {(args.__doc__ or '').partition('.')[0]}. | {', '.join(fields)} |")
    return rows


def failures() -> list[str]:
    return [f"| `{kind}` | {status} | {when} |" for kind, status, when in kinds()]


@pytest.mark.parametrize("rows", [calls, failures, job_kinds])
def test_the_page_of_the_api_has_the_rows_that_the_code_gives(rows: Callable[[], list[str]]) -> None:
    table = "\n".join(rows())
    assert f"--- |\n{table}\n\n" in (ROOT / "docs" / "api.md").read_text(), f"the table should be\n{table}"


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
