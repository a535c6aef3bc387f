"""Keys, scopes, rates, deadlines and admission, over the whole application in this process."""

import asyncio
import base64
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from ray.serve._private.client import ServeControllerClient
from ray.serve.config import HTTPOptions
from sqlalchemy import event, text

from catalog.database import BUSY_TIMEOUT_S
from catalog.opening import Catalog
from core.api_keys import NO_KEYS_NOTICE, ApiKey, digest, key_id_of
from core.errors import ConfigError, Unauthenticated, Unavailable
from core.types import Encoded, EncoderInput
from deployments.config import AdmissionConfig, GatewayArgs
from deployments.http.errors import GATEWAY_HEADER
from deployments.http.middleware import FIRST_SEARCHES
from deployments.replicas import gateway
from deployments.replicas.gateway import GatewayReplica
from tests.support.catalog_fixtures import new_catalog, sqlite_in
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

pytestmark = pytest.mark.anyio
ADMIN_KEY = "a key of the configuration"
HEALTH = ("/health/", "/.well-known/")


class SlowEncoder(LocalEncoder):
    """Answer when `go_on` is set, and count calls and cancellations."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.go_on = asyncio.Event()
        self.asked = 0
        self.canceled = 0

    async def is_asked(self, times: int) -> None:
        """Wait until so many ask."""
        while self.asked < times:
            await asyncio.sleep(0.01)

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        self.asked += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        return await super().encode(inputs)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = new_catalog(tmp_path)
    yield opened
    opened.close()


Build = Callable[..., FastAPI]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Build the application over the catalog, with settings of authentication and admission by their names."""
    with ExitStack() as opened:

        def built(
            encoder: LocalEncoder | None = None, exposed_at: str | None = None, **settings: Any
        ) -> FastAPI:
            groups = {"authentication": {"keys_ttl_s": 0.0}, "admission": dict[str, Any]()}
            for name, value in settings.items():
                groups["admission" if name in AdmissionConfig.model_fields else "authentication"][name] = (
                    value
                )
            local = encoder or LocalEncoder("fake")
            service = local_service(tmp_path, {local.name: local}, exposed_at=exposed_at, **groups)
            return opened.enter_context(service)

        yield built


def gateway_args(folder: Path, **settings: Any) -> GatewayArgs:
    milvus = {"uri": "http://127.0.0.1:1"}
    return GatewayArgs.model_validate({"catalog": sqlite_in(folder), "milvus": milvus, **settings})


@asynccontextmanager
async def client_of(
    app: FastAPI, key: str | None = None, peer: str = "127.0.0.1", host: str = "localhost"
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 5000))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers) as client:
        yield client


@pytest.fixture
def closed(build: Build) -> FastAPI:
    return build(admin_key_sha256=digest(ADMIN_KEY))


async def make_key(app: FastAPI, *scopes: str, **limits: Any) -> str:
    async with client_of(app, ADMIN_KEY) as admin:
        made = await admin.post("/v1/keys", json={"name": "test", "scopes": list(scopes), **limits})
        assert made.status_code == 201, made.text
        key: str = made.json()["key"]
        return key


def routes(app: Any) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in sorted(route.methods))
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router)


async def test_every_route_but_health_checks_and_pages_needs_a_key_and_a_scope(closed: FastAPI) -> None:
    guarded = [
        (method, path)
        for method, path in routes(closed)
        if not path.startswith((*HEALTH, "/web/")) and path not in ("/", "/operations", "/v1/openapi.json")
    ]
    assert ("POST", "/v1/search") in guarded
    assert len(guarded) > 10
    paths = closed.openapi()["paths"]
    for method, path in guarded:
        async with client_of(closed) as stranger:
            answer = await stranger.request(method, path)
        assert answer.status_code == 401, f"{method} {path}: {answer.text}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["type"] == "unauthenticated"
        (security, _) = paths[path][method.lower()]["security"]
        assert security["ApiKey"], f"{method} {path} demands no scope"


async def test_health_checks_and_the_description_need_no_key(closed: FastAPI) -> None:
    async with client_of(closed, peer="10.1.2.3", host="vitrine.example") as probe:
        for path in ("/health/live", "/v1/openapi.json"):
            assert (await probe.get(path)).status_code == 200


async def test_a_route_allows_its_scope_and_those_above(closed: FastAPI) -> None:
    calls = {
        "read": ("GET", "/v1/products"),
        "write": ("DELETE", "/v1/products/none"),
        "admin": ("GET", "/v1/keys"),
    }
    allowed = {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}
    for scope, expected in allowed.items():
        async with client_of(closed, await make_key(closed, scope)) as client:
            answers = {needed: await client.request(*call) for needed, call in calls.items()}
        assert [needed for needed, answer in answers.items() if answer.status_code != 403] == expected
        for needed, answer in answers.items():
            if needed not in expected:
                assert answer.json()["error"]["type"] == "forbidden"
                assert f"scope {needed}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/products/p"), ("POST", "/v1/keys")])
async def test_the_body_of_a_call_that_the_key_does_not_allow_is_not_read(
    closed: FastAPI, method: str, path: str
) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{")
        yield b"{"

    async with client_of(closed, await make_key(closed, "read")) as client:
        answer = await client.request(method, path, content=body())
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "forbidden")
    assert not read


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_is_taken_from_either_header(closed: FastAPI, header: str) -> None:
    key = await make_key(closed, "read")
    async with client_of(closed) as client:
        for value, status in ((key, 200), (key[:-1] + "x", 401), ("", 401)):
            sent = f"Bearer {value}" if header == "Authorization" else value
            assert (await client.get("/v1/products", headers={header: sent})).status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/products", 200),
        ("/v1/products/none", 404),
        ("/v1/keys", 403),
        ("/v1/nowhere", 404),
        ("/health/live", 200),
        ("/v1/openapi.json", 200),
    ],
)
async def test_no_cache_keeps_what_a_key_opens_or_how_the_service_is(
    closed: FastAPI, path: str, status: int
) -> None:
    # Shared caches know Authorization, and nothing of this header.
    async with client_of(closed) as client:
        answer = await client.get(path, headers={"X-API-Key": await make_key(closed, "read")})
        assert (answer.status_code, answer.headers.get("cache-control")) == (status, "no-store")
        assert (await client.get("/v1/products")).headers["cache-control"] == "no-store"


async def test_a_key_in_a_url_is_the_password_of_basic(closed: FastAPI) -> None:
    key = await make_key(closed, "read")
    async with client_of(closed) as client:
        for password, status in ((key, 200), (f"{key}:", 401), ("", 401)):
            url = f"http://weaviate:{password}@localhost/meta"
            assert (await client.get(url)).status_code == status
        for value in ("Basic", "Basic %%%", "Basic /w==", "Basic Og=="):
            answer = await client.get("/meta", headers={"Authorization": value})
            assert answer.status_code == 401
            # Only a challenge for Basic makes a browser ask for a password, and keep it.
            assert "basic" not in answer.headers["www-authenticate"].lower()


async def test_keys_are_made_listed_and_revoked_and_never_shown_again(closed: FastAPI) -> None:
    key = await make_key(closed, "read")
    async with client_of(closed, key) as client, client_of(closed, ADMIN_KEY) as admin:
        assert (await client.get("/v1/products")).status_code == 200
        listed = await admin.get("/v1/keys")
        assert key not in listed.text
        assert digest(key) not in listed.text
        (entry,) = listed.json()
        assert (entry["name"], entry["scopes"], entry["revoked_at"]) == ("test", ["read"], None)
        assert (await admin.delete(f"/v1/keys/{entry['key_id']}")).status_code == 204
        assert (await client.get("/v1/products")).status_code == 401
        assert (await admin.get("/v1/keys")).json()[0]["revoked_at"] is not None
        assert (await admin.delete("/v1/keys/unknown")).status_code == 404


async def test_a_key_that_another_replica_made_counts_here(build: Build, closed: FastAPI) -> None:
    other = build(admin_key_sha256=digest(ADMIN_KEY), keys_ttl_s=0.05)
    async with client_of(other, ADMIN_KEY) as admin:
        assert (await admin.get("/v1/products")).status_code == 200
    async with client_of(other, await make_key(closed, "read")) as client:
        while (answer := await client.get("/v1/products")).status_code == 401:
            await asyncio.sleep(0.01)
        assert answer.status_code == 200


async def test_a_key_that_is_revoked_while_keys_are_read_ends_at_once(
    build: Build, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(admin_key_sha256=digest(ADMIN_KEY), keys_ttl_s=60)
    key, api_keys = await make_key(app, "read"), app.state.services.api_keys
    was_read, go_on = threading.Event(), threading.Event()
    read_all = catalog.api_keys.all

    def read_slowly(_: object) -> list[ApiKey]:
        found = read_all()
        was_read.set()
        go_on.wait()
        return found

    monkeypatch.setattr(type(catalog.api_keys), "all", read_slowly)
    early = asyncio.create_task(api_keys.authenticate(key))
    await asyncio.to_thread(was_read.wait)
    await api_keys.revoke(key_id_of(key))
    go_on.set()
    await early
    with pytest.raises(Unauthenticated):
        await api_keys.authenticate(key)


async def test_requests_are_answered_while_another_process_writes(
    build: Build, catalog: Catalog, tmp_path: Path
) -> None:
    app = build(admin_key_sha256=digest(ADMIN_KEY))
    keys = [await make_key(app, "read") for _ in range(3)]
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        for key in keys * 5:
            async with client_of(app, key) as client:
                assert (await client.get("/v1/products")).status_code == 200
        assert time.monotonic() - begun < BUSY_TIMEOUT_S
        assert [each.last_used_at for each in catalog.api_keys.all()] == [None] * 3
        other.execute("ROLLBACK")
    while any(each.last_used_at is None for each in catalog.api_keys.all()):
        await asyncio.sleep(0.01)


async def test_a_last_use_is_written_once_in_a_while_and_may_fail(
    build: Build, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(admin_key_sha256=digest(ADMIN_KEY))
    written: list[list[str]] = []

    def fail(_: object, times: dict[str, Any]) -> None:
        written.append(sorted(times))
        raise Unavailable("no disk")

    monkeypatch.setattr(type(catalog.api_keys), "used", fail)
    for number in (1, 2):
        key = await make_key(app, "read")
        async with client_of(app, key) as client:
            for _ in range(5):
                assert (await client.get("/v1/products")).status_code == 200
        while len(written) < number:
            await asyncio.sleep(0.01)
        assert written[-1] == [key_id_of(key)]
    assert len(written) == 2
    assert "the last use of 1 keys could not be written" in caplog.text


async def test_no_query_runs_for_a_request_while_keys_are_believed(
    build: Build, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(admin_key_sha256=digest(ADMIN_KEY), keys_ttl_s=60)
    key = await make_key(app, "read")
    reads = []
    read_all = catalog.api_keys.all
    monkeypatch.setattr(type(catalog.api_keys), "all", lambda _: reads.append(1) or read_all())
    for shown in [key, "unknown", "vitrine_000000000000_" + "0" * 64] * 5:
        async with client_of(app, shown) as client:
            await client.get("/v1/nowhere")
    assert len(reads) <= 1


async def test_without_a_key_only_this_machine_is_answered(build: Build) -> None:
    app = build()
    cases = [
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("::ffff:127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST", 200),
        ("10.1.2.3", "localhost", 403),
        ("127.0.0.1", "shop.example", 403),
        ("127.0.0.1", "localhost.shop.example", 403),
    ]
    for peer, host, status in cases:
        async with client_of(app, peer=peer, host=host) as client:
            answer = await client.get("/v1/products")
        assert answer.status_code == status, (peer, host, answer.text)
        if status == 403:
            assert "VITRINE_ADMIN_KEY_SHA256" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-host: shop.example",
        "X-Forwarded-Proto: https",
        "Forwarded: for=203.0.113.7",
        "X-Real-IP: 203.0.113.7",
        "Via: 1.1 proxy",
    ],
)
async def test_without_a_key_a_request_through_a_proxy_is_refused(build: Build, header: str) -> None:
    name, _, value = header.partition(": ")
    async with client_of(build(), host="localhost:8000") as client:
        for method, path in (("GET", "/v1/products"), ("POST", "/v1/keys"), ("GET", "/meta")):
            refused = await client.request(method, path, headers={name: value})
            assert (refused.status_code, refused.json()["error"]["type"]) == (403, "forbidden")
            assert name.lower() in refused.json()["error"]["message"]
        assert (await client.get("/health/live", headers={name: value})).status_code == 200
    async with client_of(build(admin_key_sha256=digest(ADMIN_KEY)), ADMIN_KEY) as client:
        assert (await client.get("/v1/products", headers={name: value})).status_code == 200


async def test_keys_that_are_lost_open_no_service_that_listens_on_a_network(
    build: Build, catalog: Catalog
) -> None:
    encoder = LocalEncoder("fake")
    with_keys = build(encoder, admin_key_sha256=digest(ADMIN_KEY))
    await make_key(with_keys, "admin")
    app = build(encoder, exposed_at="0.0.0.0")
    async with client_of(app) as client:
        assert (await client.get("/v1/products")).status_code == 401
        assert "keys" not in (await client.get("/health/ready")).json()["problems"]
        with catalog.engine.begin() as connection:
            connection.execute(text("DELETE FROM api_keys"))
        for method, path in (("GET", "/v1/products"), ("POST", "/v1/keys"), ("GET", "/meta")):
            refused = await client.request(method, path)
            assert refused.status_code == 403
            assert "0.0.0.0" in refused.text
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert "0.0.0.0" in ready.json()["problems"]["keys"]
    await make_key(with_keys, "admin")
    async with client_of(app) as client:
        assert "keys" not in (await client.get("/health/ready")).json()["problems"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "shop.example"])
async def test_a_gateway_without_keys_does_not_start_where_serve_listens_on_a_network(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    options = SimpleNamespace(http_config=SimpleNamespace(host=host))
    monkeypatch.setattr(gateway.serve, "get_replica_context", lambda: None)
    # It would send the log of all tests that follow in this process to Serve's logger.
    monkeypatch.setattr(gateway, "start_telemetry", lambda: None)
    monkeypatch.setattr("deployments.observability.telemetry._get_global_client", lambda: options)
    args = gateway_args(tmp_path)
    with pytest.raises(ConfigError, match="listens on"):
        GatewayReplica(args)
    assert any(host in message for message in caplog.messages)
    for local in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        options.http_config.host = local
        GatewayReplica(args)._catalog.close()
    options.http_config.host = host
    keyed = {"admin_key_sha256": digest(ADMIN_KEY)}
    GatewayReplica(gateway_args(tmp_path, authentication=keyed))._catalog.close()
    await make_key(build(admin_key_sha256=digest(ADMIN_KEY)), "admin")
    GatewayReplica(args)._catalog.close()


def test_the_private_name_of_serves_host_is_there() -> None:
    assert isinstance(ServeControllerClient.http_config, property)
    assert "host" in HTTPOptions.model_fields


@pytest.mark.parametrize(("configured", "warned"), [("", True), (digest(ADMIN_KEY), False)])
async def test_a_gateway_without_keys_says_so_when_it_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, configured: str, warned: bool
) -> None:
    args = gateway_args(tmp_path, authentication={"admin_key_sha256": configured})
    GatewayReplica(args)._catalog.close()
    assert (NO_KEYS_NOTICE in caplog.messages) == warned


@pytest.mark.parametrize("host", ["", "[", "]", "[::1", ":", "localhost:x:y", "[::1]]", "\xff"])
async def test_a_host_that_is_none_is_no_failure_of_ours(build: Build, host: str) -> None:
    async with client_of(build()) as client:
        answer = await client.get("/v1/products", headers={"Host": host.encode("latin-1")})
    assert answer.status_code in (200, 403)


async def test_the_first_key_ends_anonymous_access_and_must_be_an_admins(build: Build) -> None:
    app = build()
    async with client_of(app) as client:
        refused = await client.post("/v1/keys", json={"name": "shop", "scopes": ["read"]})
        assert refused.status_code == 409
        made = (await client.post("/v1/keys", json={"name": "boss", "scopes": ["admin"]})).json()
        assert (await client.get("/v1/products")).status_code == 401
    async with client_of(app, made["key"], peer="10.1.2.3", host="shop.example") as boss:
        assert (await boss.get("/v1/products")).status_code == 200
        last = await boss.delete(f"/v1/keys/{made['details']['key_id']}")
        assert last.status_code == 409
        assert (await boss.get("/v1/products")).status_code == 200


async def test_a_bad_key_request_names_its_field(closed: FastAPI) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "scopes": {"name": "a", "scopes": []},
        "scopes[0]": {"name": "a", "scopes": ["root"]},
        "name": {"scopes": ["read"]},
        "burst": {"name": "a", "scopes": ["read"], "burst": 0},
        "color": {"name": "a", "scopes": ["read"], "color": 1},
    }
    async with client_of(closed, ADMIN_KEY) as admin:
        for param, body in bodies.items():
            answer = await admin.post("/v1/keys", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


async def test_a_rate_limited_key_gets_the_time_to_retry(closed: FastAPI) -> None:
    slow = await make_key(closed, "read", requests_per_s=0.1, burst=3)
    other = await make_key(closed, "read")
    async with client_of(closed, slow) as client:
        answers = [await client.get("/v1/products") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json()["error"]["type"] == "rate_limited"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 10
    async with client_of(closed, other) as client:
        assert (await client.get("/v1/products")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://shop.example"}, 403),
        ({"Origin": "http://localhost:9777"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "http://localhost"}, 201),
        ({}, 201),
    ],
)
async def test_a_page_of_another_site_changes_nothing(
    build: Build, catalog: Catalog, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"name": "mine", "scopes": ["admin"]}).encode()
    async with client_of(build()) as client:
        read = await client.get("/v1/products", headers=headers)
        made = await client.post("/v1/keys", content=body, headers=headers)
    assert (read.status_code, made.status_code) == (200, status)
    assert len(catalog.api_keys.all()) == (1 if status == 201 else 0)


async def test_a_page_of_another_site_cannot_use_a_key_that_the_browser_remembers(closed: FastAPI) -> None:
    body, page = {"name": "mine", "scopes": ["read"]}, {"Sec-Fetch-Site": "cross-site"}
    remembered = "Basic " + base64.b64encode(f"shop:{ADMIN_KEY}".encode()).decode()
    async with client_of(closed) as client:
        for shown, status in ((remembered, 403), (f"Bearer {ADMIN_KEY}", 201)):
            made = await client.post("/v1/keys", json=body, headers=page | {"Authorization": shown})
            assert made.status_code == status, made.text


async def test_a_request_ends_within_its_deadline(build: Build) -> None:
    encoder = SlowEncoder()
    app = build(encoder, request_deadline_s=0.3)
    async with client_of(app) as client:
        for headers, limit in (({}, "0.3 s"), ({"X-Request-Timeout-Seconds": "0.1"}, "0.05 s")):
            answer = await client.post("/v1/embed/slow", json={"text": "red"}, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["type"] == "deadline_exceeded"
            assert f"within {limit}" in answer.json()["error"]["message"]
        assert encoder.canceled == encoder.asked


async def test_what_a_request_began_ends_with_it(build: Build) -> None:
    encoder = SlowEncoder()
    async with client_of(build(encoder)) as client:
        # On a busy machine a request may end before the encoder is asked.
        for limit_s in (0.5, 2, 8, 25):
            headers = {"X-Request-Timeout-Seconds": str(limit_s)}
            answer = await client.post("/v1/embed/slow", json={"text": "red"}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "deadline_exceeded")
            if encoder.asked:
                break
    assert encoder.canceled == encoder.asked == 1


async def test_a_read_of_the_database_stops_when_its_request_has_ended(tmp_path: Path) -> None:
    replica = GatewayReplica(gateway_args(tmp_path))
    await replica.reconfigure({"models": ["fake"]})
    began, stopped = threading.Event(), threading.Event()

    def make_endless(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> Any:
        if "FROM products" in statement:
            began.set()
            endless = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)"
            statement = f"{endless}, found AS ({statement}) SELECT found.* FROM number, found"
        return statement, parameters

    engine = replica._catalog.engine
    replica._catalog.products.put("p", "", "", {}, [])
    event.listen(engine, "before_cursor_execute", make_endless, retval=True)
    event.listen(engine, "handle_error", lambda _: stopped.set())
    async with client_of(replica.__serve_build_asgi_app__()) as client:
        # On a busy machine a request may end before its read begins.
        for limit_s in (0.5, 2, 8, 25):
            answer = await client.get("/v1/products", headers={"X-Request-Timeout-Seconds": str(limit_s)})
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "deadline_exceeded")
            if began.is_set():
                break
    assert await asyncio.to_thread(stopped.wait, 60)
    replica._catalog.close()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", ""])
async def test_a_timeout_that_is_none_is_refused(build: Build, value: str) -> None:
    async with client_of(build()) as client:
        answer = await client.get("/v1/products", headers={"X-Request-Timeout-Seconds": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "X-Request-Timeout-Seconds")


async def test_a_body_that_never_ends_does_not_hold_a_place_for_ever(build: Build) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    async with client_of(build(request_deadline_s=0.2)) as client:
        answer = await client.post("/v1/search", content=trickle())
    assert answer.json()["error"]["type"] == "deadline_exceeded"


async def test_what_is_too_much_at_once_is_refused_at_once_and_checks_are_admitted(build: Build) -> None:
    encoder = SlowEncoder()
    app = build(encoder, max_in_flight=2)
    async with client_of(app) as client:
        held = [asyncio.create_task(client.post("/v1/embed/slow", json={"text": "red"})) for _ in range(2)]
        await encoder.is_asked(2)
        refused = await client.get("/v1/products")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["type"] == "overloaded"
        assert refused.headers["cache-control"] == "no-store"
        assert (await client.post("/v1/search", json={"query": "red"})).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        encoder.go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
        assert (await client.get("/v1/products")).status_code == 200


async def test_too_many_searches_are_refused_while_other_requests_are_admitted(build: Build) -> None:
    encoder = SlowEncoder()
    search = {"query": "red", "model": "slow"}
    async with client_of(build(encoder)) as client:
        held = [asyncio.create_task(client.post("/v1/search", json=search)) for _ in range(FIRST_SEARCHES)]
        await encoder.is_asked(FIRST_SEARCHES)
        for method, path in (
            ("POST", "/v1/search"),
            ("POST", "/v1/compare"),
            ("GET", "/v1/products/p/similar"),
        ):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["type"] == "overloaded"
        assert (await client.get("/v1/products")).status_code == 200
        encoder.go_on.set()
        await asyncio.gather(*held)
        assert (await client.post("/v1/search")).status_code == 422


async def test_every_answer_has_the_gateway_header(
    build: Build, catalog: Catalog, closed: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(catalog.products), "page", fail)
    opened, late = build(), build(request_deadline_s=1e-9)
    requests: list[tuple[int, FastAPI, str, str, dict[str, Any]]] = [
        (200, opened, "GET", "/health/live", {}),
        (200, opened, "HEAD", "/health/live", {}),
        (204, opened, "OPTIONS", "/v1/products/p", {}),
        (401, closed, "GET", "/v1/products", {}),
        (404, opened, "GET", "/nothing", {}),
        (404, opened, "GET", "/v1/products/p", {}),
        (405, opened, "PATCH", "/v1/search", {}),
        (413, opened, "POST", "/v1/search", {"headers": {"Content-Length": "9" * 12}}),
        (422, opened, "POST", "/v1/search", {"json": {}}),
        (500, opened, "GET", "/v1/products", {}),
        (503, late, "GET", "/v1/products/p", {}),
    ]
    for status, app, method, path, more in requests:
        async with client_of(app) as client:
            answer = await client.request(method, path, **more)
        assert (answer.status_code, answer.headers.get(GATEWAY_HEADER)) == (status, "1"), (method, path)


async def test_head_options_and_allow_say_what_a_path_takes(build: Build) -> None:
    async with client_of(build()) as client:
        get, head = await client.get("/v1/products"), await client.head("/v1/products")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
        options = await client.request("OPTIONS", "/v1/products/p")
        assert options.status_code == 204
        refused = await client.post("/v1/products/p")
        assert refused.status_code == 405
        for answer in (options, refused):
            allowed = answer.headers["allow"].split(", ")
            assert {"DELETE", "GET", "HEAD", "OPTIONS", "PUT"} <= set(allowed)
            assert "POST" not in allowed
        assert (await client.request("OPTIONS", "/v1/nowhere")).status_code == 404
        assert "GET" in (await client.post("/v1/openapi.json")).headers["allow"]
