"""Jobs call commands that there are, with options that they take and the configuration that runs."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from huggingface_hub.cli.hf import app as hf

from jobs.runner.settings import Settings, settings_of_file
from tests.support.code_blocks import code_blocks
from tests.support.manifests import K8S, ROOT, Manifest, cluster_of, of_kind, offered, rayservice, render
from vitrine.cli.main import app


def parameters(command: str) -> list[Any]:
    """The arguments and options that a command takes."""
    return list(typer.main.get_command(app).commands[command].params)  # type: ignore[attr-defined]


def entrypoint(folder: str) -> list[str]:
    (job,) = (each for each in render(folder) if each["kind"] in ("RayJob", "RayCronJob"))
    spec: dict[str, Any] = job["spec"].get("jobTemplate", job["spec"])
    return shlex.split(spec["entrypoint"])


@pytest.mark.parametrize("kind", ["build", "evaluate", "verify"])
def test_a_job_calls_a_command_with_options_that_it_takes(kind: str) -> None:
    program, command, *options = entrypoint(f"jobs/{kind}")
    assert (program, command, options[0]) == ("vitrine", kind, "--local")
    given = {option for option in options if option.startswith("--")}
    assert given <= {name for each in parameters(kind) for name in each.opts}
    assert {each.opts[0] for each in parameters(kind) if each.required} <= given


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


@pytest.mark.parametrize("kind", ["build", "evaluate", "verify"])
def test_a_job_holds_gpus_only_while_it_uses_them(kind: str) -> None:
    (job,) = (each for each in render(f"jobs/{kind}") if each["kind"] in ("RayJob", "RayCronJob"))
    spec = job["spec"].get("jobTemplate", job["spec"])
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] <= 900
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0


@pytest.mark.parametrize("kind", ["build", "evaluate"])
def test_a_job_of_before_is_deleted_before_the_next_takes_its_name(kind: str) -> None:
    (job,) = (each for each in render(f"jobs/{kind}") if each["kind"] == "RayJob")
    delete = f"kubectl --namespace vitrine delete rayjob {job['metadata']['name']} --ignore-not-found\n"
    create = f"kubectl create -k k8s/jobs/{kind}\n"
    shown = [each.text for each in code_blocks("docs/operations.md") if create in each.text]
    assert shown
    assert all(delete in each.partition(create)[0] for each in shown)


@pytest.mark.parametrize("kind", ["build", "evaluate", "restore", "weights"])
def test_every_page_that_creates_a_job_says_how_to_delete_the_one_of_before(kind: str) -> None:
    (job,) = (each for each in render(f"jobs/{kind}") if each["kind"] in ("RayJob", "Job"))
    delete = f"kubectl --namespace vitrine delete {job['kind'].lower()} {job['metadata']['name']}"
    texts = {page.name: page.read_text() for page in [*(ROOT / "docs").glob("*.md"), K8S / "README.md"]}
    creating = {name for name, text in texts.items() if f"create -k k8s/jobs/{kind}" in text}
    assert creating
    assert [name for name in creating if delete not in texts[name]] == []


@pytest.mark.parametrize("kind", ["build", "evaluate", "verify"])
def test_an_actor_of_each_encoder_fits_on_the_pods_of_a_job(kind: str, tmp_path: Path) -> None:
    settings = production_settings(tmp_path)
    (job,) = (each for each in render(f"jobs/{kind}") if each["kind"] in ("RayJob", "RayCronJob"))
    (group,) = cluster_of(job)["workerGroupSpecs"]
    there = offered(group)
    assert len(settings.encoders) == 3
    for name, encoder in settings.encoders.items():
        asked = encoder.resources(settings.bulk)
        assert list(asked["resources"]) == [f"{name}_node"], (
            "an actor takes the GPU of another encoder's node"
        )
        wanted = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], **asked["resources"]}
        assert all(there.get(each, 0) >= amount for each, amount in wanted.items()), name


def production_settings(folder: Path) -> Settings:
    path = folder / "serve_config.yaml"
    path.write_text(rayservice("overlays/gpu")["spec"]["serveConfigV2"])
    return settings_of_file(path)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)


@pytest.mark.slow
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
    known = {name for each in parameters(command) for name in each.opts}
    assert program == "vitrine"
    assert {option for option in options if option.startswith("--")} <= known
    env = {each["name"]: each for each in container["env"]}
    # KubeRay calls the service of a RayService so.
    service = rayservice("overlays/gpu")["metadata"]["name"]
    assert env["VITRINE_URL"]["value"] == f"http://{service}-serve-svc:8000"
    assert "value" not in env["VITRINE_KEY"]


def downloads(text: str) -> list[str]:
    """The commands of a script that fetch checkpoints."""
    return [line.strip(" &\\").removeprefix("RUN ") for line in text.splitlines() if "hf download " in line]


FILES = {
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ["*.json", "*.txt", "open_clip_model.safetensors"],
    "facebook/dinov2-large": ["*.json", "*.safetensors"],
    "Salesforce/blip2-itm-vit-g": ["*.json", "*.txt", "*.safetensors"],
}
"""The weights in the format that Vitrine loads, settings and tokenizers."""


def test_the_commands_ask_the_hub_for_weights_settings_and_tokenizers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, allow_patterns: Any = None, **_: Any) -> str:
        asked[repo_id] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.cli.download.snapshot_download", snapshot_download)
    (job,) = (each for each in render("jobs/weights") if each["kind"] == "Job")
    for command in downloads(job["spec"]["template"]["spec"]["containers"][0]["args"][0]):
        program, *arguments = shlex.split(command)
        assert program == "hf"
        hf.main(arguments, standalone_mode=False)
    assert asked == FILES


def test_the_image_with_weights_has_the_same_as_the_claim() -> None:
    (job,) = (each for each in render("jobs/weights") if each["kind"] == "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    baked = downloads((ROOT / "Dockerfile").read_text())
    assert downloads(script) == baked
    assert len(baked) == 3


KINDS = {"backup": "CronJob", "restore": "Job"}


def pod_template(verb: str) -> Manifest:
    (job,) = of_kind(f"jobs/{verb}", KINDS[verb])
    template: Manifest = job["spec"].get("jobTemplate", job)["spec"]["template"]
    return template


@pytest.mark.parametrize("verb", KINDS)
def test_it_calls_the_command_with_the_configuration_that_runs(verb: str) -> None:
    (container,) = pod_template(verb)["spec"]["containers"]
    program, command, config, place = container["command"]
    assert (program, command) == ("vitrine", verb)
    arguments = [each.name for each in parameters(verb) if each.param_type_name == "argument"]
    assert arguments == ["config", "place"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "config")
    assert Path(config).parent == Path(mount["mountPath"])
    (configmap,) = (
        each for each in of_kind("overlays/gpu", "ConfigMap") if "serve_config.yaml" in each["data"]
    )
    volumes = {each["name"]: each for each in pod_template(verb)["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == configmap["metadata"]["name"]
    assert place == "$(VITRINE_BACKUP_URL)"
    assert container["envFrom"] == [{"secretRef": {"name": "vitrine"}}]
    assert "VITRINE_BACKUP_URL" in (ROOT / "docs" / "backup.md").read_text()


@pytest.mark.parametrize("verb", KINDS)
def test_its_pod_is_under_the_policies_and_has_no_rights(verb: str) -> None:
    template = pod_template(verb)
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "vitrine"
    # The budget counts the pods of the gateway by this label.
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == verb
    assert template["spec"]["automountServiceAccountToken"] is False
    (container,) = template["spec"]["containers"]
    # The dump is written there.
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_two_backups_never_run_at_once() -> None:
    (job,) = of_kind("jobs/backup", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_image_brings_pg_dump() -> None:
    assert '"postgresql-client-${POSTGRESQL}"' in (ROOT / "Dockerfile").read_text()


def test_jobs_and_service_run_the_same_image() -> None:
    head = rayservice("overlays/gpu")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    images = {pod_template(verb)["spec"]["containers"][0]["image"] for verb in KINDS}
    assert images == {head["spec"]["containers"][0]["image"]}
