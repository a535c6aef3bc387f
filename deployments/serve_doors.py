"""What a Serve configuration says of the gateway's doors, held against where and how Serve listens."""

from collections.abc import Iterator

from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from deployments.checking.problem import Problem
from deployments.config import GatewayArgs
from deployments.door import is_loopback
from deployments.door_config import DoorConfig

SPARE_REQUESTS = 2
"""Serve must let in this many times what the gateway works on, so that the gateway itself can refuse the rest."""


def has_admin_key(config: ServeDeploySchema) -> bool:
    """Tell whether every gateway of a sound configuration names an admin key."""
    return all(door.admin_key_sha256 for _, _, door in _gateways(config))


def door_problems(config: ServeDeploySchema) -> Iterator[Problem]:
    """Name what would leave the service open, or let Serve answer in place of the gateway."""
    for index, application, door in _gateways(config):
        place = ("applications", index)
        host = config.http_options.host
        if not door.admin_key_sha256 and not is_loopback(host):
            yield Problem(
                (*place, "args", "door", "admin_key_sha256"),
                f"is needed to listen on {host}, or everyone could do everything",
                "the sha256 of a key, or 127.0.0.1 as http_options.host",
            )
        timeout_s = config.http_options.request_timeout_s
        if timeout_s is not None and timeout_s <= door.request_deadline_s:
            yield Problem(
                ("http_options", "request_timeout_s"),
                f"is {timeout_s:g}, so that Serve would give up before the gateway does",
                f"more than the {door.request_deadline_s:g} s of applications[{index}].args.door.request_deadline_s",
            )
        allowed = application.deployments[0].max_ongoing_requests
        needed = SPARE_REQUESTS * door.max_in_flight
        if not isinstance(allowed, int) or allowed < needed:
            yield Problem(
                (*place, "deployments", 0, "max_ongoing_requests"),
                f"is {allowed}, so that Serve would refuse requests before the gateway does",
                f"at least {needed}, {SPARE_REQUESTS} times args.door.max_in_flight",
            )


def _gateways(config: ServeDeploySchema) -> Iterator[tuple[int, ServeApplicationSchema, DoorConfig]]:
    for index, application in enumerate(config.applications):
        if application.import_path.endswith(":build_gateway"):
            yield index, application, GatewayArgs.model_validate(application.args).door
