"""Models, numbers and health."""

from vitrine.call import Call, given, reader
from vitrine.calls.paths import path
from vitrine.operations import Gaps, Model, Ready, Stats, Version

_MODELS, _VERSIONS = reader(list[Model]), reader(list[Version])
_STATS, _READY, _GAPS = reader(Stats), reader(Ready), reader(Gaps)


def models() -> Call[list[Model]]:
    """List the configured models with the versions that serve."""
    return Call("GET", path("models"), _MODELS)


def versions(model: str) -> Call[list[Version]]:
    """List the versions of a model that have a collection, oldest first."""
    return Call("GET", path("models", model, "versions"), _VERSIONS)


def gaps(model: str, fingerprint: str, limit: int | None = None) -> Call[Gaps]:
    """List pictures that a version lacks, and as many that have failed with the reason."""
    return Call(
        "GET", path("models", model, "versions", fingerprint, "gaps"), _GAPS, params=given(limit=limit)
    )


def stats() -> Call[Stats]:
    """Count products, pictures, and how far each model has come."""
    return Call("GET", path("stats"), _STATS)


def ready() -> Call[Ready]:
    """Ask whether everything works; what is not ready is told, not raised."""
    return Call("GET", "/health/ready", _READY, repeatable=False, also_good=(503,))
