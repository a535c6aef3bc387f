"""Whether the model that is to caption the catalog writes captions."""

from collections.abc import Iterator, Sequence
from typing import Any


def caption_problems(
    application: dict[str, Any], path: str, applications: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """Check the repair's `captions`, which stand at `path`, against the encoders beside it."""
    wanted = (application.get("args") or {}).get("captions")
    if wanted is None or not str(application.get("import_path")).endswith(":build_repair"):
        return
    encoders = {
        str(other.get("name")): other.get("args") or {}
        for other in applications
        if str(other.get("import_path")).endswith(":build_encoder")
    }
    model = str(wanted["model"])
    if model not in encoders:
        yield f"{path}.model: there is no encoder {model!r}; encoders: {', '.join(sorted(encoders))}"
    elif encoders[model].get("captions") is None:
        yield f"{path}.model: encoder {model!r} writes no captions; give its args `captions: {{}}`"
