"""The commands and programs of README.md and docs/upgrade.md work as written, on a running service."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.service import DemoService
from tests.support.code_blocks import README_URL, ROOT, code_blocks, run_blocks

README, UPGRADE = "README.md", "docs/upgrade.md"
NOT_HERE = {
    "make demo": "tests/alone/test_demo.py starts what it starts",
}
WALK_S = 900


def shell_blocks(page: str) -> list[str]:
    return [block.text for block in code_blocks(page) if block.language == "sh"]


def test_the_calls_and_commands_of_the_readme_work_as_written(service: DemoService, tmp_path: Path) -> None:
    calls = [block for block in shell_blocks(README) if not block.startswith(tuple(NOT_HERE))]
    assert len(calls) == 5
    *answered, printed = run_blocks(calls, service.base_url, tmp_path, timeout_s=300)
    words, stored, changed, mixed = (json.loads(answer) for answer in answered)
    assert "dress" in words["results"][0]["product"]["title"]
    assert {model["state"] for model in stored["index"].values()} == {"indexed"}
    assert changed["product"]["attributes"] == {"color": "red", "price": 39}
    assert len(mixed["results"]) == 3
    assert mixed["results"][0]["product"]["attributes"]["color"] == "green"
    assert "green" in printed


def test_the_program_of_the_readme_works_as_written(
    service: DemoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (program,) = [block.text for block in code_blocks(README) if block.language == "python"]
    assert len([line for line in program.splitlines() if line]) == 4
    names: dict[str, Any] = {}
    exec(program.replace(README_URL, service.base_url), names)
    assert any(hit.product.attributes.get("color") == "green" for hit in names["page"].results)
    names["shop"].close()


def test_no_block_is_left_out() -> None:
    kinds = {block.language for page in (README, UPGRADE) for block in code_blocks(page)}
    # tests/unit/docs/test_examples.py reads the configuration.
    assert kinds == {"sh", "python", "mermaid", "text", "yaml"}
    assert all(any(block.startswith(each) for block in shell_blocks(README)) for each in NOT_HERE)


def test_the_walk_through_an_upgrade_leads_there_and_back(
    service: DemoService, client: httpx.Client, tmp_path: Path
) -> None:
    before = live(client)
    reported = dict(
        zip(
            shell_blocks(UPGRADE),
            run_blocks(shell_blocks(UPGRADE), service.base_url, tmp_path, WALK_S),
            strict=True,
        )
    )
    after_promotion = next(text for block, text in reported.items() if "vitrine promote" in block)
    assert re.search(r"yes +[0-9a-f]{12} +144", after_promotion)
    brought_up = next(text for block, text in reported.items() if "vitrine rollback" in block)
    assert "walk-dress" in brought_up
    statuses = next(text for block, text in reported.items() if "uniq -c" in block).split()
    assert statuses[1:] == ["200"]
    assert int(statuses[0]) > 20
    (report,) = tmp_path.glob("*.html")
    assert "dinov2:candidate" in report.read_text()
    assert live(client) == before
    assert [each["live"] for each in client.get("/v1/models/dinov2/versions").json()] == [True]


def live(client: httpx.Client) -> list[str]:
    known = client.get("/v1/models/dinov2/versions").json()
    return [each["fingerprint"] for each in known if each["live"]]
