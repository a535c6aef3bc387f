"""Keys that nothing knows: Serve accepts them in silence."""

import typing
from collections.abc import Iterator
from typing import Any

from deployments.checking.problem import NO_SUCH_KEY, Place, Problem, nearest
from deployments.type_words import model_in


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
