"""Every manifest is what its schema says: Kubernetes' own, and KubeRay's."""

import gzip
import json
import re
from copy import deepcopy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.manifests import COMPONENTS, K8S, RENDERED, ROOT, Manifest, cluster_of, rayservice, render

UNKNOWN_HERE = {"monitoring.coreos.com/v1", "milvus.io/v1beta1", "cloud.google.com/v1"}
"""Resources of other operators, whose schemas the repository does not have."""


def strict(schema: Any) -> Any:
    """Refuse unknown keys, which the API server drops in silence."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not open_ended:
        closed["additionalProperties"] = False
    return closed


def check_ray(manifest: Manifest) -> None:
    schema = json.loads(
        gzip.decompress((K8S / "crds" / f"{manifest['kind'].lower()}.v1.json.gz").read_bytes())
    )
    jsonschema.Draft202012Validator(strict(schema)).validate(manifest)


def check(manifest: Manifest) -> None:
    if manifest["apiVersion"] == "ray.io/v1":
        check_ray(manifest)
    elif manifest["apiVersion"] not in UNKNOWN_HERE:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", RENDERED)
def test_every_manifest_is_what_its_schema_says(folder: str) -> None:
    manifests = render(folder)
    assert manifests
    for manifest in manifests:
        check(manifest)


@pytest.mark.parametrize("component", COMPONENTS)
def test_production_with_a_component_is_what_its_schemas_say_and_differs(component: str) -> None:
    manifests = render("overlays/gpu", component)
    assert manifests != render("overlays/gpu")
    for manifest in manifests:
        check(manifest)


def test_a_misspelled_key_of_a_rayservice_is_noticed() -> None:
    (service,) = (dict(each) for each in render("overlays/gpu") if each["kind"] == "RayService")
    service["spec"] = {**service["spec"], "serveConfigv2": ""}
    with pytest.raises(jsonschema.ValidationError, match="serveConfigv2"):
        check(service)


def test_what_the_page_proposes_for_the_first_cluster_fits_into_the_pods() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    (runtime,) = re.findall(r"add `runtimeClassName: (\w+)`", page)
    annotations = dict(re.findall(r"`([a-z./-]+/(?:do-not-disrupt|safe-to-evict)): \"(\w+)\"`", page))
    assert annotations == {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    (request,) = re.findall(r"requests of `([a-z-]+)`", page)
    service = deepcopy(rayservice("overlays/gpu"))
    cluster = cluster_of(service)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]
        pod["metadata"]["annotations"] = annotations
        pod["spec"]["runtimeClassName"] = runtime
        pod["spec"]["containers"][0]["resources"]["requests"][request] = "25Gi"
    check(service)


def test_a_login_of_the_registry_goes_where_the_page_says() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert "Name its secret as `imagePullSecrets` in `k8s/base/service_account.yaml`" in page
    (account,) = (each for each in render("overlays/gpu") if each["kind"] == "ServiceAccount")
    check({**account, "imagePullSecrets": [{"name": "registry"}]})
    (job,) = (each for each in render("jobs/weights") if each["kind"] == "Job")
    assert job["spec"]["template"]["spec"].get("serviceAccountName", "default") == "default"
    assert "by the service account `default`" in page


def test_a_misspelled_key_of_a_core_resource_is_noticed() -> None:
    with pytest.raises(kubernetes_validate.ValidationError, match="minimumAvailable"):
        check(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": "a"},
                "spec": {"minimumAvailable": 1},
            }
        )


def test_every_file_is_yaml_that_says_what_it_is() -> None:
    for path in sorted(K8S.rglob("*.yaml")):
        if path.name in ("serve_config.yaml", "encoders.yaml", "one_pod.yaml"):
            continue
        for document in yaml.safe_load_all(path.read_text()):
            assert {"apiVersion", "kind"} <= document.keys(), path


def test_every_kustomization_is_rendered_that_is_no_part_of_another() -> None:
    files = {path.parent: yaml.safe_load(path.read_text()) for path in K8S.rglob("kustomization.yaml")}
    parts = {
        (folder / name).resolve()
        for folder, content in files.items()
        for name in [*content.get("resources", []), *content.get("components", [])]
    }
    alone = {str(folder.relative_to(K8S)) for folder in files if folder not in parts}
    assert alone == {*RENDERED, *(f"components/{name}" for name in COMPONENTS)}


def test_nothing_is_left_out_of_the_kustomizations() -> None:
    for folder in {path.parent for path in K8S.rglob("*.yaml")}:
        kustomization = (folder / "kustomization.yaml").read_text()
        for path in folder.iterdir():
            if path.is_file() and path.name != "kustomization.yaml":
                assert path.name in kustomization, f"{path} is not part of its kustomization"
