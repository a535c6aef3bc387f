"""Fetching by URL against a hostile server on loopback."""

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from catalog.fetching.connections import FetchLimits
from catalog.fetching.fetcher import Fetcher
from core.errors import FetchFailed, InputTooLarge, UnfetchableUrl, VitrineError
from tests.support.servers import HostileServer, hostile_server

pytestmark = pytest.mark.anyio
MAX_BYTES = 10_000
OPEN_LOOPBACK = ("127.0.0.1/32",)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with hostile_server() as running:
        yield running


class Names:
    """A resolver that answers from a list of answers per name, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self._answers.get(host, [])
        if not answers:
            raise OSError("no such name")
        return list(answers.pop(0) if len(answers) > 1 else answers[0])


def fetcher(server: HostileServer, names: Any = None, tls: Any = None, **limits: Any) -> Fetcher:
    settings: dict[str, Any] = {
        "allowed_networks": OPEN_LOOPBACK,
        "ports": (server.port,),
        "max_bytes": MAX_BYTES,
        "timeout_s": 60.0,
    }
    config = FetchLimits.model_validate(settings | limits)
    return Fetcher(config, names or Names(shop_test=[["127.0.0.1"]]), tls)


async def refusal(fetching: Fetcher, url: str) -> VitrineError:
    """Why a URL is not fetched; nobody waits for the deadline to learn it."""
    async with asyncio.timeout(30):
        with pytest.raises(VitrineError) as caught:
            await fetching.fetch(url)
    return caught.value


@pytest.mark.parametrize("kind", [None, "", "text/html", "image", "application/octet-stream; charset=x; ;"])
async def test_a_file_arrives_as_it_is_whatever_its_type_is_said_to_be(
    server: HostileServer, kind: str | None
) -> None:
    body = bytes(range(256)) * 20
    fields = {} if kind is None else {"Content_Type": kind}
    assert await fetcher(server).fetch(server.answer("/a?b=c", body, **fields)) == body
    assert server.requests[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: shop.test:{server.port}\r\n")
    assert "Accept-Encoding: identity" in server.requests[0]


async def test_an_answer_of_http_1_0_ends_with_its_connection(server: HostileServer) -> None:
    url = server.raw("/", b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nimage")
    assert await fetcher(server).fetch(url) == b"image"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("  http://shop.test/a%20b/été 1.png?q=ü#top\n", "/a%20b/%C3%A9t%C3%A9%201.png?q=%C3%BC"),
        ("http://bücher.test/", "/"),
        ("http://BÜCHER.test/", "/"),
        ("http://bücher.test/ü", "/u%CC%88"),
        ("http://[::1]/", "/"),
    ],
)
async def test_a_url_is_read_as_people_write_it(server: HostileServer, written: str, asked: str) -> None:
    server.answer(asked, b"image")
    names = Names(**{name: [["127.0.0.1"]] for name in ("shop_test", "xn--bcher-kva_test", "::1")})
    address = urlsplit(written)
    url = written.replace(address.netloc, f"{address.netloc}:{server.port}")
    # The host is opened by the name that an operator would write.
    open_hosts = ("shop.test", "bücher.test", "[::1]")
    guarded = fetcher(server, names, allowed_networks=(), allowed_hosts=open_hosts)
    assert await guarded.fetch(url) == b"image"
    (host,) = names.asked
    wanted = "[::1]" if host == "::1" else host
    assert f"Host: {wanted}:{server.port}\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:image/png;base64,_-8AAA==", b"\xff\xef\0\0"),
        (" DATA:;Base64, /+8A\r\nAA%3D%3D ", b"\xff\xef\0\0"),
        ("data:image/png;base64,/+8AAA", b"\xff\xef\0\0"),
        ("data:image/svg+xml,%3Csvg/%3E", b"<svg/>"),
        ("data:," + "x" * MAX_BYTES, b"x" * MAX_BYTES),
        ("data:," + "x" * (MAX_BYTES + 1), InputTooLarge),
        ("data:image/png;base64,AAAAA", UnfetchableUrl),
        ("data:image/png;base64,A!==", UnfetchableUrl),
        ("data:image/png", UnfetchableUrl),
    ],
)
async def test_a_data_uri_is_read_also_where_nothing_is_fetched(
    server: HostileServer, uri: str, data: bytes | type[VitrineError]
) -> None:
    answers = await fetcher(server, enabled=False, max_total_bytes=MAX_BYTES + 1).fetch_all([uri, uri])
    assert answers[0] == data or type(answers[0]) is data
    assert len(uri) < MAX_BYTES or isinstance(answers[1], InputTooLarge)
    assert server.connections == 0


@pytest.mark.parametrize("shift", range(3))
async def test_a_data_uri_of_nothing_but_escapes_takes_little_memory(
    server: HostileServer, shift: int
) -> None:
    uri = "data:," + "x" * shift + "%41" * 200_000
    reading = fetcher(server, max_bytes=len(uri), max_total_bytes=len(uri))
    tracemalloc.start()
    (answer,) = await reading.fetch_all([uri])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer == b"x" * shift + b"A" * 200_000
    # One that is decoded at once takes twenty times its length.
    assert peak < 12 * len(uri)


OTHER_FORMS = """
    ftp://shop.test/a file:///etc/passwd gopher://shop.test/ //shop.test:1/a // shop.test/a http:///a
    http://user:secret@shop.test/a http://user@shop.test/a http://shop.test\\@evil.test/ http://[::1
    http://shop.test:22/ http://shop.test:0/ http://shop.test:99999/ http://shop.test:x/
"""


@pytest.mark.parametrize(
    "url", [*OTHER_FORMS.split(), "http://shop.test/\x00", "http://shop.test/" + "a" * 5000, ""]
)
async def test_a_url_of_another_form_is_refused_before_any_look_up(server: HostileServer, url: str) -> None:
    names = Names(shop_test=[["127.0.0.1"]])
    assert isinstance(await refusal(fetcher(server, names), url), UnfetchableUrl)
    assert names.asked == []


LOOPBACK = """
    127.0.0.1 127.1 2130706433 017700000001 0x7f000001 0x7f.0.0.1 0177.0.0.1 0 [::] [::1]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::1%25lo] [fe80::1%25lo] localhost LOCALHOST.
"""


@pytest.mark.parametrize("host", LOOPBACK.split())
async def test_no_spelling_of_loopback_is_reached(server: HostileServer, host: str) -> None:
    server.answer("/", b"secret")
    guarded = Fetcher(FetchLimits(ports=(server.port,)))
    assert isinstance(await refusal(guarded, server.url("/", host)), UnfetchableUrl)
    assert server.connections == 0


async def test_a_name_with_one_private_address_among_public_ones_is_refused(server: HostileServer) -> None:
    names = Names(mixed_test=[["8.8.8.8", "10.0.0.1"]])
    assert isinstance(await refusal(fetcher(server, names), server.url("/", "mixed.test")), UnfetchableUrl)


async def test_nothing_tells_a_private_host_from_none_or_a_closed_port(server: HostileServer) -> None:
    names = Names(private_test=[["127.0.0.1"]], shop_test=[["127.0.0.1"]])
    guarded = fetcher(server, names, allowed_networks=())
    private = await refusal(guarded, server.url("/", "private.test"))
    missing = await refusal(guarded, server.url("/", "missing.test"))
    closed = await refusal(fetcher(server, ports=(1,)), "http://shop.test:1/")
    assert {type(error) for error in (private, missing, closed)} == {UnfetchableUrl}
    assert private.message == missing.message == closed.message
    assert "127" not in private.message


async def test_a_name_that_changes_its_address_is_looked_up_once(server: HostileServer) -> None:
    url = server.answer("/", b"image")
    # The second look-up, if there were one, would lead into the private network.
    names = Names(shop_test=[["127.0.0.1"], ["10.0.0.1"]])
    assert await fetcher(server, names).fetch(url) == b"image"
    assert names.asked == ["shop.test"]


async def test_a_name_that_turns_private_is_refused_at_the_redirect(server: HostileServer) -> None:
    url = server.redirect("/", server.url("/secret"))
    server.answer("/secret", b"secret")
    names = Names(shop_test=[["127.0.0.1"], ["127.0.0.2"]])
    assert isinstance(await refusal(fetcher(server, names), url), UnfetchableUrl)
    assert server.connections == 1


async def test_the_next_address_is_tried_when_one_does_not_answer(server: HostileServer) -> None:
    url = server.answer("/", b"image")
    names = Names(shop_test=[["127.0.0.3", "127.0.0.1"]])
    assert await fetcher(server, names, allowed_networks=("127.0.0.0/8",)).fetch(url) == b"image"


async def test_an_allowed_host_opens_that_name_only(server: HostileServer) -> None:
    names = Names(shop_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    guarded = fetcher(server, names, allowed_networks=(), allowed_hosts=("Shop.Test",))
    assert await guarded.fetch(server.answer("/", b"image")) == b"image"
    assert isinstance(await refusal(guarded, server.url("/", "other.test")), UnfetchableUrl)


async def test_redirects_are_followed(server: HostileServer) -> None:
    server.answer("/deep/b", b"image")
    for status in ("301 M", "302 F", "303 S", "307 T", "308 P"):
        assert await fetcher(server).fetch(server.redirect("/deep/a", "b", status)) == b"image"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_redirect_in_raw_characters_is_followed(server: HostileServer, encoding: str) -> None:
    server.answer("/%C3%A9t%C3%A9/robe%20rouge.png", b"image")
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
    url = server.raw("/", head + "/été/robe rouge.png".encode(encoding) + b"\r\n\r\n")
    assert await fetcher(server).fetch(url) == b"image"


async def test_cookies_of_a_redirect_are_sent_back_to_their_host_alone(server: HostileServer) -> None:
    names = Names(shop_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    url = server.answer("/a", status="302 Found", Location="/b", Set_Cookie="seen=1; Path=/")
    server.redirect("/b", server.url("/c", "other.test"))
    server.answer("/c", b"image")
    assert await fetcher(server, names).fetch(url) == b"image"
    assert ["Cookie: seen=1" in each for each in server.requests] == [False, True, False]


TARGETS = """
    http://169.254.169.254/latest/meta-data/ http://127.0.0.2/ http://[::1]/ file:///etc/passwd
    data:image/png;base64,AA== http://user:password@shop.test/ http://shop.test:22/ http://[
"""


@pytest.mark.parametrize("target", [*TARGETS.split(), ""])
async def test_a_redirect_is_checked_as_the_url_itself(server: HostileServer, target: str) -> None:
    names = Names(shop_test=[["127.0.0.1"]], **{"169_254_169_254": [["169.254.169.254"]]})
    url = server.redirect("/", target)
    guarded = fetcher(server, names, ports=(server.port, 80))
    assert isinstance(await refusal(guarded, url), UnfetchableUrl)
    assert len(server.requests) == 1


async def test_a_redirect_that_is_too_long_is_refused_and_not_cut(server: HostileServer) -> None:
    error = await refusal(fetcher(server), server.redirect("/", "/" + "a" * 5_000))
    assert error.message == "the URL redirects to one of more than 4096 characters"


async def test_a_redirect_loop_ends(server: HostileServer) -> None:
    error = await refusal(fetcher(server, max_redirects=3), server.redirect("/loop", "/loop"))
    assert error.message == "the URL redirects more than 3 times"
    assert len(server.requests) == 4


async def test_a_file_that_says_it_is_too_large_is_not_read(server: HostileServer) -> None:
    url = server.endless("/", OK + b"Content-Length: 99999999999\r\n\r\n", b"", pause_s=0.05)
    assert isinstance(await refusal(fetcher(server), url), InputTooLarge)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"\r\n", b"x" * 1000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
    ],
)
async def test_a_body_without_an_end_stops_at_the_limit(
    server: HostileServer, head: bytes, more: bytes
) -> None:
    assert isinstance(await refusal(fetcher(server), server.endless("/", OK + head, more)), InputTooLarge)


async def test_a_file_at_the_limit_arrives_and_one_byte_more_does_not(server: HostileServer) -> None:
    assert len(await fetcher(server).fetch(server.answer("/a", b"x" * MAX_BYTES))) == MAX_BYTES
    url = server.answer("/b", b"x" * (MAX_BYTES + 1))
    assert isinstance(await refusal(fetcher(server), url), InputTooLarge)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (OK + b"Content-Length: 5000\r\n\r\n", b"x"),
        (b"", b"H"),
        (OK, b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Content-Length: 5\r\n\r\n", b""),
    ],
    ids=["body", "status-line", "headers", "continue", "silence"],
)
async def test_a_slow_drip_ends_at_the_deadline(server: HostileServer, head: bytes, more: bytes) -> None:
    url = server.endless("/", head, more, pause_s=0.02)
    error = await refusal(fetcher(server, timeout_s=0.5), url)
    assert isinstance(error, FetchFailed)
    assert "0.5 s" in error.message


async def test_a_name_server_that_never_answers_ends_at_the_deadline(server: HostileServer) -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    assert isinstance(await refusal(fetcher(server, silent, timeout_s=0.3), server.url("/")), FetchFailed)


ZEROS = bytes(5_000_000)


def zipped(data: bytes) -> bytes:
    """Compress without the time of day, which would be in the names of the tests."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "result"),
    [
        ("identity", b"image", b"image"),
        ("aws-chunked", b"image", b"image"),
        ("UTF-8", b"image", b"image"),
        ("gzip", b"not compressed", b"not compressed"),
        ("gzip", zipped(b"image"), b"image"),
        ("gzip", zipped(b"im") + zipped(b"age"), b"image"),
        ("gzip", zipped(b"image") + b"junk", b"image"),
        ("aws-chunked, X-GZIP", zipped(b"image") + b"\0", b"image"),
        ("gzip, gzip", zipped(zipped(b"image")), b"image"),
        ("deflate", zlib.compress(b"image"), b"image"),
        ("deflate", zlib.compress(b"image")[2:-4], b"image"),
        ("gzip", zipped(bytes(MAX_BYTES)), bytes(MAX_BYTES)),
        ("gzip", zipped(bytes(MAX_BYTES + 1)), InputTooLarge),
        ("gzip", zipped(ZEROS), InputTooLarge),
        ("deflate", zlib.compress(ZEROS), InputTooLarge),
        ("gzip, gzip", zipped(zipped(ZEROS)), InputTooLarge),
        ("gzip", zipped(b"image")[:-1], FetchFailed),
        ("br", b"image", UnfetchableUrl),
        ("gzip, zstd", b"image", UnfetchableUrl),
    ],
)
async def test_an_answer_that_is_compressed_unasked_is_unpacked_within_the_limits(
    server: HostileServer, encoding: str, body: bytes, result: bytes | type[VitrineError]
) -> None:
    guarded = fetcher(server, max_total_bytes=2 * MAX_BYTES + 1)
    (answer,) = await guarded.fetch_all([server.answer("/", body, Content_Encoding=encoding)])
    assert answer == result or type(answer) is result


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01" + bytes(100),
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 1_000_000 + b"\r\n\r\n",
    ],
    ids=["ssh", "tls", "nothing", "cut-off", "negative", "two-lengths", "chunks", "headers", "long-header"],
)
async def test_an_answer_that_is_not_whole_http_is_refused(server: HostileServer, answer: bytes) -> None:
    assert isinstance(await refusal(fetcher(server), server.raw("/", answer)), FetchFailed)


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [(UnfetchableUrl, (204, 206, 304, 403, 404)), (FetchFailed, (408, 429, 500, 503))],
)
async def test_a_refusal_of_the_server_says_whether_to_come_again(
    server: HostileServer, kind: type[VitrineError], statuses: Sequence[int]
) -> None:
    for status in statuses:
        error = await refusal(fetcher(server), server.answer("/", status=f"{status} Reason"))
        assert type(error) is kind
        assert str(status) in error.message


async def test_each_of_several_urls_fails_alone_and_none_waits_for_another(server: HostileServer) -> None:
    all_there = asyncio.Barrier(6)

    async def late(writer: asyncio.StreamWriter) -> None:
        await all_there.wait()
        writer.write(OK + b"Content-Length: 4\r\n\r\nlate")

    urls = [server.answer("/a", b"first"), server.answer("/b", status="404 Not Found")]
    urls += [server.behave(f"/late{index}", late) for index in range(6)]
    first, missing, *rest = await fetcher(server).fetch_all(urls)
    assert first == b"first"
    assert isinstance(missing, UnfetchableUrl)
    assert rest == [b"late"] * 6


async def test_the_files_of_one_request_share_a_limit(server: HostileServer) -> None:
    urls = [server.answer(f"/{index}", b"x" * 4000) for index in range(5)]
    answers = await fetcher(server, max_total_bytes=10_000, max_parallel=1).fetch_all(urls)
    assert [len(each) if isinstance(each, bytes) else type(each) for each in answers[:3]] == [
        4000,
        4000,
        InputTooLarge,
    ]


async def test_no_url_is_fetched_where_that_is_switched_off(server: HostileServer) -> None:
    error = await refusal(fetcher(server, enabled=False), server.answer("/", b"x"))
    assert isinstance(error, UnfetchableUrl)
    assert server.connections == 0


async def test_proxies_and_credentials_of_the_environment_are_not_used(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await fetcher(server).fetch(server.answer("/", b"direct")) == b"direct"
    assert "authorization" not in server.requests[0].lower()


def contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting


async def test_a_certificate_is_checked_against_the_name_of_the_url() -> None:
    serving, trusting = contexts("shop.test")
    names = Names(shop_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    async with hostile_server(serving) as server:
        server.answer("/", b"image")
        guarded = fetcher(server, names, trusting)
        assert await guarded.fetch(server.url("/", scheme="https")) == b"image"
        wrong = await refusal(guarded, server.url("/", "other.test", "https"))
        unknown = await refusal(fetcher(server, names), server.url("/", scheme="https"))
        assert "certificate" in wrong.message
        assert "certificate" in unknown.message


async def test_a_url_without_a_scheme_is_https_and_a_redirect_never_leaves_it() -> None:
    serving, trusting = contexts("shop.test")
    async with hostile_server(serving) as secure, hostile_server() as plain:
        plain.answer("/", b"image")
        secure.answer("/a", b"image")
        secure.redirect("/", plain.url("/"))
        guarded = fetcher(secure, tls=trusting, ports=(secure.port, plain.port))
        assert await guarded.fetch(f"//shop.test:{secure.port}/a") == b"image"
        error = await refusal(guarded, secure.url("/", scheme="https"))
        assert error.message == "the URL redirects from https to http"
        assert plain.connections == 0


async def test_a_hostile_name_is_no_crash_of_the_system_resolver(server: HostileServer) -> None:
    guarded = Fetcher(FetchLimits(ports=(server.port,)))
    for host in ("a" * 300 + ".test", "a..test", ".", "-", "xn--a", "%00", "*"):
        assert isinstance(await refusal(guarded, server.url("/", host)), UnfetchableUrl)
