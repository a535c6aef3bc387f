"""The RayServices run the configurations of the repository, on pods that can hold them, and have no rights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.constants import (
    MAX_PER_REPLICA_RETRY_COUNT,
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S,
)
from ray.serve._private.utils import DEFAULT
from ray.serve.schema import ServeDeploySchema

from deployments.config import JobsConfig
from deployments.config_check.applications import has_admin_key
from deployments.config_check.serve_file import read_serve_file
from deployments.proxy.ray_environment import RAY_DEFAULTS
from deployments.replicas.dependencies import WAIT_S
from k8s.generate import DEMO_CHANGES, generated
from tests.support.manifests import (
    RENDERED,
    ROOT,
    Manifest,
    cluster_of,
    clusters,
    env_of,
    of_kind,
    offered,
    ray_pods,
    rayservice,
    render,
)

SECRET_WORDS = ("TOKEN", "PASSWORD", "DATABASE", "KEY", "SECRET")
NEEDED_BY_SERVE = (
    "RAY_SERVE_ENABLE_HA_PROXY",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS",
    "MALLOC_ARENA_MAX",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_HOME", "/data")
    monkeypatch.setenv("VITRINE_WEIGHTS", "/weights")
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)


def served(overlay: str) -> tuple[ServeDeploySchema, list[Manifest]]:
    """What an overlay deploys, and its groups of pods."""
    service = rayservice(overlay)
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    return config, cluster_of(service)["workerGroupSpecs"]


def deployments(config: ServeDeploySchema) -> list[Any]:
    return [deployment for application in config.applications for deployment in application.deployments]


def most_replicas(deployment: Any) -> int:
    scaling = deployment.autoscaling_config
    return int(scaling["max_replicas"] if isinstance(scaling, dict) else deployment.num_replicas)


def test_generated_files_are_what_their_sources_say() -> None:
    stale = [str(path) for path, text in generated().items() if path.read_text() != text]
    assert stale == [], "run `make generate`"


def test_production_runs_exactly_the_configuration_of_the_repository() -> None:
    running = yaml.safe_load(rayservice("overlays/gpu")["spec"]["serveConfigV2"])
    assert running == yaml.safe_load((ROOT / "serve_config.yaml").read_text())


def test_the_demo_differs_only_in_how_it_listens_and_where_jobs_run() -> None:
    running = yaml.safe_load(rayservice("overlays/demo")["spec"]["serveConfigV2"])
    kept = yaml.safe_load((ROOT / "demo" / "serve_config.demo.yaml").read_text())
    assert running["proxy_location"] == "EveryNode"
    assert running["http_options"]["host"] == "0.0.0.0"
    assert [a["name"] for a in running["applications"]] == [a["name"] for a in kept["applications"]]
    changed = [
        a["name"] for a, b in zip(running["applications"], kept["applications"], strict=True) if a != b
    ]
    assert changed == ["gateway"]
    assert len(DEMO_CHANGES) == 4


@pytest.mark.parametrize("overlay", ["gpu", "demo"])
def test_ray_and_the_strict_check_accept_what_runs(overlay: str, tmp_path: Path) -> None:
    text = rayservice(f"overlays/{overlay}")["spec"]["serveConfigV2"]
    ServeDeploySchema.model_validate(yaml.safe_load(text))
    path = tmp_path / "serve_config.yaml"
    path.write_text(text)
    assert has_admin_key(read_serve_file(path))


@pytest.mark.parametrize("overlay", ["gpu", "demo"])
def test_each_deployment_fits_on_exactly_one_kind_of_pod(overlay: str) -> None:
    config, groups = served(f"overlays/{overlay}")
    for deployment in deployments(config):
        options = deployment.ray_actor_options
        asked = {"CPU": options.num_cpus, "GPU": options.num_gpus or 0.0, **options.resources}
        fitting = [
            group["groupName"]
            for group in groups
            if all(offered(group).get(name, 0.0) >= amount for name, amount in asked.items())
        ]
        assert len(fitting) == 1, (deployment.name, asked, fitting)


def test_each_encoder_has_gpu_pods_of_its_own_and_all_else_shares_pods_without() -> None:
    config, groups = served("overlays/gpu")
    kinds = {group["groupName"]: offered(group) for group in groups}
    encoders, others = [], []
    for application in config.applications:
        wanted = set(application.deployments[0].ray_actor_options.resources)
        (kind,) = (name for name, there in kinds.items() if wanted <= set(there))
        (encoders if application.import_path.endswith(":build_encoder") else others).append(kind)
    assert len(encoders) == len(set(encoders)) == 3
    assert set(encoders) | {"service"} == set(kinds)
    assert {kinds[name]["GPU"] for name in encoders} == {1}
    assert set(others) == {"service"}
    assert kinds["service"]["GPU"] == 0


@pytest.mark.parametrize("overlay", ["gpu", "demo"])
def test_a_group_may_grow_until_it_holds_all_replicas_of_its_deployments(overlay: str) -> None:
    config, groups = served(f"overlays/{overlay}")
    for group in groups:
        there = offered(group)
        mine = [d for d in deployments(config) if set(d.ray_actor_options.resources) <= set(there)]
        assert mine
        for name, amount in (("CPU", there["CPU"]), ("GPU", there["GPU"])):
            options = "num_cpus" if name == "CPU" else "num_gpus"
            needed = sum(most_replicas(d) * (getattr(d.ray_actor_options, options) or 0.0) for d in mine)
            assert group["maxReplicas"] * amount >= needed, (group["groupName"], name)


def test_an_encoder_may_have_one_pod_more_to_roll_its_replicas() -> None:
    config, groups = served("overlays/gpu")
    for group in groups:
        for deployment in deployments(config):
            options = deployment.ray_actor_options
            if options.num_gpus and set(options.resources) <= set(offered(group)):
                assert group["maxReplicas"] >= most_replicas(deployment) * options.num_gpus + 1


def test_the_head_does_no_work_and_gets_no_requests() -> None:
    for folder, cluster in clusters():
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", folder
        assert cluster["authOptions"]["mode"] == "token"
    for overlay in ("overlays/gpu", "overlays/demo"):
        assert rayservice(overlay)["spec"]["excludeHeadPodFromServeSvc"] is True


def test_production_survives_its_head_and_an_upgrade() -> None:
    service = rayservice("overlays/gpu")
    cluster = cluster_of(service)
    assert cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
    assert service["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # KubeRay refuses any other policy beside this autoscaler.
    assert {pod["spec"].get("restartPolicy", "Never") for _, pod in ray_pods()} == {"Never"}


def test_every_pod_of_the_service_starts_ray_with_what_serve_needs() -> None:
    for overlay in ("overlays/gpu", "overlays/demo"):
        pods = [(name, pod) for name, pod in ray_pods() if name.startswith(overlay)]
        assert pods
        for name, pod in pods:
            found = env_of(pod)
            assert {key: found.get(key) for key in NEEDED_BY_SERVE} == {
                key: RAY_DEFAULTS[key] for key in NEEDED_BY_SERVE
            }, name
            assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/vitrine/bin/haproxy"


def test_a_late_database_or_weights_have_half_an_hour_before_serve_gives_up() -> None:
    config, _ = served("overlays/gpu")
    head = cluster_of(rayservice("overlays/gpu"))["headGroupSpec"]["template"]
    # Read by Serve's controller, which runs on the head: for each replica, and not above the deployment's own limit.
    by_replica = int(env_of(head).get("RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT", MAX_PER_REPLICA_RETRY_COUNT))
    by_deployment = DeploymentConfig().max_constructor_retry_count
    for deployment in deployments(config):
        scaling = deployment.autoscaling_config
        replicas = scaling["min_replicas"] if isinstance(scaling, dict) else 1
        assert min(by_replica * replicas, by_deployment) * WAIT_S >= 1800, deployment.name


HANDED_OVER_S = 30 + 60
"""A replica goes on for a while before it drains (RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S), and a request may
take until `request_timeout_s`."""
TEARDOWN_S = 10


def test_a_pod_that_must_go_drains_to_the_end_before_it_is_killed() -> None:
    config, _ = served("overlays/gpu")
    assert (
        RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S + config.http_options.request_timeout_s
        == HANDED_OVER_S
    )
    for name, pod in ray_pods():
        grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30)
        drain_s = float(env_of(pod).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", 30))
        assert drain_s + TEARDOWN_S <= grace_s, name
        if name.startswith("overlays/") and not name.endswith(" head"):
            assert drain_s >= HANDED_OVER_S, name
    for deployment in deployments(config):
        timeout_s = deployment.graceful_shutdown_timeout_s
        assert timeout_s is DEFAULT.VALUE or timeout_s < HANDED_OVER_S, deployment.name


def test_whichever_node_is_drained_a_gateway_is_left() -> None:
    config, groups = served("overlays/gpu")
    (gateway,) = (each for each in deployments(config) if each.name == "Gateway")
    scaling, a_node = gateway.autoscaling_config, gateway.max_replicas_per_node
    assert scaling["min_replicas"] >= 3
    assert 1 <= a_node < scaling["min_replicas"]
    (group,) = (each for each in groups if each["groupName"] == "service")
    assert group["minReplicas"] * a_node >= scaling["min_replicas"]
    assert group["maxReplicas"] * a_node >= scaling["max_replicas"]


@pytest.mark.parametrize("overlay", ["gpu", "demo"])
def test_the_processes_of_jobs_run_where_gateways_do_and_not_on_the_head(overlay: str) -> None:
    config, groups = served(f"overlays/{overlay}")
    (gateway,) = (each for each in config.applications if each.name == "gateway")
    given = gateway.args.get("jobs", {})
    jobs = JobsConfig.model_validate({k: v for k, v in given.items() if k.startswith("process_")})
    fitting = [
        group["groupName"]
        for group in groups
        if jobs.process_resources and jobs.process_resources.keys() <= offered(group).keys()
    ]
    assert fitting == ["service"]


def test_the_processes_of_jobs_in_production_reserve_memory() -> None:
    config, _ = served("overlays/gpu")
    (gateway,) = (each for each in config.applications if each.name == "gateway")
    assert gateway.args["jobs"]["process_memory_bytes"] >= 2**30


def test_pods_are_probed_and_write_only_where_they_must() -> None:
    for name, pod in ray_pods():
        for container in pod["spec"]["containers"]:
            assert {"/tmp", "/home/vitrine"} <= {mount["mountPath"] for mount in container["volumeMounts"]}, (
                name
            )
            assert {"livenessProbe", "readinessProbe", "resources"} <= container.keys()


def test_pods_start_ray_with_no_arguments_that_the_test_of_several_nodes_would_not_give() -> None:
    for folder, cluster in clusters():
        assert cluster["headGroupSpec"]["rayStartParams"].keys() == {"num-cpus", "dashboard-host"}, folder
        assert all(group["rayStartParams"].keys() == {"resources"} for group in cluster["workerGroupSpecs"])
    for name, pod in ray_pods():
        # KubeRay's own command starts Ray.
        assert not {"command", "args"} & pod["spec"]["containers"][0].keys(), name


def test_only_heads_whose_autoscaler_needs_it_get_a_token_for_kubernetes() -> None:
    for folder, cluster in clusters():
        head = cluster["headGroupSpec"]["template"]["spec"]
        assert head["automountServiceAccountToken"] is bool(cluster.get("enableInTreeAutoscaling")), folder
        for group in cluster["workerGroupSpecs"]:
            assert group["template"]["spec"]["automountServiceAccountToken"] is False


def written(content: Any) -> Iterator[str]:
    """The names of all environment variables whose values stand in a manifest."""
    if isinstance(content, dict):
        if content.keys() == {"name", "value"}:
            yield content["name"]
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from written(each)


def test_secrets_are_referred_to_and_nowhere_written() -> None:
    names = {name for folder in RENDERED for manifest in render(folder) for name in written(manifest)}
    assert "VITRINE_URL" in names
    assert not {name for name in names for word in SECRET_WORDS if word in name}
    assert [folder for folder in RENDERED if of_kind(folder, "Secret")] == []
    for name, pod in ray_pods():
        assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "vitrine"}}], name


def test_the_version_of_ray_is_the_one_that_is_installed() -> None:
    import ray

    assert {cluster["rayVersion"] for _, cluster in clusters()} == {ray.__version__}
