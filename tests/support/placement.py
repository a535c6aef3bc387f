"""A plain scheduler over rendered manifests: first fit of pods on nodes, and of Serve's replicas on pods.

It knows CPUs, memory, GPUs, tolerations of taints and node selectors, of Kubernetes; resources, node kinds and
`max_replicas_per_node`, of Ray. It brings pods by need up to `maxReplicas`, as the autoscaler does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from tests.support.manifests import Manifest, cluster_of, offered

GIB = 2**30
GPU = "nvidia.com/gpu"
HEAD = "head"
_UNITS = {"Mi": 2**20, "Gi": GIB, "m": 1e-3}
Amounts = dict[str, float]


def quantity(text: object) -> float:
    """Read an amount as Kubernetes writes it."""
    written = str(text)
    unit = next((each for each in _UNITS if written.endswith(each)), "")
    return float(written.removesuffix(unit)) * _UNITS.get(unit, 1)


@dataclass(slots=True)
class Node:
    """A machine: what is free on it, its labels, and the taints that keep pods away."""

    name: str
    free: Amounts
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()

    def takes(self, pod: Manifest, requests: Amounts) -> bool:
        """Check whether a pod may run here and fits."""
        tolerated = {each["key"] for each in pod["spec"].get("tolerations", [])}
        wanted = pod["spec"].get("nodeSelector", {}).items()
        return (
            tolerated.issuperset(self.taints) and wanted <= self.labels.items() and fits(requests, self.free)
        )


@dataclass(slots=True)
class Pod:
    """A pod of Ray on a node, with what Ray sees free on it and how many replicas of each deployment it holds."""

    group: str
    node: Node
    free: Amounts
    replicas: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment of Serve asks for."""

    name: str
    asked: Amounts
    least: int
    most: int
    a_node: int | None


class DoesNotFit(AssertionError):
    """Something could never be placed; the message says what lacks where."""


def fits(asked: Mapping[str, float], free: Mapping[str, float]) -> bool:
    """Check whether everything that is asked for is free."""
    return all(free.get(name, 0.0) >= amount - 1e-9 for name, amount in asked.items())


def take(asked: Mapping[str, float], free: Amounts) -> None:
    """Reserve what is asked for."""
    for name, amount in asked.items():
        free[name] = free.get(name, 0.0) - amount


def requests_of(pod: Manifest) -> Amounts:
    """Sum what the containers of a pod request."""
    total: Amounts = {}
    for container in pod["spec"]["containers"]:
        take({name: -quantity(amount) for name, amount in container["resources"]["requests"].items()}, total)
    return total


def deployments_of(serve_config: str) -> Iterator[Deployment]:
    """Read the deployments of a Serve configuration."""
    for application in yaml.safe_load(serve_config)["applications"]:
        for each in application["deployments"]:
            options, scaling = each.get("ray_actor_options", {}), each.get("autoscaling_config")
            asked = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
            asked |= options.get("resources", {})
            fixed = each.get("num_replicas", 1)
            least, most = (scaling["min_replicas"], scaling["max_replicas"]) if scaling else (fixed, fixed)
            name = f"{application['name']}/{each['name']}"
            yield Deployment(name, asked, least, most, each.get("max_replicas_per_node"))


class Placement:
    """One Ray cluster on nodes that others may share."""

    def __init__(self, cluster: Manifest, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.pods: list[Pod] = []
        self._groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        self._head = cluster["headGroupSpec"]["template"]
        self._sidecar = cluster.get("autoscalerOptions", {}).get("resources", {"requests": {}})
        self._keep("replicas")

    @classmethod
    def of(cls, manifest: Manifest, nodes: Sequence[Node]) -> "Placement":
        """Place the pods that a RayService or RayJob begins with."""
        return cls(cluster_of(manifest), nodes)

    def restore(self) -> None:
        """Bring a lost head again and the least pods of each group, as KubeRay and the autoscaler do.

        Raises:
            DoesNotFit: no node has room for one of them.
        """
        self._keep("minReplicas")

    def add(self, group: str) -> Pod | None:
        """Bring one more pod of a group; None where it may not grow or no node has room."""
        spec = self._groups[group]
        if sum(pod.group == group for pod in self.pods) >= spec["maxReplicas"]:
            return None
        # The pods of a group spread over nodes.
        held = [sum(pod.node is node and pod.group == group for pod in self.pods) for node in self.nodes]
        by_pods = [node for _, _, node in sorted(zip(held, range(len(held)), self.nodes, strict=True))]
        requests = requests_of(spec["template"])
        for node in by_pods:
            if node.takes(spec["template"], requests):
                take(requests, node.free)
                self.pods.append(Pod(group, node, offered(spec)))
                return self.pods[-1]
        return None

    def run(self, deployment: Deployment, count: int) -> None:
        """Place so many replicas of a deployment, on pods that come as they are needed.

        Raises:
            DoesNotFit: no pod holds one, and no more pods of a group that could may come.
        """
        for number in range(count):
            pod = next(
                (each for each in self._by_replicas(deployment) if self._holds(each, deployment)), None
            )
            while pod is None:
                kinds = [
                    name for name, group in self._groups.items() if fits(deployment.asked, offered(group))
                ]
                added = next((new for name in kinds if (new := self.add(name)) is not None), None)
                if added is None:
                    raise DoesNotFit(
                        f"replica {number + 1} of {count} of {deployment.name} fits nowhere: "
                        f"groups that could hold one: {kinds}; pods: {self.counts()}"
                    )
                pod = added if self._holds(added, deployment) else None
            take(deployment.asked, pod.free)
            pod.replicas[deployment.name] = pod.replicas.get(deployment.name, 0) + 1

    def lose(self, node: Node) -> list[tuple[str, int]]:
        """Lose a node with its pods; returns the replicas that were on it, which must start again elsewhere."""
        lost = [pod for pod in self.pods if pod.node is node]
        self.pods = [pod for pod in self.pods if pod.node is not node]
        self.nodes = [each for each in self.nodes if each is not node]
        return [item for pod in lost for item in pod.replicas.items()]

    def counts(self) -> dict[str, int]:
        """Count the pods of each group."""
        return {name: sum(pod.group == name for pod in self.pods) for name in self._groups}

    def running(self, deployment: str) -> int:
        """Count the replicas of a deployment."""
        return sum(pod.replicas.get(deployment, 0) for pod in self.pods)

    def _keep(self, number: str) -> None:
        if not any(pod.group == HEAD for pod in self.pods):
            self._add_head()
        for name, group in self._groups.items():
            while self.counts()[name] < group[number]:
                if self.add(name) is None:
                    raise DoesNotFit(f"a pod of {name}, which there must be, fits on no node")

    def _add_head(self) -> None:
        requests = requests_of(self._head)
        take({each: -quantity(amount) for each, amount in self._sidecar["requests"].items()}, requests)
        for node in self.nodes:
            if node.takes(self._head, requests):
                take(requests, node.free)
                self.pods.append(Pod(HEAD, node, {}))
                return
        raise DoesNotFit(f"the head, which requests {requests}, fits on no node")

    def _by_replicas(self, deployment: Deployment) -> Iterable[Pod]:
        return sorted(self.pods, key=lambda pod: pod.replicas.get(deployment.name, 0))

    @staticmethod
    def _holds(pod: Pod, deployment: Deployment) -> bool:
        has_room = deployment.a_node is None or pod.replicas.get(deployment.name, 0) < deployment.a_node
        return has_room and fits(deployment.asked, pod.free)


def cpu_node(name: str, cpus: float = 16, gib: float = 64) -> Node:
    """A machine without GPUs, of which Kubernetes keeps a twentieth."""
    return Node(name, {"cpu": 0.95 * cpus, "memory": 0.95 * gib * GIB})


def gpu_node(name: str, gpus: int = 1) -> Node:
    """A machine with GPUs and for each 12 CPUs and 48 GiB, kept for pods that ask for GPUs."""
    free = {"cpu": 12.0 * gpus, "memory": 48.0 * GIB * gpus, GPU: float(gpus)}
    return Node(name, free, taints=(GPU,))
