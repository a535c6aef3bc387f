"""Every error that Vitrine raises on purpose: one tree below `VitrineError`.

The tree carries no HTTP status: `deployments/http/errors.py` holds the one table. Messages are safe to show
to a client. Errors travel between processes by pickle, so each takes one message and optional plain
attributes that pickle keeps.
"""

import logging
import re
from collections.abc import Iterable
from copy import copy
from importlib.metadata import version
from typing import ClassVar, Self

from core.telemetry import current_request_id

RELEASE = version("vitrine")
_log = logging.getLogger(__name__)


class VitrineError(Exception):
    """Base of all errors; `message` says what was wrong and what would be right."""

    kind: ClassVar[str] = "internal"
    """Name of the error in answers, logs and metrics: its class in snake case."""

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

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
        error = copy(self)
        error.message, error.args = message, (message,)
        return error

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
    """A body whose declared media type the call does not accept."""


class UnfetchableUrl(InvalidInput):
    """A URL that must not be fetched, or that leads to nothing; `status` is what its server answered."""

    status: int | None = None


class FetchFailed(VitrineError):
    """The server of the caller's URL failed or was too slow; the same call may work later.

    `retry_after_s` is the delay that the server asked for, in seconds.
    """

    retry_after_s: float | None = None


class Unauthenticated(VitrineError):
    """The request carries no API key, or one that is not known."""


class Forbidden(VitrineError):
    """The caller lacks the permission."""


class RateLimited(VitrineError):
    """The caller exceeds its rate limit; `retry_after_s` seconds later one more request is accepted."""

    retry_after_s: float = 1.0


class NotFound(VitrineError):
    """What the request names does not exist."""


class Conflict(VitrineError):
    """The request contradicts what is stored."""


class ConfigError(VitrineError, ValueError):
    """The configuration is wrong; raised before anything serves.

    As a ValueError it becomes pydantic's ValidationError, with the field's place, when a validator raises it.
    """


class Internal(VitrineError):
    """A bug of Vitrine or of a model's code. `release` is the version of Vitrine; the log holds the traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.release = RELEASE


class Unavailable(VitrineError):
    """The service cannot do this now; the same call may work later."""


class ModelUnavailable(Unavailable):
    """An encoder is not running, is still loading, or failed to load."""


class StoreUnavailable(Unavailable):
    """Milvus does not answer."""


class StoreUnknown(StoreUnavailable):
    """Milvus answers, but does not hold what the ledger says."""


class DeadlineExceeded(Unavailable):
    """The work did not end within its deadline."""


class Overloaded(Unavailable):
    """The replica has reached its limit of requests in flight."""


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
