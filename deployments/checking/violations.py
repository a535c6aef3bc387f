"""What pydantic has against a value, in words."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from core.errors import ConfigError
from deployments.checking.problem import NO_SUCH_KEY, Place, Problem, nearest
from deployments.type_words import bounds_in_words, model_in, type_in_words

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
