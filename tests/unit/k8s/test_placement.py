"""Every pod and every replica of production finds its place on a described set of nodes.

The nodes are the least that k8s/README.md asks for, and more where more is asked of them: at the most replicas,
during an upgrade, and after the loss of a node.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import pytest

from jobs.runner.settings import settings_of_file
from tests.support.manifests import K8S, ROOT, Manifest, of_kind, rayservice
from tests.support.placement import (
    HEAD,
    Deployment,
    DoesNotFit,
    Node,
    Placement,
    cpu_node,
    deployments_of,
    gpu_node,
)


def production() -> Manifest:
    return rayservice("overlays/gpu")


def deployments(manifest: Manifest) -> list[Deployment]:
    return list(deployments_of(manifest["spec"]["serveConfigV2"]))


def least(gpus: int = 3) -> list[Node]:
    """The cluster of k8s/README.md."""
    return [*(cpu_node(f"cpu-{n}", 8, 32) for n in range(2)), *(gpu_node(f"gpu-{n}") for n in range(gpus))]


def with_a_spare_of_each_kind() -> list[Node]:
    """As docs/operations.md asks for where a node may be lost."""
    return [*least(gpus=4), cpu_node("cpu-2", 8, 32)]


def started(manifest: Manifest, nodes: Sequence[Node]) -> Placement:
    placement = Placement.of(manifest, nodes)
    for deployment in deployments(manifest):
        placement.run(deployment, deployment.least)
    return placement


def test_production_starts_on_the_least_cluster() -> None:
    said = "two nodes of 8 CPUs and 32 GiB, three GPUs on nodes with 12 CPUs and 48 GiB free"
    assert said in (K8S / "README.md").read_text()
    placement = started(production(), least())
    assert placement.counts() == {"service": 2, "openclip": 1, "dinov2": 1, "blip2": 1}


def test_the_page_says_what_the_milvus_beside_it_wants() -> None:
    (milvus,) = of_kind("milvus", "Milvus")
    components = milvus["spec"]["components"]
    asking = [each for each in components.values() if isinstance(each, dict) and "resources" in each]
    assert asking == [components["queryNode"]]
    (count, wanted) = asking[0]["replicas"], asking[0]["resources"]["requests"]
    assert (count, wanted["memory"].removesuffix("Gi")) == (2, "32")
    said = f"wants two nodes more with {wanted['cpu']} CPUs and 32 GiB free"
    assert said in (K8S / "README.md").read_text()


def test_every_deployment_reaches_its_most_replicas() -> None:
    nodes = [*(cpu_node(f"cpu-{n}") for n in range(5)), *(gpu_node(f"gpu-{n}") for n in range(20))]
    placement = Placement.of(production(), nodes)
    for deployment in deployments(production()):
        placement.run(deployment, deployment.most)


def test_one_replica_more_than_pods_may_hold_is_noticed() -> None:
    nodes = [*(cpu_node(f"cpu-{n}") for n in range(4)), *(gpu_node(f"gpu-{n}") for n in range(30))]
    placement = Placement.of(production(), nodes)
    (openclip,) = (each for each in deployments(production()) if each.name == "openclip/Encoder")
    with pytest.raises(
        DoesNotFit, match=r"replica 10 of 10 of openclip/Encoder fits nowhere: .*\['openclip'\]"
    ):
        placement.run(openclip, 10)


@pytest.mark.parametrize("changed", ["toleration", "resources", "labels", "node kind"])
def test_what_could_never_be_placed_is_noticed(changed: str) -> None:
    manifest = deepcopy(production())
    group = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]
    pod = group["template"]["spec"]
    if changed == "toleration":
        del pod["tolerations"]
    elif changed == "resources":
        pod["containers"][0]["resources"]["requests"]["memory"] = "64Gi"
    elif changed == "labels":
        pod["nodeSelector"] = {"nvidia.com/gpu.product": "one-that-no-node-has"}
    else:
        group["rayStartParams"]["resources"] = group["rayStartParams"]["resources"].replace(
            "openclip", "clip"
        )
    with pytest.raises(DoesNotFit):
        started(manifest, least())


def test_a_changed_encoder_starts_beside_the_one_that_serves() -> None:
    placement = started(production(), least(gpus=6))
    for deployment in deployments(production()):
        if deployment.asked["GPU"]:
            # `max_surge_percent: 100`.
            placement.run(deployment, deployment.least)


def test_an_upgrade_needs_as_many_gpus_again_and_no_more() -> None:
    nodes = least(gpus=6)
    nodes += [cpu_node("cpu-2"), cpu_node("cpu-3")]
    started(production(), nodes)
    started(production(), nodes)
    short = [*least(gpus=5), cpu_node("cpu-2"), cpu_node("cpu-3")]
    started(production(), short)
    with pytest.raises(DoesNotFit, match="a pod of blip2, which there must be, fits on no node"):
        started(production(), short)


@pytest.mark.parametrize("lost", ["cpu-0", "cpu-1", "gpu-0", "gpu-3"])
def test_what_a_lost_node_held_starts_again_elsewhere(lost: str) -> None:
    nodes = with_a_spare_of_each_kind()
    placement = started(production(), nodes)
    (node,) = (each for each in nodes if each.name == lost)
    gone = placement.lose(node)
    by_name = {each.name: each for each in deployments(production())}
    # With one node less, and while pods come, a gateway is there.
    assert placement.running("gateway/Gateway") >= 1
    placement.restore()
    for name, count in gone:
        placement.run(by_name[name], count)
    assert {name: placement.running(name) for name in by_name} == {
        name: each.least for name, each in by_name.items()
    }


def test_the_head_starts_again_elsewhere_and_needs_room_for_that() -> None:
    placement = started(production(), with_a_spare_of_each_kind())
    (head,) = (pod for pod in placement.pods if pod.group == HEAD)
    placement.lose(head.node)
    placement.restore()
    (again,) = (pod for pod in placement.pods if pod.group == HEAD)
    assert again.node is not head.node
    placement = started(production(), least())
    placement.lose(next(pod.node for pod in placement.pods if pod.group == HEAD))
    with pytest.raises(DoesNotFit, match="fits on no node"):
        placement.restore()


def test_the_demo_starts_on_one_small_node() -> None:
    started(rayservice("overlays/demo"), [cpu_node("only")])


@pytest.mark.parametrize("kind", ["build", "evaluate"])
def test_the_actors_of_a_job_find_gpus_of_their_own(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)
    (tmp_path / "serve_config.yaml").write_text((ROOT / "serve_config.yaml").read_text())
    settings = settings_of_file(tmp_path / "serve_config.yaml")
    (job,) = of_kind(f"jobs/{kind}", "RayJob")
    for name, encoder in settings.encoders.items():
        asked = encoder.resources(settings.bulk)
        wanted = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], **asked["resources"]}
        most = settings.bulk.max_actors
        placement = Placement.of(job, [cpu_node("cpu-0"), *(gpu_node(f"gpu-{n}") for n in range(most))])
        assert placement.counts() == {"gpu": 0}, "GPUs are held before anybody asks for them"
        placement.run(Deployment(name, wanted, 1, most, None), most)
        decoding = encoder.decode_actors(settings.bulk)
        assert decoding > 0
        cpus = {"CPU": settings.bulk.cpus_per_decode_actor}
        placement.run(Deployment(f"decoding for {name}", cpus, 1, decoding, None), decoding)
