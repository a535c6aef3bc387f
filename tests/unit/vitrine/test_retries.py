"""Retries: calls that are sent again, their waits, and calls that are not."""

import pickle
import time
from collections.abc import Callable

import httpx
import pytest

from vitrine.client import Vitrine
from vitrine.errors import NotFound, RateLimited, ServiceError, Unavailable, Unreachable
from vitrine.transport import Retries

QUICK = Retries(count=2, first_wait_s=0.001)
EMPTY = {"products": 0, "images": 0, "models": {}, "captions": {}}


def failure(status: int, retry_after: str | None = None) -> httpx.Response:
    body = {"type": "some_type", "message": "some words", "param": "some.field", "request_id": "r1"}
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(status, json={"error": body}, headers=headers)


class Service:
    """Answers one after another; the last again and again."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(service: Service, retries: Retries = QUICK) -> Vitrine:
    return Vitrine("http://service", "key", retries=retries, transport=httpx.MockTransport(service))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failure(503), Unavailable),
        (failure(429), RateLimited),
        (httpx.ReadTimeout("slow"), Unreachable),
        (httpx.ConnectError("refused"), Unreachable),
    ],
)
def test_what_did_not_work_just_now_is_sent_again_a_bounded_number_of_times(
    answer: httpx.Response | Exception, kind: type[ServiceError]
) -> None:
    assert client(Service(answer, answer, httpx.Response(200, json=EMPTY))).stats().products == 0
    service = Service(answer)
    with pytest.raises(kind):
        client(service).stats()
    assert len(service.requests) == 1 + QUICK.count


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 422, 424, 500])
def test_what_would_fail_again_is_not_sent_again(status: int) -> None:
    service = Service(failure(status))
    with pytest.raises(ServiceError):
        client(service).stats()
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda shop: shop.jobs.submit("build", model="first"),
        lambda shop: shop.jobs.cancel("job"),
        lambda shop: shop.keys.create("shop", ["read"]),
    ],
)
def test_what_would_be_done_twice_is_not_sent_again(call: Callable[[Vitrine], object]) -> None:
    service = Service(failure(503, "0"))
    with pytest.raises(Unavailable):
        call(client(service))
    assert len(service.requests) == 1


def test_the_wait_that_the_service_asks_for_is_kept() -> None:
    service = Service(failure(429, "0.2"), httpx.Response(200, json=EMPTY))
    started = time.monotonic()
    client(service).stats()
    assert time.monotonic() - started >= 0.2


def test_nobody_waits_longer_than_they_have_patience() -> None:
    service = Service(failure(503, "60"))
    with pytest.raises(Unavailable) as caught:
        client(service, Retries(max_wait_s=1)).stats()
    assert caught.value.retry_after_s == 60
    assert len(service.requests) == 1


def test_waits_grow_and_are_not_the_same_for_all() -> None:
    unsaid = Unavailable("away")
    retries = Retries(count=9, first_wait_s=1, max_wait_s=5)
    first, third = ([retries.wait_s(unsaid, failures) or 0 for _ in range(50)] for failures in (1, 3))
    assert len(set(first)) > 1
    assert 0.75 <= min(first) <= max(first) <= 1.25
    assert 3 <= min(third) <= max(third) <= 5
    assert retries.wait_s(unsaid, 10) is None


def test_a_deletion_that_got_through_unheard_is_no_error() -> None:
    service = Service(failure(503), failure(404))
    client(service).delete_product("p")
    with pytest.raises(NotFound):
        client(Service(failure(404))).delete_product("p")


def test_an_error_carries_what_the_service_says() -> None:
    with pytest.raises(NotFound) as caught:
        client(Service(failure(404))).product("a/b?")
    error = caught.value
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "some words"
    assert (error.type, error.message, error.param, error.request_id, error.status) == (
        "some_type", "some words", "some.field", "r1", 404
    )  # fmt: skip


def test_readiness_of_a_gateway_that_is_away_is_an_error() -> None:
    with pytest.raises(Unavailable):
        client(Service(failure(503))).ready()


def test_names_cannot_leave_their_place_in_the_path() -> None:
    service = Service(failure(404))
    with pytest.raises(NotFound):
        client(service).product("a/b?c")
    assert service.requests[0].url.raw_path == b"/v1/products/a%2Fb%3Fc"


@pytest.mark.parametrize("answer", [httpx.Response(500, text="<h1>Oops"), httpx.Response(200, text="<h1>Hi")])
def test_a_page_of_something_else_is_a_service_error(answer: httpx.Response) -> None:
    with pytest.raises(ServiceError) as caught:
        client(Service(answer)).stats()
    assert caught.value.type == "unexpected_answer"


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_URL", "http://elsewhere:81/")
    monkeypatch.setenv("VITRINE_KEY", "secret")
    service = Service(httpx.Response(200, json=EMPTY))
    Vitrine(transport=httpx.MockTransport(service)).stats()
    (request,) = service.requests
    assert str(request.url) == "http://elsewhere:81/v1/stats"
    assert request.headers["Authorization"] == "Bearer secret"
    Vitrine("http://here", "other", transport=httpx.MockTransport(service)).stats()
    assert service.requests[1].headers["Authorization"] == "Bearer other"
    Vitrine(key="", transport=httpx.MockTransport(service)).stats()
    assert "Authorization" not in service.requests[2].headers


@pytest.mark.parametrize("url", ["service", "ftp://service"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Vitrine(url)
