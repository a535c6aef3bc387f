"""Reading serve_config.yaml strictly: Serve itself accepts unknown keys in silence."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from core.errors import ConfigError
from deployments.app import DEPLOYMENTS
from deployments.serve_captions import caption_problems
from deployments.serve_doors import door_problems


def read_serve_file(path: Path, host: str | None = None) -> ServeDeploySchema:
    """Read and check a Serve configuration: every key known, every value of its type, arguments too.

    References to the environment are followed, so what they name must be set. `host` takes the place of
    the file's, where it is given.

    Raises:
        ConfigError: all that is wrong, a line each, with the path of the key.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if host is not None and isinstance(content, dict):
        content["http_options"] = {**(content.get("http_options") or {}), "host": host}
    problems = list(_problems(content))
    if problems:
        raise ConfigError(f"{path}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return ServeDeploySchema.model_validate(content)


def _problems(content: Any) -> Iterator[str]:
    yield from _unknown_keys(ServeDeploySchema, content, "")
    wrong = list(_violations(ServeDeploySchema, content, ""))
    applications = _list_of(content, "applications")
    # Each check relies on the types that the one before has made sure of.
    if not wrong:
        for index, application in enumerate(applications):
            wrong += _application_problems(application, f"applications[{index}]")
    wrong = wrong or list(_disagreements(applications))
    yield from wrong or door_problems(ServeDeploySchema.model_validate(content))


def _disagreements(applications: list[dict[str, Any]]) -> Iterator[str]:
    """What each application may say alone, but not beside the others."""
    encoders = {a.get("name") for a in applications if str(a.get("import_path")).endswith(":build_encoder")}
    for index, application in enumerate(applications):
        name, own = application.get("name"), (application.get("args") or {}).get("name")
        if name in encoders and own != name:
            yield f"applications[{index}].args.name: must be {name!r}, the name of the application"
        yield from caption_problems(application, f"applications[{index}].args.captions", applications)
        for place, deployment in enumerate(_list_of(application, "deployments")):
            settings = deployment.get("user_config") or {}
            for model in [*settings.get("models", []), *settings.get("weights", {})]:
                if model not in encoders:
                    where = f"applications[{index}].deployments[{place}].user_config"
                    yield f"{where}: there is no encoder {model!r}{_suggestion(str(model), encoders)}"


def _application_problems(application: dict[str, Any], path: str) -> Iterator[str]:
    try:
        builder: Callable[..., Any] = import_attr(application.get("import_path", ""))
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{path}.import_path: {error}"
        return
    parameters = list(inspect.signature(builder).parameters.values()) if callable(builder) else []
    if len(parameters) != 1 or _model_in(parameters[0].annotation) is None:
        yield f"{path}.import_path: expected a builder, a function of one configuration"
        return
    (parameter,) = parameters
    yield from _violations(parameter.annotation, application.get("args", {}), f"{path}.args")
    if builder in DEPLOYMENTS:
        yield from _deployment_problems(application, path, *DEPLOYMENTS[builder])


def _deployment_problems(
    application: dict[str, Any], path: str, name: str, settings: type[BaseModel] | None
) -> Iterator[str]:
    """Each of our applications has one deployment, which must be configured."""
    given = _list_of(application, "deployments")
    if len(given) != 1 or given[0].get("name") != name:
        found = ", ".join(repr(deployment.get("name")) for deployment in given) or "none"
        yield f"{path}.deployments: must hold one deployment, {name!r}, and holds {found}"
        return
    user_config, where = given[0].get("user_config"), f"{path}.deployments[0].user_config"
    if settings is not None:
        yield from _violations(settings, user_config or {}, where)
    elif user_config is not None:
        yield f"{where}: {name} takes none"


def _violations(model: type[BaseModel], value: Any, path: str) -> Iterator[str]:
    try:
        model.model_validate(value)
    except ConfigError as error:
        yield f"{path}: {error.message}"
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            location = ".".join(str(part) for part in (path, *detail["loc"]) if part != "")
            yield f"{location}: {detail['msg']}"


def _unknown_keys(annotation: Any, value: Any, path: str) -> Iterator[str]:
    """Compare the keys of a nested value with the fields of the models that its type names."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for inner in typing.get_args(annotation):
                yield from _unknown_keys(inner, item, f"{path}[{index}]")
        return
    model = _model_in(annotation)
    if model is None or not isinstance(value, dict):
        return
    for key, item in value.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in model.model_fields:
            yield f"{where}: unknown key{_suggestion(str(key), model.model_fields)}"
        else:
            yield from _unknown_keys(model.model_fields[key].annotation, item, where)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)
    return None


def _list_of(value: Any, key: str) -> list[dict[str, Any]]:
    items = value.get(key) if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _suggestion(key: str, known: typing.Iterable[object]) -> str:
    close = difflib.get_close_matches(key, [str(name) for name in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
