"""The site of the documentation: built strictly, complete, and loading nothing from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import make_site
from tests.codebase import ROOT

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())
LOADED = re.compile(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"']?(https?:)?//")


def build(folder: Path, **settings: object) -> tuple[int, str]:
    """Build the pages of a folder into `site` beside it; returns the exit status and what was printed."""
    config = folder.parent / "mkdocs.yml"
    given = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "docs_dir": str(folder),
        "site_dir": str(folder.parent / "site"),
    }
    config.write_text(json.dumps(given | settings))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_no_link_is_broken_and_no_page_is_left_out(tmp_path: Path) -> None:
    make_site.lay_out(tmp_path / "pages")
    status, printed = build(tmp_path / "pages")
    assert status == 0, printed
    pages = sorted((tmp_path / "site").rglob("*.html"))
    # The page of an unknown address, the start, and the reference.
    assert len(pages) == len(make_site.pages()) + 2
    assert [str(page) for page in pages if LOADED.search(page.read_text())] == []
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    assert any("docs/reference/#post-v1search" in each["location"] for each in index["docs"])
    assert (tmp_path / "site" / "serve_config.yaml").read_text() == (ROOT / "serve_config.yaml").read_text()


@pytest.mark.slow
def test_broken_links_and_orphans_fail_the_build(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "README.md").write_text("# Start\n\n[a](none.md) [b](#none) [c](other.md#there)\n")
    (pages / "other.md").write_text("# Other\n\n## There\n")
    status, printed = build(pages, nav=["README.md"])
    assert status == 1
    assert "'none.md'" in printed
    assert "'#none'" in printed
    assert "- other.md" in printed
    assert "Aborted with 3 warnings" in printed


def test_the_reference_has_every_call_and_every_schema() -> None:
    page = "\n".join(make_site.reference(DOCUMENT))
    calls = [f"### {method.upper()} {path}\n" for path, each in DOCUMENT["paths"].items() for method in each]
    schemas = [f"### {name}\n" for name in DOCUMENT["components"]["schemas"]]
    assert [each for each in [*calls, *schemas] if each not in page] == []
    assert "| `keyword_weight` | number or null |  | Share of the keyword search in the ranking" in page
    assert "| **`product_id`** | string |" in page
    assert "[SearchRequest](#searchrequest)" in page


def test_lists_are_indented_as_mkdocs_reads_them_and_code_is_left_alone() -> None:
    text = (
        "Text:\n1. One:\n   ```sh\n   a \\\n     b\n   ```\n   - in it\n2. Two\n"
        "```yaml\na:\n   b: 1\n- c\n```\n| a |\n"
    )
    assert make_site.as_mkdocs_reads(text) == (
        "Text:\n\n1. One:\n    ```sh\n    a \\\n      b\n    ```\n\n    - in it\n\n2. Two\n"
        "```yaml\na:\n   b: 1\n- c\n```\n\n| a |\n"
    )
