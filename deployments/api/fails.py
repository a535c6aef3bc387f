"""What a route says of the errors that only calls like it can answer."""

from typing import Any


def fails(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare statuses of errors: the argument `responses` of a route.

    The OpenAPI document adds what follows from the rest of the route (a key, a body), and the contents.
    """
    return {status: {"description": ""} for status in statuses}
