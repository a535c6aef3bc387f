"""Methods that are made of functions, as `help` and editors show them."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

M = TypeVar("M", bound=Callable[..., Any])


def method_of(build: Callable[..., Any], method: M) -> M:
    """Give a method the name, the text and the arguments of the function that builds its call."""
    taken = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answers = get_args(get_type_hints(build)["return"])[0]
    shown = taken.replace(parameters=[own, *taken.parameters.values()], return_annotation=answers)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method
