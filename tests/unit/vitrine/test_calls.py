"""The client's calls, options and answers are those of the service's OpenAPI document."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest

from deployments.http.app import describe
from vitrine import calls, schemas
from vitrine.calls import Options
from vitrine.schemas import Answer
from vitrine.transport import Call

DOCUMENT = describe()
FOR_OTHER_CLIENTS = {
    ("post", "/vectorize"),
    ("get", "/meta"),
    ("get", "/health/live"),
    ("get", "/.well-known/live"),
    ("get", "/.well-known/ready"),
}
PLACEHOLDERS: dict[str, Any] = {"image": b"{}", "images": [b"{}"], "texts": ["{}"]}
OTHERWISE_NAMED = {
    "Image": "ImageView", "IndexedIn": "ModelIndex", "Written": "WrittenView", "ModelUsed": "ModelUsed",
    "Hit": "ResultView", "Page": "SearchView", "ModelList": "ListView",
    "Comparison": "CompareView", "AttributeValue": "ValueView", "MissingImage": "MissingView",
    "FailedImage": "FailedView", "NewKey": "MadeView", "EmbeddingItem": "EmbeddingItem",
    "FailedItem": "FailedItem", "Usage": "Usage",
}  # fmt: skip


def builders() -> Iterator[Callable[..., Call[Any]]]:
    for function in vars(calls).values():
        own = inspect.isfunction(function) and function.__module__ == calls.__name__
        if own and not function.__name__.startswith("_"):
            yield function


def built(build: Callable[..., Call[Any]]) -> Call[Any]:
    """A call with a placeholder for each argument that it needs."""
    given = {
        name: PLACEHOLDERS.get(name, f"{{{name}}}")
        for name, each in inspect.signature(build).parameters.items()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    }
    return build(**given)


def template(path: str) -> str:
    return path.replace("%7B", "{").replace("%7D", "}")


def test_every_call_of_the_service_is_one_of_the_client() -> None:
    called = {(call.method.lower(), template(call.path)) for call in map(built, builders())}
    offered = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert called == offered - FOR_OTHER_CLIENTS


def answers() -> list[type[Answer]]:
    kinds = dict.fromkeys(
        kind for kind in vars(schemas).values() if inspect.isclass(kind) and issubclass(kind, Answer)
    )
    return [kind for kind in kinds if kind not in (Answer, schemas.Facts)]


@pytest.mark.parametrize("kind", answers(), ids=lambda kind: kind.__name__)
def test_an_answer_has_the_fields_that_the_service_sends(kind: type[Answer]) -> None:
    name = OTHERWISE_NAMED.get(kind.__name__, f"{kind.__name__}View")
    assert set(kind.model_fields) == set(DOCUMENT["components"]["schemas"][name]["properties"])


def test_a_search_takes_the_options_that_the_service_takes() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(get_type_hints(Options)) | {"query", "model"} == set(schemas["SearchBody"]["properties"])
    assert set(get_type_hints(Options)) | {"query", "models"} == set(schemas["CompareBody"]["properties"])
