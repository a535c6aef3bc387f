"""Every error that Vitrine raises on purpose.

    VitrineError
    ├── InvalidInput              the caller sent something that can never work
    │   ├── InvalidImage          … an image that cannot be decoded
    │   ├── InputTooLarge         … bytes, pixels or counts beyond a limit
    │   ├── UnsupportedModality   … words for a model that only sees images
    │   ├── UnsupportedMediaType  … a body of a kind that the call does not take
    │   └── UnfetchableUrl        … a URL that is not fetched, or leads to nothing
    ├── Unauthenticated           no API key, or one that is not known
    ├── Forbidden                 a known caller who may not do this
    ├── RateLimited               too many requests from one caller; `retry_after_s` says when to come again
    ├── NotFound                  a product, image, model or collection that does not exist
    ├── Conflict                  the request contradicts what is stored
    ├── ConfigError               the configuration is wrong; raised before anything serves
    ├── FetchFailed               a server that the caller's URL names failed; it may work later
    ├── Internal                  a bug of Vitrine or of a model's code; the log holds its traceback
    └── Unavailable               right now not; the same call may work later
        ├── ModelUnavailable      … an encoder is away, loading or has failed to load
        ├── StoreUnavailable      … Milvus does not answer
        │   └── StoreUnknown      … one answers that is not the catalog's
        ├── DeadlineExceeded      … the work did not end within its time
        └── Overloaded            … the replica has as many requests in work as it may

The tree carries no HTTP status: `deployments/http/errors.py` holds the one table. Messages are safe to show
to a client. Errors travel between processes by pickle, so each takes one message and optional plain
attributes that pickle keeps.
"""

import logging
from collections.abc import Iterable
from copy import copy
from importlib.metadata import version
from typing import Self

from core.telemetry import current_request_id

RELEASE = version("vitrine")
_log = logging.getLogger(__name__)


class VitrineError(Exception):
    """Base of all errors; `message` says what was wrong and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.param: str | None = None

    def at(self, param: str) -> "VitrineError":
        """Name the request field that the error is about and return the error, for `raise error.at(…)`."""
        self.param = param
        return self

    def reworded(self, message: str) -> Self:
        """Return the same error, with all that it carries, under another message."""
        told = copy(self)
        told.message, told.args = message, (message,)
        return told

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message,), self.__dict__.copy())


class InvalidInput(VitrineError):
    """The caller sent something that can never work."""


class InvalidImage(InvalidInput):
    """An image that cannot be decoded."""


class InputTooLarge(InvalidInput):
    """Bytes, pixels or counts beyond a limit of the configuration."""


class UnsupportedModality(InvalidInput):
    """The model has no tower for this kind of input."""


class UnsupportedMediaType(InvalidInput):
    """A body that says it is of a kind that the call does not take."""


class UnfetchableUrl(InvalidInput):
    """A URL that is not fetched, or behind which there is nothing; `status` is what its server answered."""

    status: int | None = None


class FetchFailed(VitrineError):
    """A server that the caller's URL names failed or was too slow; the same call may work later.

    `retry_after_s` is when the server asked to come again, if it did, in seconds.
    """

    retry_after_s: float | None = None


class Unauthenticated(VitrineError):
    """The request carries no API key, or one that is not known."""


class Forbidden(VitrineError):
    """The caller is known, or need not be, and may not do this."""


class RateLimited(VitrineError):
    """One caller sends more requests than it may; `retry_after_s` seconds later one more is taken."""

    retry_after_s: float = 1.0


class NotFound(VitrineError):
    """What the request names does not exist."""


class Conflict(VitrineError):
    """The request contradicts what is stored."""


class ConfigError(VitrineError):
    """The configuration is wrong; raised before anything serves."""


class Internal(VitrineError):
    """A bug: neither the input nor an outage is to blame. `release` is the version of Vitrine that has it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.release = RELEASE


class Unavailable(VitrineError):
    """Not now: the same call may work later."""


class ModelUnavailable(Unavailable):
    """An encoder is away, still loading, or failed to load."""


class StoreUnavailable(Unavailable):
    """Milvus does not answer."""


class StoreUnknown(StoreUnavailable):
    """Milvus answers, and is not the one that holds what the ledger says."""


class DeadlineExceeded(Unavailable):
    """The work did not end within its time."""


class Overloaded(Unavailable):
    """The replica has as many requests in work as it may."""


def expected(error: Exception, doing: str) -> VitrineError:
    """Return an error of this tree as it is; log any other with its traceback and return `Internal` for it.

    `doing` says what failed, for the log and for the caller: "a search with openclip".
    """
    if isinstance(error, VitrineError):
        return error
    _log.error("%s failed, request %s", doing, current_request_id() or "none", exc_info=error)
    return Internal(
        f"{doing} failed with an internal error ({type(error).__name__}); the log holds the traceback"
    )


def most_actionable(errors: Iterable[VitrineError]) -> VitrineError:
    """Choose the error that helps a caller most: what the caller can mend, else what waiting can.

    A bug comes after these, and what no model can encode comes last.
    """

    def rank(error: VitrineError) -> int:
        if isinstance(error, UnsupportedModality):
            return 3
        if isinstance(error, Internal):
            return 2
        return 1 if isinstance(error, Unavailable) else 0

    return min(errors, key=rank)
