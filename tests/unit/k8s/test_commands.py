"""What operators copy from the pages calls what there is, and figures are those of the manifests."""

import gzip
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from ray.serve._private.constants import RAY_SERVE_HAPROXY_MAXCONN

from deployments.proxy.haproxy import HAPROXY_SETTINGS
from deployments.proxy.ray_environment import RAY_DEFAULTS
from deployments.replicas.dependencies import WAIT_S
from tests.support.code_blocks import code_blocks
from tests.support.manifests import (
    K8S,
    RENDERED,
    ROOT,
    cluster_of,
    env_of,
    kubectl,
    of_kind,
    offered,
    ray_pods,
    rayservice,
    render,
)
from tests.support.placement import GIB, deployments_of, quantity
from vitrine.cli.main import app

PAGES = ("docs/operations.md", "docs/backup.md", "k8s/README.md")
TEXT = (ROOT / "docs" / "operations.md").read_text()
SHELL = "\n".join(
    block for page in PAGES for block in re.findall(r"(?ms)^ *```sh\n(.*?)^ *```$", (ROOT / page).read_text())
)
"""Also what stands within lists."""


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


def commands(program: str, text: str) -> list[list[str]]:
    """The calls of a program in lines of a shell, in words."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        called: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                if called and called[0].removeprefix(".venv/bin/") == program:
                    found.append(called[1:])
                called = []
            elif called or not re.match(r"\w+=", word):
                called.append(word)
    return found


def inline(program: str) -> list[list[str]]:
    """The calls of a program within the sentences of the pages."""
    texts = (re.sub(r"(?ms)^ *```.*?^ *```$", "", (ROOT / page).read_text()) for page in PAGES)
    return commands(program, "\n".join(code for text in texts for code in re.findall(r"`([^`\n]+)`", text)))


def command_of_vitrine(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and the words after its name."""
    command, left = typer.main.get_command(app), words
    while hasattr(command, "commands"):
        command, left = command.commands[left[0]], left[1:]
    return command, left


def test_commands_of_vitrine_take_what_they_are_given() -> None:
    called = commands("vitrine", SHELL)
    assert len(called) > 6
    for words in called:
        command, left = command_of_vitrine(words)
        # Raises where an option is unknown or an argument is lacking.
        command.make_context(command.name, left)


def test_commands_of_vitrine_in_sentences_have_the_options_that_are_named() -> None:
    called = [words for words in inline("vitrine") if words and words[0] != "…"]
    assert len(called) > 10
    for words in called:
        command, left = command_of_vitrine(words)
        known = {name for each in command.params for name in [*each.opts, *each.secondary_opts]}
        assert {word for word in left if word.startswith("--")} <= known, words


def refusal_of_kubectl(words: list[str]) -> str:
    """What kubectl says against the name or an option of a command; nothing where it takes them."""
    # It reads all options before it shows the help.
    asked = [kubectl(), *words, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    (name,) = re.findall(
        r"^(?:--namespace \S+ )?(create (?:namespace|secret generic)|[a-z-]+)(?: |$)", " ".join(words)
    )
    return done.stderr if f"\n  kubectl {name} " in done.stdout else done.stderr or f"there is no {name}"


@pytest.mark.slow
def test_commands_of_kubectl_are_there_with_options_that_they_take() -> None:
    called = {tuple(words) for words in [*commands("kubectl", SHELL), *inline("kubectl")]}
    assert len(called) > 30
    assert [refusal for words in called if (refusal := refusal_of_kubectl([*words]))] == []


def test_what_no_command_takes_is_noticed() -> None:
    (words,) = commands(
        "kubectl", "N=$(kubectl get pods --namespace vitrine --field-selektor a=b | wc --lines)"
    )
    assert "unknown flag: --field-selektor" in refusal_of_kubectl(words)
    assert "unknown command" in refusal_of_kubectl(["rollin", "out"])
    assert "there is no create secret generic" in refusal_of_kubectl(["create", "secret generic"])
    shell = 'A=1 vitrine build --model "$M" && .venv/bin/vitrine stats & kubectl --namespace vitrine get pods'
    assert commands("vitrine", shell) == [["build", "--model", "$M"], ["stats"]]


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


def test_figures_for_the_first_cluster_are_those_of_the_manifests() -> None:
    pods = dict(ray_pods())
    sizes = {
        (name.split("/")[0], volume["name"], volume["emptyDir"]["sizeLimit"])
        for name, pod in pods.items()
        for volume in pod["spec"]["volumes"]
        if "emptyDir" in volume
    }
    assert sizes == {
        ("overlays", "tmp", "20Gi"), ("overlays", "home", "5Gi"), ("jobs", "tmp", "50Gi"), ("jobs", "home", "5Gi")
    }  # fmt: skip
    assert (
        "20 GiB of `/tmp` and 5 GiB of its home, in the ephemeral storage of its node (a job 50 GiB)" in TEXT
    )
    (download,) = of_kind("jobs/weights", "Job")
    groups = {pod["spec"]["securityContext"]["fsGroup"] for pod in pods.values()}
    assert groups == {download["spec"]["template"]["spec"]["securityContext"]["fsGroup"]}
    assert f"by the group {groups.pop()} " in TEXT
    production = {name: pod for name, pod in pods.items() if name.startswith("overlays/gpu")}
    patience_s = (
        int(env_of(production["overlays/gpu head"])["RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT"]) * WAIT_S
    )
    assert f"some {patience_s / 60:.0f} minutes in all" in TEXT
    for name, pod in production.items():
        if not name.endswith(" head"):
            drain_s = env_of(pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
            assert f"It has {drain_s} s for that" in TEXT
            assert f"kills it after {pod['spec']['terminationGracePeriodSeconds']} s" in TEXT


def test_the_page_says_how_much_memory_haproxy_may_take() -> None:
    taken = 2 * int(HAPROXY_SETTINGS["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]) * RAY_SERVE_HAPROXY_MAXCONN
    least = min(
        quantity(pod["spec"]["containers"][0]["resources"]["limits"]["memory"])
        for name, pod in ray_pods()
        if name.startswith("overlays/gpu")
    )
    assert f"{RAY_SERVE_HAPROXY_MAXCONN:,} connections are let in" in TEXT
    assert f"{taken / GIB:.0f} GiB of a pod's {least / GIB:.0f} in the worst case" in TEXT
    assert taken < least / 2


def named_secrets(content: Any) -> Iterator[str]:
    """The names of the secrets that a manifest refers to."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key in ("secretRef", "secretKeyRef"):
                yield value["name"] if isinstance(value, dict) else value
            elif key == "secretName":
                yield value
            else:
                yield from named_secrets(value)
    elif isinstance(content, list):
        for each in content:
            yield from named_secrets(each)


def test_every_secret_that_manifests_refer_to_is_on_the_page() -> None:
    names = {name for folder in RENDERED for manifest in render(folder) for name in named_secrets(manifest)}
    assert {"vitrine", "vitrine-hub", "vitrine-tls", "vitrine-milvus-object-store"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in TEXT and f" {name} " not in TEXT] == []
