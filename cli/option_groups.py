"""Options that several commands share, kept together: a parameter that stands for a group of options."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Base of dataclasses whose fields are options; all of them need a default."""


def expanded(function: Callable[..., R]) -> Callable[..., R]:
    """Put the options of a group in the place of each parameter that is annotated with one.

    Typer reads signatures, so the one of the function that is returned names each option.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_group(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        own = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += _options(groups[name]) if name in groups else [own]

    @wraps(function)
    def command(**values: Any) -> R:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        return function(**values)

    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _is_group(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, OptionGroup)


def _options(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]
        )
        for each in fields(group)
    ]
