"""Every error that Vitrine raises on purpose.

    VitrineError
    ├── InvalidInput              the caller sent something that can never work
    │   ├── InvalidImage          … a picture that cannot be decoded
    │   ├── InputTooLarge         … bytes, pixels or counts beyond a limit
    │   └── UnsupportedModality   … words for a model that only sees pictures
    ├── NotFound                  a product, image, model or collection that does not exist
    ├── Conflict                  the request contradicts what is stored
    ├── ConfigError               the configuration is wrong; raised before anything serves
    └── Unavailable               right now not; the same call may work later
        ├── ModelUnavailable      … an encoder is away, loading or has failed to load
        ├── StoreUnavailable      … Milvus does not answer
        └── DeadlineExceeded      … the work did not end within its time

The tree carries no HTTP status: `deployments/errors.py` holds the one table. Messages are safe to show
to a client. Errors travel between processes by pickle, so each takes one message and optional plain
attributes that pickle keeps.
"""


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

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.param))


def _rebuild(kind: type[VitrineError], message: str, param: str | None) -> VitrineError:
    error = kind(message)
    error.param = param
    return error


class InvalidInput(VitrineError):
    """The caller sent something that can never work."""


class InvalidImage(InvalidInput):
    """A picture that cannot be decoded."""


class InputTooLarge(InvalidInput):
    """Bytes, pixels or counts beyond a limit of the configuration."""


class UnsupportedModality(InvalidInput):
    """The model has no tower for this kind of input."""


class NotFound(VitrineError):
    """What the request names does not exist."""


class Conflict(VitrineError):
    """The request contradicts what is stored."""


class ConfigError(VitrineError):
    """The configuration is wrong; raised before anything serves."""


class Unavailable(VitrineError):
    """Not now: the same call may work later."""


class ModelUnavailable(Unavailable):
    """An encoder is away, still loading, or failed to load."""


class StoreUnavailable(Unavailable):
    """Milvus does not answer."""


class DeadlineExceeded(Unavailable):
    """The work did not end within its time."""
