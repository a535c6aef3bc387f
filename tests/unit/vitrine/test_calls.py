"""The client has a method for each call of the service, with the options of the call's schema."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import httpx
import pytest

import core.api_keys
import core.indexing
import core.jobs
from deployments.http.app import describe
from vitrine import query
from vitrine.async_client import AsyncVitrine
from vitrine.batches import NewProduct
from vitrine.client import Vitrine
from vitrine.schemas import operations, products, search

DOCUMENT = describe()
FOR_OTHER_CLIENTS = {
    ("post", "/vectorize"),
    ("get", "/meta"),
    ("get", "/health/live"),
    ("get", "/.well-known/live"),
    ("get", "/.well-known/ready"),
}
PLACEHOLDERS: dict[str, Any] = {
    **{"image": b"{}", "images": [b"{}"], "texts": ["{}"], "changes": {"title": "{}"}},
    **{"products": [NewProduct("{}")], "patches": [("{}", {"title": "{}"})], "product_ids": ["{}"]},
}
LOCAL = {"close"}
SENDS_SEVERAL = {"products", "errors", "follow", "wait"}


def methods(client: Vitrine | AsyncVitrine) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods of a client and of its resources."""
    for prefix, owner in (("", client), ("jobs.", client.jobs), ("keys.", client.keys)):
        for name in vars(type(owner)):
            if not name.startswith("_") and name not in LOCAL:
                yield f"{prefix}{name}", getattr(owner, name)


def parameters(method: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters of a method; what one client reads from an iterable, the other reads from an async one too."""
    listed = inspect.signature(method).parameters.values()
    return [each.replace(annotation=_iterable(each.annotation)) for each in listed]


def _iterable(annotation: Any) -> Any:
    first, *others = get_args(annotation) or (annotation,)
    is_source = [get_origin(each) for each in others] == [AsyncIterable]
    return first if is_source and get_args(others[0]) == get_args(first) else annotation


def call_with_placeholders(method: Callable[..., Any]) -> Any:
    return method(
        **{
            name: PLACEHOLDERS.get(name, f"{{{name}}}")
            for name, each in inspect.signature(method).parameters.items()
            if each.default is each.empty and each.kind is not each.VAR_KEYWORD
        }
    )


class Recorder:
    """Keeps the requests and answers none."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        raise AssertionError("recorded")

    @property
    def called(self) -> list[tuple[str, str]]:
        return [(each.method.lower(), each.url.path) for each in self.requests]


def test_every_call_of_the_service_is_one_of_the_client() -> None:
    recorder = Recorder()
    shop = Vitrine("http://service", transport=httpx.MockTransport(recorder))
    for name, method in methods(shop):
        if name.split(".")[-1] in SENDS_SEVERAL:
            continue
        with pytest.raises(AssertionError, match="recorded"):
            call_with_placeholders(method)
    offered = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert set(recorder.called) == offered - FOR_OTHER_CLIENTS


def test_the_async_client_sends_what_the_other_sends() -> None:
    one, other = Recorder(), Recorder()
    shop = Vitrine("http://service", transport=httpx.MockTransport(one))
    other_shop = AsyncVitrine("http://service", transport=httpx.MockTransport(other))

    for (name, method), (other_name, other_method) in zip(methods(shop), methods(other_shop), strict=True):
        assert other_name == name
        assert parameters(other_method) == parameters(method), name
        summary, other_summary = (str(inspect.getdoc(each)) for each in (method, other_method))
        assert summary.startswith(other_summary), name
        if name.split(".")[-1] in SENDS_SEVERAL:
            continue
        with pytest.raises(AssertionError, match="recorded"):
            call_with_placeholders(method)
        with pytest.raises(AssertionError, match="recorded"):
            asyncio.run(call_with_placeholders(other_method))
    assert one.called == other.called
    assert [each.content for each in one.requests] == [each.content for each in other.requests]


SIMILAR = DOCUMENT["paths"]["/v1/products/{product_id}/similar"]["get"]["parameters"]


@pytest.mark.parametrize("kind", [Vitrine, AsyncVitrine])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("search", set(search.SearchRequest.model_fields)),
        ("compare", set(search.CompareRequest.model_fields)),
        ("similar", {each["name"] for each in SIMILAR}),
    ],
)
def test_a_search_sends_every_option_that_the_service_takes(name: str, options: set[str], kind: Any) -> None:
    recorder = Recorder()
    method = getattr(kind("http://service", transport=httpx.MockTransport(recorder)), name)
    (subject, _) = inspect.signature(method).parameters
    declared = get_type_hints(get_args(get_type_hints(method)["options"])[0])
    values = {option: f"value of {option}" for option in (subject, *declared)}
    assert set(values) == options
    with pytest.raises(AssertionError, match="recorded"):
        asyncio.run(method(**values)) if kind is AsyncVitrine else method(**values)
    (request,) = recorder.requests
    assert {"product_id": "value of product_id", **values} == {
        "product_id": "value of product_id",
        **dict(request.url.params),
        **json.loads(request.content or "{}"),
    }


@pytest.mark.parametrize(
    "part",
    [
        query.TextPart("red"),
        query.ImagePart(b"image", box=query.Box(0, 0, 0.5, 0.5)),
        query.ImagePart("http://shop/image.png", 0.5, query.Box(0, 0, 0.5, 0.5)),
        query.ProductPart("shirt", -1),
        query.ProductImagePart("image"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_the_parts_of_a_query_are_those_of_the_schema(part: query.Part) -> None:
    (encoded,) = query.encode_query(part)
    (read,) = search.SearchRequest.model_validate({"query": [encoded]}).query
    assert read.model_dump(exclude_none=True, include=set(encoded)) == encoded


def test_a_newer_service_may_send_fields_that_the_client_does_not_know() -> None:
    sent = {"products": 1, "images": 2, "models": {}, "captions": {}, "later": {"added": 1}}
    stats = operations.StatsResponse.model_validate(sent)
    assert stats.model_dump() == {"products": 1, "images": 2, "models": {}, "captions": {}}


def test_the_states_and_scopes_are_those_of_the_service() -> None:
    assert get_args(operations.JobState) == get_args(core.jobs.JobState)
    assert get_args(operations.Scope) == get_args(core.api_keys.Scope)
    assert get_args(products.IndexState) == get_args(core.indexing.IndexState)
