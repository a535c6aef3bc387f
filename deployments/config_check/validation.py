"""Problems of a configuration file: unknown keys, values that do not fit, unset variables, each with its line."""

import difflib
import enum
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from core.config import unset_names
from core.errors import ConfigError

_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    dict: "map",
    Any: "anything",
}
_BOUNDS = {"gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}
_LENGTHS = {"min_length": "no shorter than {}", "max_length": "no longer than {}", "pattern": "matching `{}`"}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the settings that a type holds, alone or as one of several types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        return next((model for part in parts if (model := model_in(part))), None)
    return None


def type_in_words(annotation: Any) -> str:
    """Name a type as one who writes YAML would."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return type_in_words(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if part is types.NoneType else type_in_words(part) for part in parts)
    if origin in (tuple, list):
        return f"list of {type_in_words(parts[0])}" if parts else "list"
    if origin is dict and parts:
        return f"map of {type_in_words(parts[0])} to {type_in_words(parts[1])}"
    if model_in(annotation) is not None:
        return "settings, below"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return _NAMES.get(origin or annotation) or str(getattr(annotation, "__name__", annotation))


def bounds_in_words(field: FieldInfo) -> Iterator[str]:
    """Say what limits a value has beyond its type."""
    for constraint in field.metadata:
        for name, words in (_BOUNDS | _LENGTHS).items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                yield words.format(bound)


NO_SUCH_KEY = "there is no such key"
Place = tuple[str | int, ...]
"""The keys and positions that lead to a value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake at a place; `nearest` is the known name that comes closest to an unknown one.

    `unset` marks no mistake of the file: a variable of the environment that it needs is not set here.
    """

    at: Place
    wrong: str
    right: str = ""
    nearest: str | None = None
    unset: bool = False


@dataclass(frozen=True, slots=True)
class Mistake:
    """A problem as it is told: with the file, the line, and the application that it concerns."""

    file: str
    line: int | None
    application: str | None
    field: str
    wrong: str
    right: str
    nearest: str | None
    unset: bool

    def __str__(self) -> str:
        """Three lines: where, what is wrong, and what would be right."""
        whose = f"application {self.application}, " if self.application else ""
        line = "" if self.line is None else f":{self.line}"
        suggestion = f"did you mean {self.nearest!r}?" if self.nearest else ""
        right = " ".join(part for part in (suggestion, self.right) if part)
        told = [f"{self.file}{line}: {whose}{self.field or 'the whole file'}", f"    wrong: {self.wrong}"]
        return "\n".join(told + ([f"    right: {right}"] if right else []))

    def told(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def located(problem: Problem, file: Path, line: int | None, content: Any) -> Mistake:
    """Say where in a file a problem is."""
    return Mistake(
        file=str(file),
        line=line,
        application=_application(problem.at, content),
        field=written(problem.at),
        wrong=problem.wrong,
        right=problem.right,
        nearest=problem.nearest,
        unset=problem.unset,
    )


def written(place: Place) -> str:
    """Write a place as `applications[0].args.name`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: object, known: Iterable[object]) -> str | None:
    """Find the known name that looks most like this one, if any does."""
    close = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return close[0] if close else None


def _application(place: Place, content: Any) -> str | None:
    if len(place) < 2 or place[0] != "applications":
        return None
    try:
        return str(content["applications"][place[1]]["name"])
    except (LookupError, TypeError):
        return None


class Lines:
    """The lines of a YAML document, counted from 1.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def of(self, place: Place) -> int | None:
        """Find the line of a value's key, or of the nearest thing around it that is there."""
        return self._nearest(place)[0]

    def identity(self, place: Place) -> tuple[int, Place]:
        """Name what stands there: the same for an anchor and for its aliases."""
        _, node, beyond = self._nearest(place)
        return id(node), beyond

    def _nearest(self, place: Place) -> tuple[int | None, yaml.Node | None, Place]:
        node, line = self._root, None
        for depth, part in enumerate(place):
            found = _child(node, part)
            if found is None:
                return line, node, place[depth:]
            line, node = found
        return line, node, ()

    def repeated_keys(self) -> Iterator[Problem]:
        """Name the keys that a mapping holds twice: YAML readers keep the last and say nothing."""
        yield from _repeated(self._root, (), set())


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == str(part):
                return key.start_mark.line + 1, value
    return None


def _repeated(node: yaml.Node | None, place: Place, seen: set[int]) -> Iterator[Problem]:
    # An anchor's node stands at every alias.
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*place, index), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                wrong = (
                    f"stands here twice, in lines {lines[key.value]} and {line}; only the last would count"
                )
                yield Problem((*place, key.value), wrong, "one of the two")
            lines[key.value] = line
            yield from _repeated(value, (*place, key.value), seen)


_LONGEST = 60
_SECRET = ("url", "uri", "token", "key", "password")
_OWN_WORDS = ("value_error", "assertion_error")
_KINDS: dict[type, str] = {
    bool: "`true` or `false`",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a map",
    type(None): "nothing",
}


def violations(model: type[BaseModel], value: Any, place: Place) -> Iterator[Problem]:
    """Hold a value against the model of its settings."""
    try:
        model.model_validate(value)
    except ConfigError as error:
        yield from _within(model, value, place) or [Problem(place, error.message)]
    except ValidationError as error:
        told: set[Place] = set()
        for detail in error.errors(include_url=False):
            inner = _inner(detail["loc"], value, detail["type"])
            # A value that fits none of several types is refused once for each.
            if inner not in told:
                told.add(inner)
                yield _problem(detail, _field(model, inner), (*place, *inner))


def _within(model: type[BaseModel], value: Any, place: Place) -> list[Problem]:
    """The same for the settings within, to come as close as possible to what was wrong."""
    return [
        problem
        for key, item in (value.items() if isinstance(value, dict) else ())
        if key in model.model_fields and (inner := model_in(model.model_fields[key].annotation)) is not None
        for problem in violations(inner, item, (*place, key))
    ]


def _problem(detail: ErrorDetails, field: FieldInfo | None, place: Place) -> Problem:
    right = ("" if place else "a map of settings") if field is None else expected(field)
    if detail["type"] == "missing":
        return Problem(place, "is needed, and is not there", right)
    if detail["type"] == "extra_forbidden":
        return Problem(place, NO_SUCH_KEY)
    if detail["type"] in _OWN_WORDS:
        return Problem(place, str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"], right)
    given, key = detail["input"], str(place[-1]) if place else ""
    suggestion = nearest(given, _choices(field.annotation)) if field and isinstance(given, str) else None
    return Problem(place, f"is {_shown(given, key)}", right or detail["msg"], suggestion)


def expected(field: FieldInfo) -> str:
    """Say what a setting takes, and what it is for."""
    kind = ", ".join(
        [type_in_words(field.annotation).replace("settings, below", "a map"), *bounds_in_words(field)]
    )
    purpose = (field.description or "").split("\n")[0].split(". ")[0].rstrip(".")
    return f"{kind} ({purpose})" if purpose else kind


def _inner(location: Sequence[str | int], value: Any, kind: str) -> Place:
    """The part of pydantic's location that is in the value: it also names the types that were tried."""
    place: list[str | int] = []
    for position, part in enumerate(location):
        if _holds(value, part):
            value = value[part]
        elif not (kind == "missing" and position == len(location) - 1):
            continue
        place.append(part)
    return tuple(place)


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _field(model: type[BaseModel], place: Place) -> FieldInfo | None:
    field: FieldInfo | None = None
    current: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, int):
            inner = get_args(field.annotation) if field is not None else ()
            current = model_in(inner[0]) if inner else None
            field = None
        else:
            field = current.model_fields.get(part) if current is not None else None
            current = model_in(field.annotation) if field is not None else None
    return field


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _shown(value: Any, key: str) -> str:
    kind = _KINDS.get(type(value), type(value).__name__)
    if value is None or isinstance(value, dict):
        return kind
    # What may be a secret stays out of terminals and logs.
    if any(word in key.lower() for word in _SECRET):
        return f"{kind} that does not fit"
    text = repr(value)
    return f"{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}, {kind}"


def unknown_keys(annotation: Any, value: Any, place: Place) -> Iterator[Problem]:
    """Compare the keys of a nested value with the fields of the models that its type names."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for inner in typing.get_args(annotation):
                yield from unknown_keys(inner, item, (*place, index))
        return
    model = model_in(annotation)
    if model is None or not isinstance(value, dict):
        return
    known = sorted(model.model_fields)
    for key, item in value.items():
        if key not in model.model_fields:
            right = f"Keys here: {', '.join(known)}."
            yield Problem((*place, key), NO_SUCH_KEY, right, nearest(key, known))
        else:
            yield from unknown_keys(model.model_fields[key].annotation, item, (*place, key))


def unset_variables(value: Any, place: Place) -> Iterator[Problem]:
    """Name each variable that is not set, where it is referred to."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from unset_variables(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unset_variables(item, (*place, index))
    else:
        for name in unset_names(value):
            right = f"Set {name} for the check, or give a fallback: ${{{name}:-…}}."
            yield Problem(
                place, f"refers to ${{{name}}}, which is not set in the environment", right, unset=True
            )


def violations_of_the_rest(model: type[BaseModel], value: Any, place: Place) -> Iterator[Problem]:
    """Check those settings within that refer to nothing that is not set."""
    if not any(unset_variables(value, place)):
        yield from violations(model, value, place)
    elif isinstance(value, dict):
        for key, item in value.items():
            field = model.model_fields.get(key)
            inner = None if field is None else model_in(field.annotation)
            if inner is not None:
                yield from violations_of_the_rest(inner, item, (*place, key))
