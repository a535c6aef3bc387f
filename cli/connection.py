"""Commands that ask the service: where it is, who asks, and what becomes of errors."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import console
from cli.exits import Exit, exit_of
from cli.option_groups import OptionGroup, expanded

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import RenderableType

    from vitrine import Vitrine

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
        from vitrine import Vitrine

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
        from vitrine import ServiceError

        try:
            command(**values)
        except ServiceError as error:
            field = f" (field {error.param})" if error.param else ""
            typer.echo(f"{error.message}{field}", err=True)
            raise typer.Exit(exit_of(error)) from None
        except OSError as error:
            # A picture to send, or a file to write.
            typer.echo(f"{error.filename}: {error.strerror}", err=True)
            raise typer.Exit(Exit.USAGE) from None

    return guarded


def _plain(answer: Any) -> Any:
    if isinstance(answer, dict):
        return answer
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in answer]
    return answer.model_dump(mode="json")
