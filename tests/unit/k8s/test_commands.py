"""What operators copy from the pages calls what there is, and figures are those of the manifests."""

import gzip
import json
import re
import shlex

import pytest
import typer

from deployments.proxy.ray_environment import RAY_DEFAULTS
from tests.support.code_blocks import code_blocks
from tests.support.manifests import K8S, RENDERED, ROOT, cluster_of, env_of, offered, ray_pods, rayservice
from tests.support.placement import deployments_of
from vitrine.cli.main import app

PAGES = ("docs/operations.md", "docs/backup.md", "k8s/README.md")
TEXT = (ROOT / "docs" / "operations.md").read_text()
SHELL = "\n".join(block.text for page in PAGES for block in code_blocks(page) if block.language == "sh")


def test_folders_that_are_applied_are_rendered_by_tests() -> None:
    named = set(re.findall(r"kubectl (?:apply|create|diff) -k k8s/(\S+)", SHELL))
    assert {"overlays/gpu", "milvus", "jobs/weights", "jobs/build"} <= named <= set(RENDERED)


def test_an_empty_cluster_takes_ten_commands_each_with_what_it_prints_and_what_to_do_when_not() -> None:
    text = (K8S / "README.md").read_text()
    steps = re.split(r"(?m)^\*\*\d+\.\*\* ", text)[1:]
    assert len(steps) == len(code_blocks("k8s/README.md")) == 10
    for step in steps:
        said = re.findall(r"(?m)^- (.+)$", step)
        assert said[0].startswith("Prints "), step
        assert len(said) >= 2, step


def test_commands_of_vitrine_take_the_options_that_are_shown() -> None:
    (block,) = (each.text for each in code_blocks("k8s/README.md") if "vitrine search" in each.text)
    called = re.findall(r"\.venv/bin/vitrine ([^&\n]+)", block)
    assert len(called) == 2
    for line in called:
        command, words = typer.main.get_command(app), shlex.split(line)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        # Raises where an option is unknown or an argument is lacking.
        command.make_context(command.name, words)


def test_weights_are_there_before_production_is_applied() -> None:
    for page in ("docs/operations.md", "k8s/README.md"):
        text = (ROOT / page).read_text()
        order = ["create -k k8s/jobs/weights", "job/vitrine-weights", "apply -k k8s/overlays/gpu"]
        places = [text.index(each) for each in order]
        assert places == sorted(places), page


def test_the_live_cluster_is_patched_where_its_group_stands() -> None:
    (block,) = (block.text for block in code_blocks("docs/operations.md") if "patch raycluster" in block.text)
    (patch,) = re.findall(r"--patch '(\[.+\])'", block)
    ((change),) = json.loads(patch)
    (place,) = re.findall(r"^/spec/workerGroupSpecs/(\d+)/maxReplicas$", change["path"])
    (group,) = re.findall(r"here that of `(\w+)`", TEXT)
    there = cluster_of(rayservice("overlays/gpu"))["workerGroupSpecs"][int(place)]
    assert there["groupName"] == group
    assert there["maxReplicas"] < change["value"]
    path = re.findall(r"jsonpath='\{\.status\.(\w+)\.(\w+)\}'", block)[0]
    schema = json.loads(gzip.decompress((K8S / "crds" / "rayservice.v1.json.gz").read_bytes()))
    assert path[1] in schema["properties"]["status"]["properties"][path[0]]["properties"]


def test_other_pages_that_speak_of_more_replicas_say_that_pods_are_another_number() -> None:
    lines = [
        line
        for page in sorted((ROOT / "docs").glob("*.md"))
        if page.name != "operations.md"
        for line in page.read_text().splitlines()
        if "`max_replicas`" in line
    ]
    assert len(lines) >= 2
    assert [line for line in lines if "operations.md#more-replicas" not in line] == []


def test_the_page_says_how_many_gpus_a_second_cluster_begins_with() -> None:
    service = rayservice("overlays/gpu")
    groups = cluster_of(service)["workerGroupSpecs"]
    gpus = sum(group["replicas"] * offered(group)["GPU"] for group in groups)
    others = sum(group["replicas"] for group in groups if not offered(group)["GPU"])
    (gateway,) = (
        each for each in deployments_of(service["spec"]["serveConfigV2"]) if each.name == "gateway/Gateway"
    )
    assert others * (gateway.a_node or 0) >= gateway.least
    assert f"begins with {gpus:.0f} GPUs and {others} pods without" in TEXT


@pytest.mark.parametrize("name", sorted(RAY_DEFAULTS))
def test_a_variable_that_pods_lack_is_on_the_page(name: str) -> None:
    pods = [pod for each, pod in ray_pods() if each.startswith("overlays/gpu")]
    assert all(name in env_of(pod) for pod in pods) or f"`{name}`" in TEXT
