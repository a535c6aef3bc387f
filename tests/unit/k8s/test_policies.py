"""Network policies, the ingress, the disruption budget of the gateway, and the rights of every pod."""

import re
from typing import Any

import pytest

from tests.support.manifests import (
    K8S,
    RENDERED,
    ROOT,
    Manifest,
    cluster_of,
    of_kind,
    ray_pods,
    rayservice,
)

OVERLAYS = ["overlays/gpu", "overlays/demo"]


def policies(overlay: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in of_kind(overlay, "NetworkPolicy")}


def ports(rules: list[dict[str, Any]]) -> set[int]:
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_goes_in_or_out_that_is_not_listed(overlay: str) -> None:
    nothing = policies(overlay)["vitrine-nothing-else"]
    assert nothing == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "vitrine"}},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_every_pod_of_ray_is_under_the_policies() -> None:
    for name, pod in ray_pods():
        assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "vitrine", name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_others_reach_only_the_ports_that_are_meant_for_them(overlay: str) -> None:
    reached: dict[str, set[int]] = {}
    for name, policy in policies(overlay).items():
        if name == "vitrine-among-itself":
            continue
        for rule in policy.get("ingress", []):
            assert rule["from"], "an empty list lets everyone in"
            for peer in rule["from"]:
                (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
                reached.setdefault(namespace, set()).update(ports([rule]))
    assert reached == {"ingress": {8000}, "kuberay-system": {8265, 52365, 8000}, "monitoring": {8080, 9101}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_vitrines_pods_reach_all_ports_of_each_other(overlay: str) -> None:
    among = policies(overlay)["vitrine-among-itself"]
    own = [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "vitrine"}}}]
    assert among["ingress"] == [{"from": own}]
    assert among["egress"] == [{"to": own}]


def test_production_reaches_its_stores_and_public_addresses() -> None:
    found = policies("overlays/gpu")
    assert ports(found["vitrine-stores"]["egress"]) == {19530, 5432, 6379}
    assert ports(found["vitrine-names"]["egress"]) == {53}
    (outside,) = found["vitrine-outside"]["egress"]
    private = outside["to"][0]["ipBlock"]["except"]
    # The address of a cloud's metadata service, which hands out credentials.
    assert "169.254.0.0/16" in private
    assert ports([outside]) == {80, 443}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_are_asked_for_where_nodes_answer_too(overlay: str) -> None:
    (rule,) = policies(overlay)["vitrine-names"]["egress"]
    blocks = {peer["ipBlock"]["cidr"] for peer in rule["to"] if "ipBlock" in peer}
    # NodeLocal DNSCache, and Cloud DNS of GKE.
    assert blocks == {"169.254.20.10/32", "169.254.169.254/32"}
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_policies_that_pages_and_alerts_name_are_there() -> None:
    texts = (ROOT / "docs" / "operations.md", K8S / "README.md", K8S / "monitoring" / "alerts.yaml")
    named = {name for text in texts for name in re.findall(r"policy `(vitrine-[a-z-]+)`", text.read_text())}
    assert {"vitrine-names", "vitrine-gateway", "vitrine-metrics"} <= named <= policies("overlays/gpu").keys()


def test_the_redis_of_the_head_is_where_the_policies_let_it_go() -> None:
    address = cluster_of(rayservice("overlays/gpu"))["gcsFaultToleranceOptions"]["redisAddress"]
    (namespace, port) = re.fullmatch(r"[\w-]+\.([\w-]+)\.svc:(\d+)", address).groups()  # type: ignore[union-attr]
    rules = policies("overlays/gpu")["vitrine-stores"]["egress"]
    (rule,) = (each for each in rules if ports([each]) == {int(port)})
    (peer,) = rule["to"]
    assert set(peer["namespaceSelector"]["matchLabels"].values()) == {namespace}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_heads_reach_the_api_of_kubernetes(overlay: str) -> None:
    open_to_all = {
        name
        for name, policy in policies(overlay).items()
        for rule in policy.get("egress", [])
        if "to" not in rule
    }
    assert open_to_all == {"vitrine-autoscaler"}
    autoscaler = policies(overlay)["vitrine-autoscaler"]
    assert autoscaler["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"
    assert ports(autoscaler["egress"]) == {443, 6443}


def test_the_demo_reaches_nothing_outside() -> None:
    assert not {"vitrine-outside", "vitrine-stores"} & policies("overlays/demo").keys()


def test_the_budget_keeps_a_pod_of_the_gateway_and_lets_one_go() -> None:
    (budget,) = of_kind("overlays/gpu", "PodDisruptionBudget")
    cluster = cluster_of(rayservice("overlays/gpu"))
    wanted = budget["spec"]["selector"]["matchLabels"].items()
    kept = [
        group
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        if wanted <= group["template"]["metadata"]["labels"].items()
    ]
    assert [group.get("groupName") for group in kept] == ["service"]
    assert 1 <= budget["spec"]["minAvailable"] < kept[0]["minReplicas"]


def test_the_one_pod_of_the_demo_may_be_moved() -> None:
    assert of_kind("overlays/demo", "PodDisruptionBudget") == []


def test_the_ingress_leads_to_the_service_that_kuberay_makes() -> None:
    service = rayservice("overlays/gpu")
    (ingress,) = of_kind("overlays/gpu", "Ingress")
    backends = [
        path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]
    ]
    # KubeRay calls the service so, and its port by the name of the containers' own.
    assert backends == [{"name": f"{service['metadata']['name']}-serve-svc", "port": {"name": "serve"}}]
    for group in cluster_of(service)["workerGroupSpecs"]:
        ports = {
            port["name"]: port["containerPort"]
            for port in group["template"]["spec"]["containers"][0]["ports"]
        }
        assert ports["serve"] == 8000, group["groupName"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]


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


def test_a_pod_of_a_job_that_has_failed_stays_with_its_log() -> None:
    # With OnFailure, Kubernetes removes the pod once it gives up.
    found = {name: pod["spec"]["restartPolicy"] for name, pod in pods() if name.endswith((" job", " cron"))}
    assert len(found) == 4
    assert set(found.values()) == {"Never"}


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
