"""Whether the model that is to caption the catalog writes captions."""

from collections.abc import Iterator, Sequence
from typing import Any

from deployments.checking.problem import Place, Problem, nearest


def caption_problems(
    application: dict[str, Any], place: Place, applications: Sequence[dict[str, Any]]
) -> Iterator[Problem]:
    """Check the repair's `captions`, which stand at `place`, against the encoders beside it."""
    wanted = (application.get("args") or {}).get("captions")
    if wanted is None or not str(application.get("import_path")).endswith(":build_repair"):
        return
    encoders = {
        str(other.get("name")): other.get("args") or {}
        for other in applications
        if str(other.get("import_path")).endswith(":build_encoder")
    }
    model = str(wanted["model"])
    where = (*place, "model")
    if model not in encoders:
        right = f"Encoders here: {', '.join(sorted(encoders)) or 'none'}."
        yield Problem(where, f"there is no encoder {model!r}", right, nearest(model, encoders))
    elif encoders[model].get("captions") is None:
        yield Problem(
            where, f"encoder {model!r} writes no captions", "give that encoder's args `captions: {}`"
        )
