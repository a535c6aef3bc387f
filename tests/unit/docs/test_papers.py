"""The changelog and the records of decisions have their form."""

import re
from pathlib import Path

import pytest

from tests.codebase import ROOT
from tests.support.interface import interface, unnamed

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
RECORDS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
NAMED = {"call", "command", "field", "label", "metric", "option", "parameter", "setting"}
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    versions = re.findall(r"(?m)^## (.+)$", CHANGELOG)
    assert versions[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d{2}-\d{2}", each) for each in versions[1:]]
    assert all(released)
    numbers = [tuple(map(int, each.groups())) for each in released if each]
    assert numbers == sorted(numbers, reverse=True)
    assert set(re.findall(r"(?m)^### (.+)$", CHANGELOG)) <= KINDS


def test_the_changelog_names_every_migration_of_the_database() -> None:
    migrations = {path.stem for path in (ROOT / "catalog" / "migrations" / "versions").glob("v*.py")}
    assert migrations
    assert set(re.findall(r"`(v\d+_\w+)`", CHANGELOG)) == migrations


def test_the_changelog_names_what_has_changed_since_the_last_version() -> None:
    folders = (ROOT / "tests" / "releases").iterdir()
    last = max(folders, key=lambda each: [int(number) for number in each.name.split(".")])
    before, now = set((last / "interface.txt").read_text().splitlines()), interface()
    # So that pages of another form are not read as a version without settings.
    for each in (before, now):
        assert {line.split()[0] for line in each} == NAMED
    # Until a version has a section of its own, its entries are among the unreleased ones.
    newer = CHANGELOG.partition(f"\n## [{last.name}]")[0]
    assert unnamed(before, now, newer) == []


def test_a_change_that_the_changelog_does_not_name_is_found() -> None:
    before = {"call GET /v1/a", "field f of A", "setting s.old of G = `1`", "setting s.kept of G = `1`"}
    now = {
        "call GET /v1/a",
        "call PUT /v1/a",
        "setting s.kept of G = `2`",
        "field new of A",
        "field n of New",
    }
    assert unnamed(before, now, "A new `f`, `s.old` and `PUT /v1/a/b`, and not the former one") == [
        "call PUT /v1/a",
        "field new of A",
        "setting s.kept of G = `1`",
        "setting s.kept of G = `2`",
    ]
    assert unnamed(before, now, "`f`, `s.old`, `PUT /v1/a`, `A.new`, `kept`") == []


@pytest.mark.parametrize("number", range(1, len(RECORDS) + 1))
def test_a_decision_has_its_number_its_parts_and_a_row_of_the_index(number: int) -> None:
    record = RECORDS[number - 1]
    title, *parts = re.findall(r"(?m)^#+ (.+)$", record.read_text())
    assert record.name.startswith(f"{number:04d}-")
    assert parts == ["Context", "Decision", "Consequences"]
    name = title.removeprefix(f"{number}. ")
    assert f"| {number} | [{name}]({record.name}) |" in (ROOT / "docs" / "adr" / "README.md").read_text()


@pytest.mark.parametrize("what", ["family of encoders", "source of imports", "route"])
def test_how_to_add_something_is_said_in_ten_steps_and_names_what_is_there(what: str) -> None:
    (section,) = re.findall(rf"(?ms)^## Add a {what}\n\n(.+?)(?=^## |\Z)", CONTRIBUTING)
    steps = re.findall(r"(?m)^\d+\. (.+)$", section)
    assert 0 < len(steps) <= 10
    for step in steps:
        spans = re.findall(r"`([^`]+)`", step)
        # A name is in one of the files that its step gives.
        text = "".join(each.read_text() for span in spans if "/" in span for each in sources(ROOT / span))
        names = {name for span in spans if (name := re.sub(r"\(.*\)$", "", span)).isidentifier()}
        assert not text or {name for name in names if not re.search(rf"\b{name}\b", text)} == set(), step


def sources(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]
