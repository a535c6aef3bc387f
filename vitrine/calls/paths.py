"""Paths of the API."""

from urllib.parse import quote


def path(*parts: str) -> str:
    """Join parts to a path below /v1; what callers name is escaped."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])
