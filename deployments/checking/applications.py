"""The checks of a Serve configuration's content, each relying on what the one before has made sure of."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from deployments.app import DEPLOYMENTS
from deployments.checking.environment import unset_variables, violations_of_the_rest
from deployments.checking.keys import unknown_keys
from deployments.checking.problem import Place, Problem, nearest
from deployments.checking.violations import violations
from deployments.serve_captions import caption_problems
from deployments.serve_doors import door_problems
from deployments.type_words import model_in

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
        builder: Callable[..., Any] = import_attr(name)
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
