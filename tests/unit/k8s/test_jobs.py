"""Bulk jobs call commands that there are, with options that they take."""

import shlex
from typing import Any

import pytest
import typer

from tests.support.manifests import ROOT, rayservice, render
from vitrine.cli.main import app


def entrypoint(folder: str) -> list[str]:
    (job,) = (each for each in render(folder) if each["kind"] in ("RayJob", "RayCronJob"))
    spec: dict[str, Any] = job["spec"].get("jobTemplate", job["spec"])
    return shlex.split(spec["entrypoint"])


@pytest.mark.parametrize("kind", ["build", "evaluate", "verify"])
def test_a_job_calls_a_command_with_options_that_it_takes(kind: str) -> None:
    program, command, *options = entrypoint(f"jobs/{kind}")
    assert (program, command, options[0]) == ("vitrine", kind, "--local")
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    known = {name for parameter in found.params for name in parameter.opts}
    given = {option for option in options if option.startswith("--")}
    assert given <= known
    required = {parameter.opts[0] for parameter in found.params if parameter.required}
    assert required <= given


@pytest.mark.parametrize("kind", ["build", "evaluate", "verify"])
def test_a_job_reads_the_configuration_that_the_service_runs(kind: str) -> None:
    (job,) = (each for each in render(f"jobs/{kind}") if each["kind"] in ("RayJob", "RayCronJob"))
    cluster = job["spec"].get("jobTemplate", job["spec"])["rayClusterSpec"]
    (given,) = (
        each["data"] for each in render("overlays/gpu") if each["metadata"]["name"] == "vitrine-serve-config"
    )
    assert given["serve_config.yaml"] == rayservice("overlays/gpu")["spec"]["serveConfigV2"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (each["template"]["spec"] for each in pods):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["config"]["configMap"]["name"] == "vitrine-serve-config"
        assert {"name": "config", "mountPath": "/etc/vitrine", "readOnly": True} in pod["containers"][0][
            "volumeMounts"
        ]


def test_the_weights_that_are_downloaded_are_those_that_the_configuration_names() -> None:
    (job,) = (each for each in render("jobs/weights") if each["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    script = container["args"][0]
    assert {"name": "HF_HUB_OFFLINE", "value": "0"} in container["env"], "the image forbids to ask the hub"
    config = rayservice("overlays/gpu")["spec"]["serveConfigV2"]
    for checkpoint in ("facebook/dinov2-large", "Salesforce/blip2-itm-vit-g"):
        assert f"checkpoint: {checkpoint}" in config
        assert f"hf download {checkpoint} " in script
    import open_clip

    tag = open_clip.get_pretrained_cfg("ViT-H-14", "laion2b_s32b_b79k")
    assert f"hf download {tag['hf_hub'].strip('/')} " in script


def test_the_repair_on_schedule_calls_a_command_of_the_service() -> None:
    (job,) = (each for each in render("jobs/repair") if each["kind"] == "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    program, command, *options = container["command"]
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    known = {name for parameter in found.params for name in parameter.opts}
    assert program == "vitrine"
    assert {option for option in options if option.startswith("--")} <= known
    env = {each["name"]: each for each in container["env"]}
    # KubeRay calls the service of a RayService so.
    service = rayservice("overlays/gpu")["metadata"]["name"]
    assert env["VITRINE_URL"]["value"] == f"http://{service}-serve-svc:8000"
    assert "value" not in env["VITRINE_KEY"]


def downloads(text: str) -> list[str]:
    """The checkpoints that a script fetches, and which of their files."""
    return [line.strip(" &\\").replace("'", "") for line in text.splitlines() if "hf download " in line]


def test_the_image_with_weights_has_the_same_as_the_claim() -> None:
    (job,) = (each for each in render("jobs/weights") if each["kind"] == "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    baked = [each.removeprefix("RUN ") for each in downloads((ROOT / "Dockerfile").read_text())]
    assert downloads(script) == baked
    assert len(baked) == 3
