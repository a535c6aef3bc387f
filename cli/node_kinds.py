"""What kinds of node a Serve configuration asks for."""

from collections.abc import Mapping
from typing import Any


def node_kinds(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the custom resources of all deployments, one of each, for a machine that is every kind of node.

    `content` is a Serve configuration that was checked.
    """
    return {
        name: 1.0
        for application in content.get("applications") or []
        for deployment in application.get("deployments") or []
        for name in (deployment.get("ray_actor_options") or {}).get("resources") or {}
    }
