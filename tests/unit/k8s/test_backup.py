"""The jobs that back up and restore: what they call, where they may reach, and that they have no rights."""

from pathlib import Path

import pytest
import typer

from tests.support.manifests import ROOT, Manifest, of_kind, rayservice
from vitrine.cli.main import app

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
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    assert [each.name for each in found.params if each.param_type_name == "argument"] == ["config", "place"]
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
