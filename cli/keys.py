"""`vitrine keys`."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.connection import Service, asks

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


class Scope(StrEnum):
    """What a key may do; typer takes no list of literals."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command()
@asks
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what it is for.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="What it may do: admin holds write, write holds read."),
    ],
    requests_per_s: Annotated[float | None, typer.Option(help="Its rate limit, where it has an own.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests that it may send at once.")] = None,
    *,
    service: Service,
) -> None:
    """Make a key and print it, this once; the first must be an admin's, and closes the service to others."""
    with service.client() as client:
        made = client.keys.create(
            name, [each.value for each in scope], requests_per_s=requests_per_s, burst=burst
        )
    # The key alone, so that a script can take it as it is.
    service.show(made, lambda: made.key)


@app.command("list")
@asks
def list_keys(*, service: Service) -> None:
    """List all keys, revoked ones too; never the keys themselves."""
    from cli.tables import table

    with service.client() as client:
        keys = client.keys.list()
    rows = [
        (each.key_id, each.name, ", ".join(each.scopes), each.created_at, each.last_used_at, each.revoked_at)
        for each in keys
    ]
    service.show(keys, lambda: table(("key id", "name", "scopes", "made", "last used", "revoked"), rows))


@app.command()
@asks
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id.")], *, service: Service) -> None:
    """End a key for good."""
    with service.client() as client:
        client.keys.revoke(key_id)
    service.show({"revoked": key_id}, lambda: f"revoked {key_id}")
