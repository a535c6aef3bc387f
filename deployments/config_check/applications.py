"""What the applications of a Serve configuration are given, and where they contradict each other."""

import difflib
import inspect
import os
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from ray.serve.config import GangSchedulingConfig, RequestRouterConfig
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from core.api_keys import is_loopback
from core.config import Place
from deployments.app import DEPLOYMENTS
from deployments.config import EnsembleArgs, GatewayArgs, MilvusLiteArgs, RepairArgs
from deployments.config_check.tables import model_in
from milvus.config import socket_path

Problem = tuple[Place, str]
LAX: dict[str, type[BaseModel]] = {
    "gang_scheduling_config": GangSchedulingConfig,
    "request_router_config": RequestRouterConfig,
}
"""Settings of a deployment whose unknown keys no model of Serve refuses, whatever it is asked."""


def accepted(import_path: str) -> tuple[type[BaseModel], str | None, type[BaseModel] | None]:
    """Return the model of a builder's args, and for ours the name of its deployment and its user_config."""
    builder = pkgutil.resolve_name(import_path)
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1 or (args := model_in(parameters[0].annotation)) is None:
        raise TypeError(f"{import_path} does not take one configuration")
    return args, *DEPLOYMENTS.get(builder, (None, None))


def user_config(deployment: DeploymentSchema) -> Any:
    """Return what a deployment is given, or nothing; the schema's default is a word, not a map."""
    return (deployment.user_config or {}) if "user_config" in deployment.model_fields_set else {}


def hint(name: object, known: Iterable[str]) -> str:
    """Name what was probably meant."""
    close = difflib.get_close_matches(str(name), [*known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def has_admin_key(config: ServeDeploySchema) -> bool:
    """Return True if every gateway of a valid configuration names an admin key."""
    gateways = [args for args in _arguments(config) if isinstance(args, GatewayArgs)]
    return all(args.authentication.admin_key_sha256 for args in gateways)


def _arguments(config: ServeDeploySchema) -> list[BaseModel]:
    return [accepted(each.import_path)[0].model_validate(each.args) for each in config.applications]


def conflicts(config: ServeDeploySchema) -> Iterator[Problem]:
    """Check valid applications against each other, and the gateway's against Serve's own settings."""
    pairs = [*zip(config.applications, _arguments(config), strict=True)]
    # An encoder of one's own has a builder of that name as well, whatever its arguments are.
    encoders = {each.name: args for each, args in pairs if each.import_path.endswith(":build_encoder")}
    owners = {_endpoint(args.address): args.address for _, args in pairs if isinstance(args, MilvusLiteArgs)}
    declared = [args.milvus.attribute_kinds for _, args in pairs if isinstance(args, GatewayArgs)]
    for index, (application, args) in enumerate(pairs):
        at: Place = ("applications", index, "args")
        named: list[Problem] = [
            (("applications", index, "deployments", position, "user_config", key), model)
            for position, deployment in enumerate(application.deployments)
            for key in ("models", "weights")
            for model in user_config(deployment).get(key, ())
        ]
        if application.name in encoders and getattr(args, "name", None) != application.name:
            yield (*at, "name"), f"this must be the application's name, {application.name!r}"
        if isinstance(args, GatewayArgs | RepairArgs | EnsembleArgs):
            uri, kinds = args.milvus.uri, args.milvus.attribute_kinds
            if owners and _endpoint(uri) not in owners:
                known = ", ".join(owners.values())
                message = f"nothing listens on {uri}: the application of Milvus Lite has {known}"
                yield (*at, "milvus", "uri"), message
            if any(kinds != each for each in declared):
                message = "this must be as in the gateway's args: all search and write the same collections"
                yield (*at, "milvus", "indexed_attributes"), message
        if isinstance(args, RepairArgs) and args.captions is not None:
            where, model = (*at, "captions", "model"), args.captions.model
            named.append((where, model))
            if model in encoders and getattr(encoders[model], "captions", None) is None:
                yield where, f"encoder {model!r} writes no captions; its args need `captions: {{}}`"
        for where, model in named:
            if model not in encoders:
                known = f"{hint(model, encoders)} (encoders: {', '.join(sorted(encoders)) or 'none'})"
                yield where, f"no encoder is called {model!r}{known}"
        if isinstance(args, GatewayArgs):
            yield from _gateway_problems(config, index, args)


def _endpoint(address: str) -> str:
    """Return the socket path, or host:port, of an address of Milvus Lite, which has no TLS."""
    if address.startswith("unix:"):
        return os.path.normpath(socket_path(address))
    return address.removeprefix("http://").rstrip("/").lower()


def _gateway_problems(config: ServeDeploySchema, index: int, args: GatewayArgs) -> Iterator[Problem]:
    """Find what would leave the service open, or let Serve answer in place of the gateway."""
    place: Place = ("applications", index)
    host, timeout_s = config.http_options.host, config.http_options.request_timeout_s
    if not args.authentication.admin_key_sha256 and not is_loopback(host):
        message = f"an admin key is needed to listen on {host}: give its sha256, or listen on 127.0.0.1"
        yield (*place, "args", "authentication", "admin_key_sha256"), message
    if timeout_s is not None and timeout_s <= (deadline_s := args.admission.request_deadline_s):
        message = f"this must exceed the gateway's admission.request_deadline_s, {deadline_s:g} s"
        yield ("http_options", "request_timeout_s"), message
    # Serve must accept more than the gateway works on, so that the gateway itself refuses the rest.
    allowed, needed = (
        config.applications[index].deployments[0].max_ongoing_requests,
        args.admission.max_in_flight,
    )
    if not isinstance(allowed, int) or allowed < 2 * needed:
        message = f"this must be at least {2 * needed}, twice args.admission.max_in_flight"
        yield (*place, "deployments", 0, "max_ongoing_requests"), message
