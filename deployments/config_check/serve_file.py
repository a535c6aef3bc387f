"""The check of a Serve configuration: unknown keys, wrong values, and applications that contradict each other."""

import difflib
import inspect
import json
import os
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig, GangSchedulingConfig, RequestRouterConfig
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from catalog.database import CatalogConfig
from core.api_keys import is_loopback
from core.config import expand_environment, unset_names
from core.errors import ConfigError
from deployments.app import DEPLOYMENTS
from deployments.config import EnsembleArgs, GatewayArgs, MilvusLiteArgs, RepairArgs
from deployments.config_check.tables import model_in
from milvus.config import socket_path

Place = tuple[str | int, ...]
"""The keys and positions that lead to a value."""
Problem = tuple[Place, str]
Nodes = Mapping[Place, tuple[int | None, yaml.Node | None]]
"""The values of a file by place, each with the line of its key. Aliases share a node."""
_ANY_MAP: dict[str, type[BaseModel]] = {
    "autoscaling_config": AutoscalingConfig,
    "gang_scheduling_config": GangSchedulingConfig,
    "request_router_config": RequestRouterConfig,
}
"""Settings of a deployment that Serve's schema accepts as any map, with their models."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a file. `unset` marks a variable that is not set here, which may be right elsewhere."""

    file: str
    line: int | None
    application: str | None
    field: str
    message: str
    unset: bool = False

    def __str__(self) -> str:
        """Name the file and line, the field with its application, and the mistake."""
        line = "" if self.line is None else f":{self.line}"
        field = self.field + (f" ({self.application})" if self.application else "")
        return f"{self.file}{line}: {f'{field}: ' if field else ''}{self.message}"


def read_serve_file(path: Path, host: str | None = None) -> ServeDeploySchema:
    """Read and check a Serve configuration; `host` replaces that of the file.

    Raises:
        ConfigError: all mistakes, a line each.
    """
    content, mistakes = _checked(path, host)
    if mistakes:
        raise ConfigError("\n".join(map(str, mistakes)))
    return ServeDeploySchema.model_validate(content)


def check_serve_file(path: Path) -> list[Mistake]:
    """List the mistakes of a Serve configuration by line."""
    return _checked(path)[1]


def catalog_of(path: Path) -> CatalogConfig:
    """Read where the catalog is, and nothing else: no other variable of the environment need be set.

    Raises:
        ConfigError: the file cannot be read, no gateway names a catalog, its settings are wrong, or they refer to
            a variable that is not set.
    """
    if isinstance(loaded := _load(path), Mistake):
        raise ConfigError(str(loaded))
    try:
        applications = loaded[0]["applications"]
        gateway = next(each for each in applications if each["import_path"].endswith(":build_gateway"))
        # Raises for a variable that is not set, and says which.
        return CatalogConfig.model_validate(expand_environment(gateway["args"]["catalog"]))
    except (LookupError, TypeError, AttributeError, StopIteration, ValidationError):
        raise ConfigError(f"{path} names no catalog: `vitrine config check {path}` says why") from None


def has_admin_key(config: ServeDeploySchema) -> bool:
    """Return True if every gateway of a valid configuration names an admin key."""
    gateways = [args for args in _arguments(config) if isinstance(args, GatewayArgs)]
    return all(args.authentication.admin_key_sha256 for args in gateways)


class _Loader(yaml.SafeLoader):
    """Refuses a key that a map holds twice: YAML itself silently keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a map, before other maps are merged into it."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, yaml.Node] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (first := seen.setdefault(key.value, key)) is not key:
                problem = (
                    f"{key.value!r} is in line {first.start_mark.line + 1} too; only the last would count"
                )
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node


def _load(path: Path) -> tuple[Any, Nodes] | Mistake:
    """Read YAML: its content and its nodes, or why it cannot be read."""
    line: int | None = None
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        content = None if root is None else loader.construct_document(root)
        # Fails where an alias contains itself.
        json.dumps(content, default=str, skipkeys=True)
        return content, dict(_nodes(root))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        reason = f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except (OSError, yaml.YAMLError, ValueError) as error:
        if (mark := getattr(error, "problem_mark", None)) is not None:
            line = mark.line + 1
        known = (getattr(error, name, None) for name in ("strerror", "problem", "reason"))
        reason = next(filter(None, known), str(error))
    return Mistake(str(path), line, None, "", f"cannot be read as YAML: {reason}")


def _nodes(
    node: yaml.Node | None, place: Place = (), line: int | None = None
) -> Iterator[tuple[Place, tuple[int | None, yaml.Node | None]]]:
    yield place, (line, node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _nodes(value, (*place, key.value), key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _nodes(item, (*place, index), item.start_mark.line + 1)


def _in_file(nodes: Nodes, place: Place) -> int:
    """Count the parts of a place that the file has."""
    return next(depth for depth in range(len(place), -1, -1) if place[:depth] in nodes)


def _checked(path: Path, host: str | None = None) -> tuple[Any, list[Mistake]]:
    if isinstance(loaded := _load(path), Mistake):
        return None, [loaded]
    content, nodes = loaded
    if host is not None and isinstance(content, dict):
        options = content.get("http_options") or {}
        content["http_options"] = options | {"host": host} if isinstance(options, dict) else options
    mistakes: dict[object, Mistake] = {}
    for place, message, is_unset in _problems(content, nodes):
        depth = _in_file(nodes, place)
        line, node = nodes[place[:depth]]
        _, named = nodes.get((*place[:2], "name"), (None, None))
        application = str(named.value) if place[:1] == ("applications",) and named else None
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
        mistake = Mistake(str(path), line, application, field.removeprefix("."), message, is_unset)
        # What an anchor holds is reported once, not at each of its aliases.
        mistakes.setdefault((id(node), place[depth:], message), mistake)
    return content, sorted(mistakes.values(), key=lambda each: each.line or 0)


def _problems(content: Any, nodes: Nodes) -> Iterator[tuple[Place, str, bool]]:
    """Check the form of the file, then each application, then all together; a step needs the one before.

    The third value marks a variable that is not set. What lies around or within one cannot be checked.
    """
    # Only our builders expand variables, Serve does not.
    unset = [
        (place, name)
        for place, (_, node) in nodes.items()
        if isinstance(node, yaml.ScalarNode) and {"args", "user_config"}.intersection(place)
        for name in unset_names(node.value)
    ]
    for at, name in unset:
        message = f"${{{name}}} is not set in the environment; set it, or give a fallback: ${{{name}:-…}}"
        yield at, message, True
    found = list(_violations(nodes, ServeDeploySchema, content, ()))
    given = expand_environment(content, dict(os.environ) | {name: "unset" for _, name in unset})
    with suppress(ValidationError):
        config = ServeDeploySchema.model_validate(given)
        for index, application in enumerate(config.applications):
            found += _application_problems(nodes, application, ("applications", index))
        if not found and not unset:
            found += _contradictions(config)
    for place, message in found:
        if not any(place[: len(at)] == at[: len(place)] for at, _ in unset):
            yield place, message, False


def _violations(nodes: Nodes, model: type[BaseModel], value: Any, place: Place) -> Iterator[Problem]:
    """Yield pydantic's errors, each at the last part of its location that the file has.

    A location may go on with the types that were tried. That of a missing key ends with the key.
    """
    try:
        model.model_validate(value, extra="forbid")
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            at, message = (*place, *detail["loc"]), detail["msg"].removeprefix("Value error, ")
            at = at[: _in_file(nodes, at) + (detail["type"] == "missing")]
            if detail["type"] == "extra_forbidden":
                message = f"there is no such key{_suggestion(at[-1], _keys(model))}"
            yield at, message


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield all keys of a model, and of those within it."""
    for name, field in model.model_fields.items():
        yield name
        if (inner := model_in(field.annotation)) is not None:
            yield from _keys(inner)


def _suggestion(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), [*known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _application_problems(
    nodes: Nodes, application: ServeApplicationSchema, place: Place
) -> Iterator[Problem]:
    """Check an application by what its builder accepts. Each of ours has one deployment."""
    try:
        args, name, settings = _accepted(application.import_path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        known = [f"deployments.app:{builder.__name__}" for builder in DEPLOYMENTS]
        message = f"this is not a builder: {error}{_suggestion(application.import_path, known)}"
        yield (*place, "import_path"), message
        return
    yield from _violations(nodes, args, application.args, (*place, "args"))
    for index, deployment in enumerate(application.deployments):
        for key, model in _ANY_MAP.items():
            if isinstance(value := getattr(deployment, key), dict):
                yield from _violations(nodes, model, value, (*place, "deployments", index, key))
    if name is not None and [each.name for each in application.deployments] != [name]:
        yield (*place, "deployments"), f"this must be one deployment with the name {name!r}"
    elif name is not None:
        given, where = _user_config(application.deployments[0]), (*place, "deployments", 0, "user_config")
        if settings is not None:
            yield from _violations(nodes, settings, given, where)
        elif given:
            yield where, f"{name} takes no user_config"


def _accepted(import_path: str) -> tuple[type[BaseModel], str | None, type[BaseModel] | None]:
    """Return the model of a builder's args, and for ours the name of its deployment and its user_config."""
    builder = pkgutil.resolve_name(import_path)
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1 or (args := model_in(parameters[0].annotation)) is None:
        raise TypeError(f"{import_path} does not take one configuration")
    return args, *DEPLOYMENTS.get(builder, (None, None))


def _arguments(config: ServeDeploySchema) -> list[BaseModel]:
    return [_accepted(each.import_path)[0].model_validate(each.args) for each in config.applications]


def _user_config(deployment: DeploymentSchema) -> dict[str, Any]:
    # The schema's default is a word, not a map.
    return (deployment.user_config or {}) if "user_config" in deployment.model_fields_set else {}


def _contradictions(config: ServeDeploySchema) -> Iterator[Problem]:
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
            for model in _user_config(deployment).get(key, ())
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
                known = f"{_suggestion(model, encoders)} (encoders: {', '.join(sorted(encoders)) or 'none'})"
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
    allowed, needed = (
        config.applications[index].deployments[0].max_ongoing_requests,
        2 * args.admission.max_in_flight,
    )
    # Serve must accept more than the gateway works on, so that the gateway itself refuses the rest.
    if not isinstance(allowed, int) or allowed < needed:
        message = f"this must be at least {needed}, twice args.admission.max_in_flight"
        yield (*place, "deployments", 0, "max_ongoing_requests"), message
