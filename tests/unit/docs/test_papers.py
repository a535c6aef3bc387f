"""The changelog and the records of decisions have their form."""

import re

import pytest

from tests.codebase import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
RECORDS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
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


@pytest.mark.parametrize("number", range(1, len(RECORDS) + 1))
def test_a_decision_has_its_number_its_parts_and_a_row_of_the_index(number: int) -> None:
    record = RECORDS[number - 1]
    title, *parts = re.findall(r"(?m)^#+ (.+)$", record.read_text())
    assert record.name.startswith(f"{number:04d}-")
    assert parts == ["Context", "Decision", "Consequences"]
    name = title.removeprefix(f"{number}. ")
    assert f"| {number} | [{name}]({record.name}) |" in (ROOT / "docs" / "adr" / "README.md").read_text()
