"""The check of a Serve configuration: unknown keys, wrong values, and applications that contradict each other."""

import difflib
import inspect
import os
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ray.serve.config import AutoscalingConfig, GangSchedulingConfig, RequestRouterConfig
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from catalog.database import CatalogConfig
from core.api_keys import is_loopback
from core.config import Config, expand_environment, unset_names
from core.errors import ConfigError
from deployments.app import DEPLOYMENTS
from deployments.config import EnsembleArgs, GatewayArgs, MilvusLiteArgs, RepairArgs
from deployments.config_check.tables import model_in
from milvus.config import socket_path

Place = tuple[str | int, ...]
"""The keys and positions that lead to a value."""
_ANY_MAP: dict[str, type[BaseModel]] = {
    "autoscaling_config": AutoscalingConfig,
    "gang_scheduling_config": GangSchedulingConfig,
    "request_router_config": RequestRouterConfig,
}
"""Settings of a deployment that Serve's schema accepts as any map, with their models."""
_BUILDERS = {f"deployments.app:{builder.__name__}" for builder in DEPLOYMENTS}


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
    mistakes = check_serve_file(path, host)
    if mistakes:
        raise ConfigError("\n".join(map(str, mistakes)))
    return ServeDeploySchema.model_validate(_Document(path.read_text(), host).content)


def check_serve_file(path: Path, host: str | None = None) -> list[Mistake]:
    """List the mistakes of a Serve configuration by line; `host` replaces that of the file."""
    try:
        document = _Document(path.read_text(), host)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "strerror", None) or getattr(error, "problem", None) or error
        line = None if mark is None else mark.line + 1
        return [Mistake(str(path), line, None, "", f"cannot be read as YAML: {reason}")]
    mistakes: dict[object, Mistake] = {}
    for place, message, unset in (*_duplicates(document.root, (), set()), *_problems(document.content)):
        line, target = document.find(place)
        # What an anchor holds is reported once, not at each of its aliases.
        mistakes.setdefault(
            (target, message),
            Mistake(str(path), line, _application(place, document.content), _written(place), message, unset),
        )
    return sorted(mistakes.values(), key=lambda each: each.line or 0)


def catalog_of(path: Path) -> CatalogConfig:
    """Read where the catalog is, and nothing else: no other variable of the environment need be set.

    Raises:
        ConfigError: no gateway names a catalog, its settings are wrong, or they refer to a variable that is not
            set.
    """
    try:
        applications = yaml.safe_load(path.read_text())["applications"]
        gateways = [each for each in applications if str(each["import_path"]).endswith(":build_gateway")]
        settings = gateways[0]["args"]["catalog"]
        # Raises for a variable that is not set, and says which.
        expand_environment(settings)
        return CatalogConfig.model_validate(settings)
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValidationError):
        raise ConfigError(f"{path} names no catalog: `vitrine config check {path}` says why") from None


def has_admin_key(config: ServeDeploySchema) -> bool:
    """Return True if every gateway of a valid configuration names an admin key."""
    return all(
        GatewayArgs.model_validate(each.args).authentication.admin_key_sha256
        for each in config.applications
        if each.import_path.endswith(":build_gateway")
    )


class _Document:
    """A YAML document: its content, and the line of each key, from 1.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """

    def __init__(self, text: str, host: str | None) -> None:
        self.content = yaml.safe_load(text)
        self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        if host is not None and isinstance(self.content, dict):
            self.content["http_options"] = {**(self.content.get("http_options") or {}), "host": host}

    def find(self, place: Place) -> tuple[int | None, object]:
        """Return the line of a key, or of the nearest one around it, and an identity that aliases share."""
        node, line = self.root, None
        for depth, part in enumerate(place):
            items = {key: (line, value) for key, line, value in _items(node)}
            if part not in items:
                return line, (id(node), place[depth:])
            line, node = items[part]
        return line, (id(node), ())


class _Problem(NamedTuple):
    place: Place
    message: str
    unset: bool = False


def _items(node: yaml.Node | None) -> Iterator[tuple[str | int, int, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((index, item.start_mark.line + 1, item) for index, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((key.value, key.start_mark.line + 1, value) for key, value in node.value)


def _duplicates(node: yaml.Node | None, place: Place, seen: set[int]) -> Iterator[_Problem]:
    """Yield the keys that a map holds twice: YAML silently keeps the last."""
    if id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str | int, int] = {}
    for key, line, value in _items(node):
        if key in lines:
            message = f"duplicate key in lines {lines[key]} and {line}; only the last would count"
            yield _Problem((*place, key), message)
        lines[key] = line
        yield from _duplicates(value, (*place, key), seen)


def _problems(content: Any) -> list[_Problem]:
    """Check the form of the file, then each application, then all together; a step needs the one before."""
    found = list(_violations(ServeDeploySchema, content, ()))
    try:
        config = ServeDeploySchema.model_validate(content)
    except ValidationError:
        return found
    for index, application in enumerate(config.applications):
        found += _application_problems(application, ("applications", index))
    return found or list(_contradictions(config))


def _violations(model: type[BaseModel], value: Any, place: Place) -> Iterator[_Problem]:
    """Yield pydantic's errors; what lies around or within an unset variable cannot be checked."""
    unset = dict(_unset_variables(value)) if issubclass(model, Config) else {}
    for at, names in unset.items():
        for name in names:
            message = f"${{{name}}} is not set in the environment; set it, or give a fallback: ${{{name}:-…}}"
            yield _Problem((*place, *at), message, unset=True)
    stand_ins = dict.fromkeys((name for names in unset.values() for name in names), "unset")
    try:
        given = expand_environment(value, stand_ins | dict(os.environ)) if unset else value
        model.model_validate(given, extra="forbid")
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            at = _place_in(value, detail)
            if not any(at[: len(other)] == other[: len(at)] for other in unset):
                yield _Problem((*place, *at), _message(detail, model, at))


def _unset_variables(value: Any, place: Place = ()) -> Iterator[tuple[Place, list[str]]]:
    if isinstance(value, str) and (names := unset_names(value)):
        yield place, names
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from _unset_variables(item, (*place, key))


def _place_in(value: Any, detail: ErrorDetails) -> Place:
    """Cut pydantic's location where it leaves the value: it may go on with the types that were tried."""
    location = detail["loc"]
    for depth, part in enumerate(location):
        try:
            value = value[part]
        except (LookupError, TypeError):
            return location[: depth + (detail["type"] == "missing")]
    return location


def _message(detail: ErrorDetails, model: type[BaseModel], place: Place) -> str:
    if detail["type"] != "extra_forbidden":
        return detail["msg"].removeprefix("Value error, ")
    fields = model.model_fields
    for part in place[:-1]:
        if isinstance(part, str):
            inner = model_in(fields[part].annotation) if part in fields else None
            fields = inner.model_fields if inner else {}
    return f"there is no such key{_suggestion(place[-1], fields)}"


def _suggestion(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _application_problems(application: ServeApplicationSchema, place: Place) -> Iterator[_Problem]:
    """Check an application by what its builder accepts. Each of ours has one deployment."""
    try:
        args, name, settings = _accepted(application.import_path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        suggestion = _suggestion(application.import_path, _BUILDERS)
        yield _Problem((*place, "import_path"), f"this is not a builder: {error}{suggestion}")
        return
    yield from _violations(args, application.args, (*place, "args"))
    for index, deployment in enumerate(application.deployments):
        for key, model in _ANY_MAP.items():
            if isinstance(value := getattr(deployment, key), dict):
                yield from _violations(model, value, (*place, "deployments", index, key))
    if name is not None and [each.name for each in application.deployments] != [name]:
        yield _Problem((*place, "deployments"), f"this must be one deployment with the name {name!r}")
    elif name is not None:
        given, where = _user_config(application.deployments[0]), (*place, "deployments", 0, "user_config")
        if settings is not None:
            yield from _violations(settings, given, where)
        elif given:
            yield _Problem(where, f"{name} takes no user_config")


def _accepted(import_path: str) -> tuple[type[BaseModel], str | None, type[BaseModel] | None]:
    """Return the model of a builder's args, and for ours the name of its deployment and its user_config."""
    builder = pkgutil.resolve_name(import_path)
    parameters = list(inspect.signature(builder).parameters.values())
    if len(parameters) != 1 or (args := model_in(parameters[0].annotation)) is None:
        raise TypeError(f"{import_path} does not take one configuration")
    return args, *DEPLOYMENTS.get(builder, (None, None))


def _contradictions(config: ServeDeploySchema) -> Iterator[_Problem]:
    """Check valid applications against each other, and the gateway's against Serve's own settings."""
    given = [_accepted(each.import_path)[0].model_validate(each.args) for each in config.applications]
    encoders = {
        application.name: args
        for application, args in zip(config.applications, given, strict=True)
        if application.import_path.endswith(":build_encoder")
    }
    owners = {_endpoint(args.address): args.address for args in given if isinstance(args, MilvusLiteArgs)}
    for index, (application, args) in enumerate(zip(config.applications, given, strict=True)):
        place: Place = ("applications", index, "args")
        if application.name in encoders and getattr(args, "name", None) != application.name:
            yield _Problem((*place, "name"), f"this must be the application's name, {application.name!r}")
        if isinstance(args, GatewayArgs | RepairArgs | EnsembleArgs) and owners:
            uri = args.milvus.uri
            if _endpoint(uri) not in owners:
                addresses = ", ".join(owners.values())
                message = f"nothing listens on {uri}: the application of Milvus Lite has {addresses}"
                yield _Problem((*place, "milvus", "uri"), message)
        named: list[tuple[Place, str]] = [
            (("applications", index, "deployments", position, "user_config", key), model)
            for position, deployment in enumerate(application.deployments)
            for key in ("models", "weights")
            for model in _user_config(deployment).get(key, ())
        ]
        if isinstance(args, RepairArgs) and args.captions is not None:
            where, model = (*place, "captions", "model"), args.captions.model
            named.append((where, model))
            if model in encoders and getattr(encoders[model], "captions", None) is None:
                yield _Problem(where, f"encoder {model!r} writes no captions; its args need `captions: {{}}`")
        for where, model in named:
            if model not in encoders:
                known = ", ".join(sorted(encoders)) or "none"
                message = f"no encoder is called {model!r}{_suggestion(model, encoders)} (encoders: {known})"
                yield _Problem(where, message)
        if isinstance(args, GatewayArgs):
            yield from _gateway_problems(config, index, args)


def _endpoint(address: str) -> str:
    """Return the socket path, or host:port, of an address of Milvus Lite, which has no TLS."""
    if address.startswith("unix:"):
        return os.path.normpath(socket_path(address))
    return address.removeprefix("http://").rstrip("/").lower()


def _user_config(deployment: DeploymentSchema) -> dict[str, Any]:
    # The schema's default is a word, not a map.
    return (deployment.user_config or {}) if "user_config" in deployment.model_fields_set else {}


def _gateway_problems(config: ServeDeploySchema, index: int, args: GatewayArgs) -> Iterator[_Problem]:
    """Find what would leave the service open, or let Serve answer in place of the gateway."""
    place: Place = ("applications", index)
    host, timeout_s = config.http_options.host, config.http_options.request_timeout_s
    if not args.authentication.admin_key_sha256 and not is_loopback(host):
        message = f"an admin key is needed to listen on {host}: give its sha256, or listen on 127.0.0.1"
        yield _Problem((*place, "args", "authentication", "admin_key_sha256"), message)
    if timeout_s is not None and timeout_s <= (deadline_s := args.admission.request_deadline_s):
        message = f"this must exceed the gateway's admission.request_deadline_s, {deadline_s:g} s"
        yield _Problem(("http_options", "request_timeout_s"), message)
    allowed, needed = (
        config.applications[index].deployments[0].max_ongoing_requests,
        2 * args.admission.max_in_flight,
    )
    # Serve must accept more than the gateway works on, so that the gateway itself refuses the rest.
    if not isinstance(allowed, int) or allowed < needed:
        message = f"this must be at least {needed}, twice args.admission.max_in_flight"
        yield _Problem((*place, "deployments", 0, "max_ongoing_requests"), message)


def _written(place: Place) -> str:
    """Write a place as `applications[0].args.name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _application(place: Place, content: Any) -> str | None:
    try:
        return str(content["applications"][place[1]]["name"]) if place[0] == "applications" else None
    except (LookupError, TypeError):
        return None
