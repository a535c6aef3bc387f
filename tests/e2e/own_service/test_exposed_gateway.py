"""A gateway without keys, started by others than `vitrine serve` in a Serve that listens on a network."""

import json
import os
import sys
import tempfile
from pathlib import Path

from core.tcp_ports import free_port
from deployments.proxy.ray_environment import ray_environment
from jobs.runner.cluster import start_ray
from tests.support.children import Child

ROOT = Path(__file__).parents[3]


def test_serve_says_why_a_gateway_without_keys_does_not_start() -> None:
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as home:
        command = [sys.executable, "-m", "tests.e2e.own_service.test_exposed_gateway", home]
        with Child("exposed", command, cwd=ROOT, env=ray_environment(os.environ, Path(home))) as child:
            try:
                assert child.wait(timeout=600) == 0
            finally:
                child.kill()
        state = json.loads((Path(home) / "state.json").read_text())
    assert state["status"] == "DEPLOY_FAILED", state
    assert "No API key is configured, and Serve listens on 0.0.0.0" in state["message"]
    assert state["keyed"] == "RUNNING", state


def main(home: str) -> None:
    """Write down how a gateway fares without a key, and then with one."""
    import ray
    from ray import serve

    from deployments.app import build_gateway
    from deployments.config import GatewayArgs

    args = {
        "catalog": {"database_url": f"sqlite:///{home}/catalog.sqlite", "blobs_url": f"{home}/blobs"},
        "milvus": {"uri": "http://127.0.0.1:1"},
    }
    keyed = {**args, "authentication": {"admin_key_sha256": "0" * 64}}
    start_ray(namespace="serve", num_cpus=2, include_dashboard=False)
    serve.start(http_options={"host": "0.0.0.0", "port": free_port()})
    try:
        serve.run(build_gateway(GatewayArgs.model_validate(args)), name="gateway")
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
    application = serve.status().applications["gateway"]
    said = [application.message, *(each.message for each in application.deployments.values())]
    serve.run(build_gateway(GatewayArgs.model_validate(keyed)), name="gateway")
    state = {
        "status": application.status,
        "message": " ".join(said),
        "keyed": serve.status().applications["gateway"].status,
    }
    (Path(home) / "state.json").write_text(json.dumps(state))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
