"""Errors that a call may raise; each is a `ServiceError`. `BY_STATUS` has the status of each."""

from dataclasses import KW_ONLY, dataclass


@dataclass(eq=False)
class ServiceError(Exception):
    """An error of the service.

    `type` is the kind of error. `param` is the field of the request that it is about. `request_id` is the id of
    the request in the service's logs. `status` is the HTTP status, 0 when there was no response.
    `retry_after_s` is the time in seconds to wait before a retry. A value that the service did not send is None.
    """

    message: str
    _: KW_ONLY
    type: str = "unreachable"
    param: str | None = None
    request_id: str | None = None
    status: int = 0
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)


class InvalidRequest(ServiceError):
    """The request can never work."""


class Unauthenticated(ServiceError):
    """The request carries no key, or one that is not known."""


class Forbidden(ServiceError):
    """The key may not do this."""


class NotFound(ServiceError):
    """The request names something that does not exist."""


class Conflict(ServiceError):
    """The request contradicts what is stored, or an equal job is at work."""


class TryLater(ServiceError):
    """The same call may work later."""


class FetchFailed(TryLater):
    """The server behind a URL that the request names failed."""


class RateLimited(TryLater):
    """More requests than the key may send."""


class Unavailable(TryLater):
    """A model or the store is away, or the time is up."""


class Unreachable(TryLater):
    """Nothing answered, or the response broke off."""


BY_STATUS: dict[int, type[ServiceError]] = {
    **{401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict},
    **dict.fromkeys((413, 415, 422), InvalidRequest),
    **{424: FetchFailed, 429: RateLimited},
    **dict.fromkeys((502, 503, 504), Unavailable),
}
"""Other statuses are a plain ServiceError. 502 and 504 come from proxies in front of the service."""
