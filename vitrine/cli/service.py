"""Commands that call the service: shared options, exit codes, and what becomes of errors."""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from core.errors import ConfigError, Conflict, NotFound, Unavailable, VitrineError
from vitrine.cli.output import console

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import RenderableType

    from vitrine.client import Vitrine
    from vitrine.errors import ServiceError


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
    Exit.FAILED: "the service or a job failed, or a job was canceled",
    Exit.USAGE: "the command, or what it sends, is wrong",
    Exit.NOT_FOUND: "what it names does not exist",
    Exit.TRY_LATER: "not now: the service, a model, or a server behind a URL is away or busy",
    Exit.REFUSED: "the gate refuses the candidate, a verification finds differences that stay, or it "
    "contradicts what is stored, such as an equal job that is at work; or a backup lacks image files",
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
    from vitrine.errors import Conflict, Forbidden, InvalidRequest, NotFound, TryLater, Unauthenticated

    table: list[tuple[tuple[type[ServiceError], ...], Exit]] = [
        ((InvalidRequest,), Exit.USAGE),
        ((NotFound,), Exit.NOT_FOUND),
        ((TryLater,), Exit.TRY_LATER),
        ((Conflict,), Exit.REFUSED),
        ((Unauthenticated, Forbidden), Exit.NOT_ALLOWED),
    ]
    return next((code for kinds, code in table if isinstance(error, kinds)), Exit.FAILED)


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """Base of dataclasses whose fields are options; all of them need a default."""


def expanded(function: Callable[..., R]) -> Callable[..., R]:
    """Put the options of a group in the place of each parameter that is annotated with one.

    Typer reads signatures, so the one of the function that is returned names each option.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_group(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        own = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += _options(groups[name]) if name in groups else [own]

    @wraps(function)
    def command(**values: Any) -> R:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        return function(**values)

    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _is_group(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, OptionGroup)


def _options(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]
        )
        for each in fields(group)
    ]


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Read an option that holds a JSON object; None when it is left out.

    Raises:
        typer.BadParameter: it is none.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter('give a JSON object such as {"color": "red"}', param_hint=option)
    return value


# Each command imports the client and rich when it runs, which keeps help and completion fast.
_PANEL = "Service"


@dataclass(frozen=True, slots=True)
class Service(OptionGroup):
    """The service to ask, and how to print what it answers."""

    url: Annotated[
        str | None,
        typer.Option(
            envvar="VITRINE_URL",
            help="Address of the service; default: http://127.0.0.1:8000.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            envvar="VITRINE_KEY",
            help="API key; better set in the environment, which others on the machine cannot see.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=_PANEL)
    ] = False

    def client(self) -> "Vitrine":
        """Open the client; as a context manager it is closed afterwards."""
        from vitrine.client import Vitrine

        try:
            return Vitrine(self.url, self.key)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--url or --key") from None

    def show(
        self,
        answer: "BaseModel | Sequence[BaseModel] | dict[str, Any]",
        drawn: "Callable[[], RenderableType]",
    ) -> None:
        """Print an answer as JSON, or as it is drawn."""
        if self.as_json:
            typer.echo(json.dumps(_plain(answer), indent=2, ensure_ascii=False))
            return
        console().print(drawn())


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function; what the service refuses is one sentence and an exit code."""
    command = expanded(function)

    @wraps(command)
    def guarded(**values: Any) -> None:
        from vitrine.errors import ServiceError

        try:
            command(**values)
        except ServiceError as error:
            field = f" (field {error.param})" if error.param else ""
            typer.echo(f"{error.message}{field}", err=True)
            raise typer.Exit(exit_of(error)) from None
        except OSError as error:
            # An image to send, or a file to write.
            typer.echo(f"{error.filename}: {error.strerror}", err=True)
            raise typer.Exit(Exit.USAGE) from None

    return guarded


def _plain(answer: Any) -> Any:
    if isinstance(answer, dict):
        return answer
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    return answer.model_dump(mode="json")
