"""What leads to the pods of the gateway, and what keeps one of them while nodes are drained."""

from tests.unit.k8s.rendering import cluster_of, of_kind, rayservice


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
