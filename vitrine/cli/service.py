"""Options that commands share, exit codes, and errors of the service as one sentence."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from vitrine import errors
from vitrine.cli.output import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from core.errors import VitrineError
    from vitrine.client import Vitrine


class Exit(IntEnum):
    """Exit codes of commands; `vitrine --help` says what each means."""

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


def exit_of(error: "VitrineError | errors.ServiceError") -> Exit:
    """Choose the exit code of an error of this process or of the service."""
    codes: dict[Exit, type[Exception] | tuple[type[Exception], ...]]
    if isinstance(error, errors.ServiceError):
        codes = {
            Exit.NOT_FOUND: errors.NotFound,
            Exit.REFUSED: errors.Conflict,
            Exit.TRY_LATER: errors.TryLater,
            Exit.NOT_ALLOWED: (errors.Unauthenticated, errors.Forbidden),
            Exit.USAGE: errors.InvalidRequest,
        }
    else:
        from core.errors import ConfigError, Conflict, NotFound, Unavailable, VitrineError

        codes = {
            Exit.MISCONFIGURED: ConfigError,
            Exit.NOT_FOUND: NotFound,
            Exit.REFUSED: Conflict,
            Exit.TRY_LATER: Unavailable,
            Exit.USAGE: VitrineError,
        }
    return next((code for code, kinds in codes.items() if isinstance(error, kinds)), Exit.FAILED)


class OptionGroup:
    """Base of dataclasses whose fields are options of several commands; each needs a default."""


def asks(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function into a command; an error of the service becomes one sentence and an exit code.

    The fields of an `OptionGroup` become options of the command. Typer knows no such groups; it reads the
    signature, which therefore names each option.
    """
    own = _parameters(function)
    groups = {name: each.annotation for name, each in own.items() if _is_group(each.annotation)}
    parameters: dict[str, inspect.Parameter] = {}
    for name, each in own.items():
        parameters |= _parameters(groups[name]) if name in groups else {name: each}

    @wraps(function)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{each: values.pop(each) for each in _parameters(kind)})
        try:
            function(**values)
        except errors.ServiceError as error:
            field = f" (field {error.param})" if error.param else ""
            typer.echo(f"{error.message}{field}", err=True)
            raise typer.Exit(exit_of(error)) from None
        except OSError as error:
            # An image to send, or a file to write; any other, such as a closed pipe, is not the caller's.
            if error.filename is None:
                raise
            typer.echo(f"{error.filename}: {error.strerror}", err=True)
            raise typer.Exit(Exit.USAGE) from None

    command.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return command


def _is_group(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, OptionGroup)


def _parameters(source: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(source, include_extras=True)
    return {
        name: each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in inspect.signature(source).parameters.items()
    }


class JsonObject(dict[str, Any]):
    """Value of an option that holds a JSON object."""

    def __init__(self, text: str) -> None:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise typer.BadParameter('give a JSON object such as {"color": "red"}')
        super().__init__(value)


json_option = partial(typer.Option, parser=JsonObject, metavar="JSON")

# Each command imports the client and rich when it runs, which keeps help and completion fast.
service_option = partial(typer.Option, rich_help_panel="Service")


@dataclass(frozen=True, slots=True)
class Output(OptionGroup):
    """Form of what is printed."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False

    def show(self, answer: Any, drawn: "Callable[[], RenderableType]") -> None:
        """Print an answer, made of pydantic's models and dataclasses, as JSON, or as `drawn` draws it."""
        if self.as_json:
            from pydantic_core import to_json

            typer.echo(to_json(answer, indent=2).decode())
        else:
            console().print(drawn())


@dataclass(frozen=True, slots=True)
class Service(Output):
    """Address and key of the service."""

    url: Annotated[
        str | None,
        service_option(envvar="VITRINE_URL", help="Address of the service; default: http://127.0.0.1:8000."),
    ] = None
    key: Annotated[
        str | None,
        service_option(
            envvar="VITRINE_KEY",
            help="API key; better set in the environment, which others on the machine cannot see.",
        ),
    ] = None

    def client(self) -> "Vitrine":
        """Open the client, to be closed as a context manager."""
        from vitrine.client import Vitrine

        try:
            return Vitrine(self.url, self.key)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--url or --key") from None
