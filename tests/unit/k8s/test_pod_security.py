"""Every pod meets the profile `restricted` of Kubernetes' pod security standards, so that a namespace may enforce it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

import pytest

from tests.support.manifests import RENDERED, Manifest, of_kind, ray_pods

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


def pods() -> list[tuple[str, Manifest]]:
    """The pod templates of all kinds."""
    found = ray_pods()
    for folder in RENDERED:
        found += [(f"{folder} job", job["spec"]["template"]) for job in of_kind(folder, "Job")]
        crons = of_kind(folder, "CronJob")
        found += [(f"{folder} cron", cron["spec"]["jobTemplate"]["spec"]["template"]) for cron in crons]
    return found


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_pod_is_restricted(name: str, pod: Manifest) -> None:
    spec = pod["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert all((set(volume) - {"name"}) <= VOLUMES for volume in spec["volumes"])
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_the_pods_of_every_kind_are_looked_at() -> None:
    names = {name.split(" ")[0] for name, _ in pods()}
    assert {
        "overlays/gpu",
        "overlays/demo",
        "jobs/build",
        "jobs/repair",
        "jobs/backup",
        "jobs/restore",
        "jobs/weights",
    } <= names
