"""Read serve_config.yaml strictly, and check its applications against each other."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from catalog.database import CatalogConfig
from core.errors import ConfigError
from deployments.app import DEPLOYMENTS
from deployments.config import DoorConfig, GatewayArgs
from deployments.config_check.validation import (
    Lines,
    Mistake,
    Place,
    Problem,
    located,
    model_in,
    nearest,
    unknown_keys,
    unset_variables,
    violations,
    violations_of_the_rest,
)
from deployments.http.auth import is_loopback


def caption_problems(
    application: dict[str, Any], place: Place, applications: Sequence[dict[str, Any]]
) -> Iterator[Problem]:
    """Check the repair's `captions`, which stand at `place`, against the encoders beside it."""
    wanted = (application.get("args") or {}).get("captions")
    if wanted is None or not str(application.get("import_path")).endswith(":build_repair"):
        return
    encoders = {
        str(other.get("name")): other.get("args") or {}
        for other in applications
        if str(other.get("import_path")).endswith(":build_encoder")
    }
    model = str(wanted["model"])
    where = (*place, "model")
    if model not in encoders:
        right = f"Encoders here: {', '.join(sorted(encoders)) or 'none'}."
        yield Problem(where, f"there is no encoder {model!r}", right, nearest(model, encoders))
    elif encoders[model].get("captions") is None:
        yield Problem(
            where, f"encoder {model!r} writes no captions", "give that encoder's args `captions: {}`"
        )


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


_BUILDERS = {f"deployments.app:{builder.__name__}" for builder in DEPLOYMENTS}


def problems(content: Any) -> Iterator[Problem]:
    """Name all that is wrong with a Serve configuration that was read from YAML."""
    yield from unknown_keys(ServeDeploySchema, content, ())
    wrong = list(violations(ServeDeploySchema, content, ()))
    applications = _list_of(content, "applications")
    if not wrong:
        for index, application in enumerate(applications):
            wrong += _application_problems(application, ("applications", index))
    if not wrong:
        wrong += _disagreements(applications)
    yield from wrong or door_problems(ServeDeploySchema.model_validate(content))


def _application_problems(application: dict[str, Any], place: Place) -> Iterator[Problem]:
    name = application.get("import_path", "")
    try:
        builder: Callable[..., Any] = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        right = f"one of {', '.join(sorted(_BUILDERS))}"
        yield Problem(
            (*place, "import_path"), f"cannot be imported: {error}", right, nearest(name, _BUILDERS)
        )
        return
    parameters = list(inspect.signature(builder).parameters.values()) if callable(builder) else []
    if len(parameters) != 1 or (model := model_in(parameters[0].annotation)) is None:
        yield Problem(
            (*place, "import_path"),
            f"{name} is no builder",
            "a function of one configuration, such as those of deployments.app",
        )
        return
    yield from _settings_problems(model, application.get("args", {}), (*place, "args"))
    if builder in DEPLOYMENTS:
        yield from _deployment_problems(application, place, *DEPLOYMENTS[builder])


def _deployment_problems(
    application: dict[str, Any], place: Place, name: str, settings: type[BaseModel] | None
) -> Iterator[Problem]:
    """Each of our applications has one deployment, which must be configured."""
    given = _list_of(application, "deployments")
    if len(given) != 1 or given[0].get("name") != name:
        found = ", ".join(repr(deployment.get("name")) for deployment in given) or "none"
        yield Problem((*place, "deployments"), f"holds {found}", f"one deployment, with the name {name!r}")
        return
    user_config, where = given[0].get("user_config"), (*place, "deployments", 0, "user_config")
    if settings is not None:
        yield from _settings_problems(settings, user_config or {}, where)
    elif user_config is not None:
        yield Problem(where, f"{name} takes none", "no `user_config`")


def _settings_problems(model: type[BaseModel], value: Any, place: Place) -> Iterator[Problem]:
    yield from unknown_keys(model, value, place)
    yield from unset_variables(value, place)
    yield from violations_of_the_rest(model, value, place)


def _disagreements(applications: list[dict[str, Any]]) -> Iterator[Problem]:
    """What each application may say alone, but not beside the others."""
    encoders = {str(a.get("name")) for a in applications if _builds_encoder(a)}
    known = f"Encoders here: {', '.join(sorted(encoders)) or 'none'}."
    for index, application in enumerate(applications):
        place: Place = ("applications", index)
        name, own = application.get("name"), (application.get("args") or {}).get("name")
        if name in encoders and own != name:
            wrong = f"is {own!r}, and the application is called {name!r}"
            yield Problem((*place, "args", "name"), wrong, f"{name!r}: both names must be the same")
        yield from caption_problems(application, (*place, "args", "captions"), applications)
        for position, deployment in enumerate(_list_of(application, "deployments")):
            settings, where = (
                deployment.get("user_config") or {},
                (*place, "deployments", position, "user_config"),
            )
            for key in ("models", "weights"):
                for model in settings.get(key, []):
                    if model not in encoders:
                        wrong = f"there is no encoder {model!r}"
                        yield Problem((*where, key), wrong, known, nearest(model, encoders))


def _builds_encoder(application: dict[str, Any]) -> bool:
    return str(application.get("import_path")).endswith(":build_encoder")


def _list_of(value: Any, key: str) -> list[dict[str, Any]]:
    items = value.get(key) if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def read_serve_file(path: Path, host: str | None = None) -> ServeDeploySchema:
    """Read and check a Serve configuration: every key known, every value of its type, arguments too.

    References to the environment are followed, so what they name must be set. `host` takes the place of
    the file's, where it is given.

    Raises:
        ConfigError: all that is wrong, each with its place and what would be right.
    """
    mistakes = check_serve_file(path, host)
    if mistakes:
        raise ConfigError("\n".join(map(str, mistakes)))
    return ServeDeploySchema.model_validate(_content(path, host))


def check_serve_file(path: Path, host: str | None = None) -> list[Mistake]:
    """Find what is wrong with a Serve configuration, in the order of its lines."""
    try:
        lines = Lines(path.read_text())
        content = _content(path, host)
    except OSError as error:
        return [located(Problem((), f"cannot be read: {error.strerror}"), path, None, None)]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        wrong = f"is no YAML: {getattr(error, 'problem', None) or error}"
        return [located(Problem((), wrong), path, None if mark is None else mark.line + 1, None)]
    found = [*lines.repeated_keys(), *problems(content)]
    mistakes: dict[tuple[object, str], Mistake] = {}
    for problem in found:
        # What an anchor holds is wrong once, wherever its aliases stand; the first to tell it says most.
        once = (lines.identity(problem.at), problem.wrong)
        mistakes.setdefault(once, located(problem, path, lines.of(problem.at), content))
    return sorted(mistakes.values(), key=lambda each: each.line or 0)


def catalog_of(path: Path) -> CatalogConfig:
    """Read where the catalog is, and nothing else, so that nothing else of the environment need be set.

    Raises:
        ConfigError: no gateway says it, or it is wrong.
    """
    try:
        applications = _content(path, None)["applications"]
        gateways = [each for each in applications if str(each["import_path"]).endswith(":build_gateway")]
        return CatalogConfig.model_validate(gateways[0]["args"]["catalog"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValidationError):
        raise ConfigError(f"{path} names no catalog: `vitrine config check {path}` says why") from None


def _content(path: Path, host: str | None) -> Any:
    content = yaml.safe_load(path.read_text())
    if host is not None and isinstance(content, dict):
        content["http_options"] = {**(content.get("http_options") or {}), "host": host}
    return content
