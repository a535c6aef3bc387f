"""Settings that refer to variables of the environment which are not set here."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from core.config import unset_names
from deployments.checking.problem import Place, Problem
from deployments.checking.violations import violations
from deployments.type_words import model_in


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
