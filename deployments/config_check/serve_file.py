"""The check of a Serve configuration: unknown keys, wrong values, and applications that contradict each other."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from core.config import Place, expand_environment, unset_names
from core.errors import ConfigError
from deployments.app import DEPLOYMENTS
from deployments.config_check.applications import LAX, Problem, accepted, conflicts, hint, user_config
from deployments.config_check.tables import settings_of

Root = yaml.Node | None
"""A file as YAML has it; None where it is empty."""


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


class _Loader(yaml.SafeLoader):
    """Refuses a key that a map holds twice: YAML itself silently keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a map, before other maps are merged into it."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if (first := seen.setdefault(str(key.value), key)) is not key:
                twice = f"{key.value!r} is in line {first.start_mark.line + 1} too; only the last would count"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
        return node


def read_yaml(path: Path) -> tuple[Any, Root] | Mistake:
    """Read a file: its content and its nodes, or why it cannot be read."""
    try:
        # A byte that is not UTF-8 becomes a character that YAML refuses, with its position.
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        loader = _Loader(text)
        root = loader.get_single_node()
        content = None if root is None else loader.construct_document(root)
        json.dumps(content, default=str, skipkeys=True)  # Fails where an alias contains itself.
        return content, root
    except yaml.reader.ReaderError as error:
        line, reason = text.count("\n", 0, error.position) + 1, f"{error.reason}; is the file UTF-8?"
    except RecursionError:
        line, reason = None, "it is nested too deeply"
    except (OSError, ValueError, yaml.YAMLError) as error:
        mark: yaml.Mark | None = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        reason = getattr(error, "problem", None) or str(error)
    return Mistake(str(path), line, None, "", f"cannot be read as YAML: {reason}")


def _locate(node: yaml.Node | None, place: Place) -> tuple[int | None, int, yaml.Node | None]:
    """Follow a place as far as the file has it: the line of the last key, how many parts these are, the value."""
    line = None
    for depth, part in enumerate(place):
        inner: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            inner = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        elif isinstance(node, yaml.SequenceNode):
            inner = {index: (item, item) for index, item in enumerate(node.value)}
        if part not in inner:
            return line, depth, node
        key, node = inner[part]
        line = key.start_mark.line + 1
    return line, len(place), node


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


def _checked(path: Path, host: str | None = None) -> tuple[Any, list[Mistake]]:
    if isinstance(read := read_yaml(path), Mistake):
        return None, [read]
    content, root = read
    if host is not None and isinstance(content, dict):
        options = content.get("http_options") or {}
        content["http_options"] = options | {"host": host} if isinstance(options, dict) else options
    mistakes: dict[object, Mistake] = {}
    for place, message, is_unset in _problems(content, root):
        line, depth, node = _locate(root, place)
        _, parts, name = _locate(root, (*place[:2], "name"))
        application = str(name.value) if name and parts == 3 and place[0] == "applications" else None
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
        mistake = Mistake(str(path), line, application, field.removeprefix("."), message, is_unset)
        # What an anchor holds is reported once, not at each of its aliases.
        mistakes.setdefault((id(node), place[depth:], message), mistake)
    return content, sorted(mistakes.values(), key=lambda each: each.line or 0)


def _problems(content: Any, root: Root) -> Iterator[tuple[Place, str, bool]]:
    """Check the form of the file, then each application, then all together; a step needs the one before.

    The third value marks a variable that is not set. What lies around or within one cannot be checked.
    """
    # Only our builders expand variables, Serve does not.
    unset = [each for each in unset_names(content) if {"args", "user_config"}.intersection(each[0])]
    for at, name in unset:
        message = f"${{{name}}} is not set in the environment; set it, or give a fallback: ${{{name}:-…}}"
        yield at, message, True
    found = list(_violations(root, ServeDeploySchema, content, ()))
    given = expand_environment(content, dict(os.environ) | {name: "unset" for _, name in unset})
    with suppress(ValidationError):
        config = ServeDeploySchema.model_validate(given)
        for index, application in enumerate(config.applications):
            found += _application_problems(root, application, ("applications", index))
        if not found and not unset:
            found += conflicts(config)
    for place, message in found:
        if not any(place[: len(at)] == at[: len(place)] for at, _ in unset):
            yield place, message, False


def _violations(root: Root, model: type[BaseModel], value: Any, place: Place) -> Iterator[Problem]:
    """Yield pydantic's errors, each at the last part of its location that the file has.

    A location may go on with the types that were tried. That of a missing key ends with the key.
    """
    try:
        model.model_validate(value, extra="forbid")
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            at, message = (*place, *detail["loc"]), detail["msg"].removeprefix("Value error, ")
            at = at[: _locate(root, at)[1] + (detail["type"] == "missing")]
            if detail["type"] == "extra_forbidden":
                known = [key.rpartition(".")[2] for key, _ in settings_of(model)]
                message = f"there is no such key{hint(at[-1], known)}"
            yield at, message


def _application_problems(root: Root, application: ServeApplicationSchema, place: Place) -> Iterator[Problem]:
    """Check an application by what its builder accepts. Each of ours has one deployment."""
    try:
        args, name, settings = accepted(application.import_path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        known = [f"deployments.app:{builder.__name__}" for builder in DEPLOYMENTS]
        message = f"this is not a builder: {error}{hint(application.import_path, known)}"
        yield (*place, "import_path"), message
        return
    yield from _violations(root, args, application.args, (*place, "args"))
    for index, deployment in enumerate(application.deployments):
        at = (*place, "deployments", index)
        # Serve's schema accepts any map here.
        if isinstance(scaling := deployment.autoscaling_config, dict):
            yield from _violations(root, AutoscalingConfig, scaling, (*at, "autoscaling_config"))
        for key, model in LAX.items():
            where = (*at, key)
            _, depth, node = _locate(root, where)
            named = node.value if depth == len(where) and isinstance(node, yaml.MappingNode) else ()
            for unknown in {each.value for each, _ in named} - model.model_fields.keys():
                yield (*where, unknown), f"there is no such key{hint(unknown, model.model_fields)}"
        if settings is not None:
            yield from _violations(root, settings, user_config(deployment), (*at, "user_config"))
        elif name is not None and user_config(deployment):
            yield (*at, "user_config"), f"{name} takes no user_config"
    if name is not None and [each.name for each in application.deployments] != [name]:
        yield (*place, "deployments"), f"this must be one deployment with the name {name!r}"
