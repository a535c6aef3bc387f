"""A comparison as it is named in a shell."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import InvalidInput


def comparison_args(
    candidate: str | None,
    changes: Mapping[str, str | None],
    ensembles: Sequence[str],
    queries: str | None,
) -> dict[str, Any]:
    """Put together what a shell names one by one.

    Raises:
        InvalidInput: an ensemble is not a JSON object, or there are changes of no candidate.
    """
    changed = {name: value for name, value in changes.items() if value is not None}
    if changed and candidate is None:
        raise InvalidInput(f"--{next(iter(changed))} is of a candidate; name its model with --candidate")
    return {
        "candidate": None if candidate is None else {"model": candidate, **changed},
        "ensembles": [_ensemble(text) for text in ensembles],
        "queries": str(Path(queries).resolve()) if queries and Path(queries).exists() else queries,
    }


def _ensemble(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput('an ensemble is a JSON object such as {"weights": {"openclip": 1, "dinov2": 0.5}}')
    return found
