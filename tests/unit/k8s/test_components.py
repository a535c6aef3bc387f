"""Components open for a cloud, an ingress controller or an upgrade what it needs, and no more."""

import re
from typing import Any

import pytest

from deployments.config import GatewayArgs
from tests.support.manifests import ROOT, Manifest, of_kind, ray_pods, rayservice, render

BODY_MIB = 48


def policy(component: str, name: str) -> Any:
    (found,) = (
        p for p in of_kind("overlays/gpu", "NetworkPolicy", component) if p["metadata"]["name"] == name
    )
    return found["spec"]


def opened(component: str, name: str) -> set[tuple[str, int]]:
    return {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in policy(component, name)["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
    }


@pytest.mark.parametrize(
    ("component", "wanted"),
    [
        ("aws_identity", {("169.254.170.23/32", 80)}),
        (
            "gcp_identity",
            {
                ("169.254.169.254/32", 80),
                ("169.254.169.254/32", 8080),
                ("169.254.169.252/32", 987),
                ("169.254.169.252/32", 988),
            },
        ),
    ],
)
def test_the_identity_of_a_cloud_is_reached_and_nothing_beside_it(
    component: str, wanted: set[tuple[str, int]]
) -> None:
    assert opened(component, "vitrine-identity") == wanted
    assert policy(component, "vitrine-identity")["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/part-of": "vitrine"
    }


@pytest.mark.parametrize("component", ["aws_identity", "gcp_identity", "azure_identity"])
def test_the_service_account_names_the_identity(component: str) -> None:
    (account,) = of_kind("overlays/gpu", "ServiceAccount", component)
    assert len(account["metadata"]["annotations"]) == 1


def test_every_pod_of_the_service_bears_the_label_that_azure_looks_for() -> None:
    cluster = rayservice("overlays/gpu", "azure_identity")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"


def test_private_stores_are_reached_by_their_ports() -> None:
    assert {port for _, port in opened("private_stores", "vitrine-private-stores")} == {
        443,
        5432,
        6379,
        19530,
    }


def ingress(component: str) -> Manifest:
    (found,) = of_kind("overlays/gpu", "Ingress", component)
    return found


def test_no_proxy_before_the_service_refuses_a_body_or_ends_a_request_first() -> None:
    assert GatewayArgs.model_fields["max_body_bytes"].default == BODY_MIB * 2**20
    timeout_s = 60
    assert f"request_timeout_s: {timeout_s}\n" in rayservice("overlays/gpu")["spec"]["serveConfigV2"]
    nginx = {
        key.rpartition("/")[2]: value
        for key, value in ingress("ingress_nginx")["metadata"]["annotations"].items()
    }
    assert nginx["proxy-body-size"] == f"{BODY_MIB}m"
    assert min(int(nginx["proxy-read-timeout"]), int(nginx["proxy-send-timeout"])) > timeout_s
    aws = ingress("aws_load_balancer")["metadata"]["annotations"]
    (idle_s,) = re.findall(
        r"idle_timeout.timeout_seconds=(\d+)", aws["alb.ingress.kubernetes.io/load-balancer-attributes"]
    )
    assert int(idle_s) > timeout_s
    (backend,) = of_kind("overlays/gpu", "BackendConfig", "gcp_load_balancer")
    assert backend["spec"]["timeoutSec"] > timeout_s


def test_each_kind_of_balancer_is_let_in_from_where_it_asks() -> None:
    (rule,) = policy("ingress_nginx", "vitrine-gateway")["ingress"]
    namespace = rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert namespace == "ingress-nginx"
    for component, ranges in (("aws_load_balancer", 1), ("gcp_load_balancer", 2)):
        (rule,) = policy(component, "vitrine-load-balancer")["ingress"]
        assert len(rule["from"]) == ranges
        assert all("ipBlock" in peer for peer in rule["from"])
        assert [port["port"] for port in rule["ports"]] == [8000]


def test_the_service_of_a_balancer_on_gke_keeps_the_name_that_the_ingress_asks_for() -> None:
    service = rayservice("overlays/gpu", "gcp_load_balancer")["spec"]["serveService"]
    (path,) = ingress("gcp_load_balancer")["spec"]["rules"][0]["http"]["paths"]
    assert service["metadata"]["name"] == path["backend"]["service"]["name"]
    (backend,) = of_kind("overlays/gpu", "BackendConfig", "gcp_load_balancer")
    assert (
        backend["metadata"]["name"] in service["metadata"]["annotations"]["cloud.google.com/backend-config"]
    )


def test_an_upgrade_in_steps_is_what_kuberay_accepts() -> None:
    strategy = rayservice("overlays/gpu", "incremental_upgrade")["spec"]["upgradeStrategy"]
    options = strategy["clusterUpgradeOptions"]
    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    # KubeRay's own conditions, which no schema has.
    assert 0 < options["stepSizePercent"] <= options["maxSurgePercent"] < 100
    assert options["intervalSeconds"] > 0
    assert options["gatewayClassName"]
    assert of_kind("overlays/gpu", "Ingress", "incremental_upgrade") == [], (
        "it would lead to one cluster alone"
    )


def test_the_proxy_of_the_gateway_is_let_in_and_the_repair_may_call_it() -> None:
    # KubeRay calls the Gateway of a RayService so, and the Gateway API labels its pods with that name.
    name = f"{rayservice('overlays/gpu')['metadata']['name']}-gateway"
    proxy = {"podSelector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": name}}}
    (let_in,) = policy("incremental_upgrade", "vitrine-traffic")["ingress"]
    assert (let_in["from"], [port["port"] for port in let_in["ports"]]) == ([proxy], [8000])
    repair = policy("incremental_upgrade", "vitrine-repair")
    assert [rule["to"] for rule in repair["egress"]] == [[proxy]]
    (job,) = of_kind("jobs/repair", "CronJob")
    labels = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert repair["podSelector"]["matchLabels"].items() <= labels.items()


def test_every_component_is_on_the_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for folder in (ROOT / "k8s" / "components").iterdir():
        assert f"`{folder.name}`" in page, folder.name


def test_one_place_names_the_image_of_production() -> None:
    naming = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "k8s").rglob("*.yaml"))
        if "newTag: " in path.read_text() and "-gpu" in path.read_text()
    ]
    assert naming == ["k8s/image/kustomization.yaml"]
    images = {c["image"] for name, pod in ray_pods() if "demo" not in name for c in pod["spec"]["containers"]}
    for folder in ("jobs/weights", "jobs/backup", "jobs/restore", "jobs/repair"):
        images |= set(re.findall(r"'image': '([^']+)'", str(render(folder))))
    assert len(images) == 1
    assert images != {"vitrine"}
