"""`vitrine embed` and `vitrine caption`: what a model makes of inputs, without any product."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.asking import is_picture
from cli.connection import Service, asks
from cli.exits import Exit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vitrine.batches import Embeddings

PICTURES_A_CALL = 16
TEXTS_A_CALL = 256
_SHOWN_NUMBERS = 4


@asks
def embed(
    model: Annotated[str, typer.Argument(help="An encoder.")],
    inputs: Annotated[list[str], typer.Argument(help="Words, picture files, or URLs of pictures.")],
    *,
    service: Service,
) -> None:
    """Make unit vectors of words and pictures; exit code 2 where one cannot be embedded."""
    pictures = [each for each in dict.fromkeys(inputs) if is_picture(each)]
    texts = [each for each in dict.fromkeys(inputs) if each not in pictures]
    with service.client() as client:
        told = dict(_embedded(client.embed_texts, model, texts, TEXTS_A_CALL))
        told |= _embedded(client.embed_pictures, model, pictures, PICTURES_A_CALL)
    answers = [{"input": each, **told[each]} for each in inputs]
    service.show({"embeddings": answers}, lambda: _drawn(answers))
    if any("error" in each for each in answers):
        raise typer.Exit(Exit.USAGE)


@asks
def caption(
    pictures: Annotated[list[str], typer.Argument(help="Picture files, or URLs of pictures.")],
    model: Annotated[str | None, typer.Option(help="An encoder; default: the first that can.")] = None,
    *,
    service: Service,
) -> None:
    """Say in words what pictures show, where an encoder writes captions."""
    from cli.tables import table

    with service.client() as client:
        captions = [client.caption(each, model=model) for each in pictures]
    rows = [(name, each.model, each.caption) for name, each in zip(pictures, captions, strict=True)]
    service.show(captions, lambda: table(("picture", "model", "caption"), rows))


def _embedded(
    send: Callable[[str, Sequence[str]], "Embeddings"], model: str, inputs: Sequence[str], size: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    from core.portions import batched_by_bytes, parts

    for some in (batch for part in parts(inputs, size) for batch in batched_by_bytes(part, _file_bytes)):
        answer = send(model, some)
        for name, item in zip(some, answer.data, strict=True):
            facts = item.model_dump(include={"embedding", "error"}, exclude_none=True)
            yield name, {"model": answer.model, "fingerprint": answer.fingerprint, **facts}


def _file_bytes(name: str) -> int:
    """Bytes of an image file; 0 for words and URLs, and for a file that cannot be read, as reading it will say."""
    try:
        return Path(name).stat().st_size
    except (OSError, ValueError):
        return 0


def _drawn(answers: Sequence[dict[str, Any]]) -> "RenderableType":
    from cli.tables import table

    rows = [(each["input"], len(each.get("embedding", ())) or None, _begins_with(each)) for each in answers]
    return table(("input", "dimension", "begins with"), rows)


def _begins_with(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"]["message"])
    return " ".join(f"{number:+.3f}" for number in answer["embedding"][:_SHOWN_NUMBERS])
