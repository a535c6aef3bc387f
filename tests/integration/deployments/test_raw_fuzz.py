"""Requests that no client should send: raw bytes, odd headers, odd paths, over a real connection."""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.documented_service import served_service

Url = tuple[str, dict[str, str]]
"""Where the service is, and the headers that let in."""

BODIES = [
    ("PUT", "/v1/products/p"),
    ("POST", "/v1/search"),
    ("POST", "/v1/compare"),
    ("POST", "/v1/embed/openclip"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/caption"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/keys"),
    ("POST", "/vectorize"),
]
FORMS = {"/v1/products/p": "metadata", "/v1/search": "request", "/v1/caption": "model"}
fuzzed = settings(max_examples=60, suppress_health_check=list(HealthCheck))
odd_text = st.text(max_size=20) | st.sampled_from(["", " ", "\t\n", "\0", "a\0b", "\U0001f600", "__proto__"])
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_text | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_text, inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "query model models weights fusion keyword_weight score_threshold max_false_match_rate limit offset filter "
    "exclude include_query_products title description attributes images input encoding_format dimensions user "
    "modality fail texts text image image_url kind args name requests_per_s burst"
)
bodies = st.dictionaries(st.sampled_from(FIELDS.split()) | odd_text, odd_json, max_size=4)
paths = st.lists(
    st.sampled_from(
        ["v1", "products", "images", "models", "jobs", "keys", "similar", "logs", "versions", ".."]
    )
    | st.binary(max_size=6).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
    | st.sampled_from(["%", "%zz", "%2f", "%00", "a" * 300, "é", ";", "'", "*", ""]),
    max_size=5,
).map(lambda parts: "/" + "/".join(parts))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Url]:
    with served_service(tmp_path_factory.mktemp("raw")) as running:
        yield running


class RawConnection(http.client.HTTPConnection):
    """Sends paths as they are, in UTF-8."""

    def _encode_request(self, request: str) -> bytes:
        return request.encode()


def send(
    url: Url, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = RawConnection(urlsplit(url[0]).netloc, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (url[1] | (headers or {})).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def check(answered: tuple[int, dict[str, str], bytes]) -> None:
    """Refused in the one shape, or taken; never a failure of ours."""
    status, headers, content = answered
    # Before anything is indexed a search is asked to come again.
    assert status < 500 or status == 503, content
    # What is no HTTP at all never reaches the application.
    if status >= 400 and content != b"Invalid HTTP request received.":
        error = json.loads(content)["error"]
        assert isinstance(error, str) or error["message"]
        assert headers["x-request-id"]


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_bytes_that_mean_nothing_are_refused(url: Url, method: str, path: str) -> None:
    @fuzzed
    @given(
        body=st.binary(max_size=200),
        kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x"]),
    )
    def fuzz(body: bytes, kind: str) -> None:
        check(send(url, method, path, body, {"Content-Type": kind}))

    fuzz()


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_json_of_any_kind_is_taken_or_refused(url: Url, method: str, path: str) -> None:
    @fuzzed
    @given(body=bodies)
    def fuzz(body: dict[str, Any]) -> None:
        check(send(url, method, path, json.dumps(body).encode(), {"Content-Type": "application/json"}))

    fuzz()


@pytest.mark.parametrize("path", FORMS)
def test_forms_of_any_kind_are_taken_or_refused(url: Url, path: str) -> None:
    names = st.sampled_from([FORMS[path], "images", "image", "other", "é"])

    @fuzzed
    @given(
        parts=st.lists(st.tuples(names, st.booleans(), st.binary(max_size=30)), max_size=4),
        charset=st.sampled_from(
            ["", "; charset=utf-16", "; charset=undefined", "; charset=idna", "; charset=x"]
        ),
    )
    def fuzz(parts: list[tuple[str, bool, bytes]], charset: str) -> None:
        body = b"".join(
            b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
            % (name.encode(), b'; filename="a"' if is_file else b"", content)
            for name, is_file, content in parts
        )
        method = "PUT" if "products" in path else "POST"
        kind = {"Content-Type": f"multipart/form-data; boundary=x{charset}"}
        check(send(url, method, path, body + b"--x--\r\n", kind))

    fuzz()


def test_paths_of_any_kind_are_known_or_not(url: Url) -> None:
    @fuzzed
    @given(
        path=paths,
        method=st.sampled_from(["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH", "TRACE"]),
    )
    def fuzz(path: str, method: str) -> None:
        answered = send(url, method, path)
        if method != "HEAD":
            check(answered)
        assert answered[0] < 500

    fuzz()


QUERIES = [
    "limit=1e9",
    "limit=" + "9" * 400,
    "limit=-1",
    "limit=",
    "limit=NaN",
    "after=%00",
    "after=%ff",
    "x=1",
    "limit=1&limit=2",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", ["/v1/products", "/v1/jobs", "/v1/products/p/similar", "/v1/keys"])
def test_odd_query_parameters_get_the_reason(url: Url, path: str, query: str) -> None:
    check(send(url, "GET", f"{path}?{query}"))


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_body_of_another_kind_gets_those_that_are_taken(url: Url, method: str, path: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "json", "é"):
        status, _, content = send(url, method, path, b"{}", {"Content-Type": kind})
        assert status == 415
        assert b"application/json" in content
    assert send(url, method, path, b"{", {})[0] == 422


def test_text_in_a_form_that_is_not_utf_8_is_refused(url: Url) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"title": "Caf\xe9"}\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, _, content = send(url, "PUT", "/v1/products/p", body, kind)
    assert (status, json.loads(content)["error"]["param"]) == (422, "metadata")
    assert send(url, "PUT", "/v1/products/p", body.replace(b"\xe9", "é".encode()), kind)[0] in (200, 201)
    stored = json.loads(send(url, "GET", "/v1/products/p")[2])
    assert stored["title"] == "Café"


@pytest.mark.parametrize("words", ["", " ", "\n\t", "\0", "a\0"])
def test_words_that_say_nothing_are_refused(url: Url, words: str) -> None:
    for body in ({"query": words}, {"query": [{"type": "text", "text": words}]}):
        assert send(url, "POST", "/v1/search", json.dumps(body).encode())[0] == 422
    assert send(url, "POST", "/v1/embeddings", json.dumps({"input": words}).encode())[0] == 422


def test_too_many_files_are_too_large_in_a_form_as_in_json(url: Url) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    many = json.dumps({"images": ["eA=="] * 51}).encode()
    assert send(url, "PUT", "/v1/products/p", part * 51 + b"--x--\r\n", kind)[0] == 413
    assert send(url, "PUT", "/v1/products/p", many)[0] == 413
