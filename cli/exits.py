"""Exit codes, for scripts."""

from enum import IntEnum
from typing import TYPE_CHECKING

from core.errors import ConfigError, Conflict, NotFound, Unavailable, VitrineError

if TYPE_CHECKING:
    from vitrine import ServiceError


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    TRY_LATER = 4
    REFUSED = 5
    NOT_ALLOWED = 6
    MISCONFIGURED = 7
    UNSET = 8
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "it is done, or with `--detach` submitted",
    Exit.FAILED: "the service or a job failed, or a job was cancelled",
    Exit.USAGE: "the command, or what it sends, is wrong",
    Exit.NOT_FOUND: "what it names does not exist",
    Exit.TRY_LATER: "not now: the service, a model, or a server behind a URL is away or busy",
    Exit.REFUSED: "the gate refuses the candidate, a verification finds differences that stay, or it "
    "contradicts what is stored, such as an equal job that is at work; or a backup lacks picture files",
    Exit.NOT_ALLOWED: "the API key is missing, unknown, or may not do this",
    Exit.MISCONFIGURED: "a configuration is wrong; `vitrine config check` says how",
    Exit.UNSET: "`vitrine config check` finds no mistake, but could not check all: variables that the file "
    "refers to are not set",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


def exit_of_own(error: VitrineError) -> Exit:
    """Choose the exit code of an error that was raised in this process."""
    table: dict[type[VitrineError], Exit] = {
        ConfigError: Exit.MISCONFIGURED,
        NotFound: Exit.NOT_FOUND,
        Conflict: Exit.REFUSED,
        Unavailable: Exit.TRY_LATER,
    }
    return next((code for kind, code in table.items() if isinstance(error, kind)), Exit.USAGE)


def exit_of(error: "ServiceError") -> Exit:
    """Choose the exit code of an error of the service."""
    from vitrine import Conflict, Forbidden, InvalidRequest, NotFound, TryLater, Unauthenticated

    table: list[tuple[tuple[type[ServiceError], ...], Exit]] = [
        ((InvalidRequest,), Exit.USAGE),
        ((NotFound,), Exit.NOT_FOUND),
        ((TryLater,), Exit.TRY_LATER),
        ((Conflict,), Exit.REFUSED),
        ((Unauthenticated, Forbidden), Exit.NOT_ALLOWED),
    ]
    return next((code for kinds, code in table if isinstance(error, kinds)), Exit.FAILED)
