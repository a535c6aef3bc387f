"""HTTP API with everything in this process, and any application behind a real HTTP server."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute

from catalog.database import CatalogConfig
from catalog.fetching.connections import FetchLimits
from catalog.fetching.fetcher import Fetcher
from catalog.opening import open_catalog
from core.ensemble import EnsembleSearch
from core.ports import EncoderClient, VectorStore
from core.search import ModelSearch
from deployments.config import GatewayArgs, ServedModels
from deployments.http.app import create_app
from deployments.services.assembly import assemble
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from tests.support.catalog_fixtures import new_catalog, sqlite_in
from tests.support.servers import HostileServer

NO_MILVUS = MilvusConfig(uri="http://127.0.0.1:1")


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application; gives its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it listened"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@cache
def _routes() -> Sequence[BaseRoute]:
    """Routes for all applications of this process: FastAPI builds the models of each application's own anew."""
    return create_app(GatewayArgs(catalog=sqlite_in(Path()), milvus=NO_MILVUS)).router.routes


@contextmanager
def local_service(
    folder: Path,
    encoders: Mapping[str, EncoderClient],
    store: VectorStore | None = None,
    exposed_at: str | None = None,
    config: CatalogConfig | None = None,
    **settings: Any,
) -> Iterator[FastAPI]:
    """Run the HTTP API on the SQLite catalog of this folder, or on the one that `config` names."""
    args = GatewayArgs(
        catalog=config or sqlite_in(folder),
        milvus=NO_MILVUS,
        **{"counts_ttl_s": 0, **settings},
    )
    catalog = open_catalog(config) if config else new_catalog(folder)
    served = ServedModels(models=tuple(encoders))
    store = store or MemoryStore()
    members = {name: ModelSearch(encoder, store) for name, encoder in encoders.items()}
    ensemble = EnsembleSearch(members, deadline_s=5)
    app = create_app(args)
    app.router.routes[:] = _routes()
    app.state.services = assemble(
        args, served, catalog, store, lambda name: encoders[name], ensemble, exposed_at
    )
    yield app
    catalog.close()


def open_fetching(app: FastAPI, server: HostileServer, **limits: Any) -> None:
    """Let the service fetch from this one server on loopback, whatever name a URL has."""
    settings = {"allowed_networks": ("127.0.0.1/32",), "ports": (server.port,), "max_bytes": 100_000}

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(FetchLimits.model_validate(settings | limits), resolve)
    app.state.services = replace(app.state.services, fetcher=fetcher)
