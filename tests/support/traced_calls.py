"""Files of the product that one search, one put and one promotion pass.

The service's deployments are plain objects in this process, made by the builders that the Serve configuration
names. Stand-ins for seven functions of Ray connect them. Catalog (SQLite), Milvus Lite in its own process, HTTP
application and job are the real ones.
"""

import asyncio
import base64
import contextlib
import inspect
import io
import logging
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints
from unittest.mock import patch

import httpx
import ray
import ray.data
import yaml
from PIL import Image
from ray import serve

from catalog.opening import open_catalog
from core.indexing import Indexer
from deployments import app
from jobs.__main__ import main
from milvus.store import MilvusStore
from tests.codebase import PRODUCT, ROOT
from tests.support.local_encoder import LocalEncoder

MODELS = ("openclip", "dinov2")
PRODUCTS = 60
ANOTHER, CANDIDATE = "another", "candidate"


class Tracer:
    """Notes the files of which a function runs, in all threads that start after `install`."""

    def __init__(self) -> None:
        self._paths: set[str] | None = None

    def install(self) -> None:
        """Watch this thread and later ones; a path is noted only while `record` runs."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    @contextmanager
    def record(self, into: list[str]) -> Iterator[None]:
        """Put the paths of the product's files into a list, sorted."""
        self._paths = paths = set()
        try:
            yield
        finally:
            self._paths = None
        own = {Path(path).relative_to(ROOT) for path in paths if path.startswith(f"{ROOT}/")}
        into[:] = sorted(str(path) for path in own if path.parts[0] in PRODUCT)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Note nothing meanwhile."""
        paths, self._paths = self._paths, None
        try:
            yield
        finally:
            self._paths = paths

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        # The code of a module and of a class runs when it is imported, which is no part of a call.
        if self._paths is not None and event == "call" and frame.f_code.co_flags & inspect.CO_NEWLOCALS:
            self._paths.add(frame.f_code.co_filename)


class RunningService:
    """Ray, as far as deployments and jobs call it: a configuration, and an object for each deployment."""

    def __init__(self, config: Mapping[str, Any], tracer: Tracer) -> None:
        self.config = dict(config)
        self._tracer = tracer
        self.replicas: dict[str, Any] = {}

    async def start(self) -> None:
        """Build the deployments that the configuration names."""
        for application in self.config["applications"]:
            replica = self.replicas[application["name"]] = build(application)
            for deployment in application.get("deployments", []):
                await replica.reconfigure(deployment["user_config"])

    def get_deployment_handle(self, _deployment: str, app_name: str) -> Any:
        """Stand in for Serve's handle of another application."""
        return Handle(lambda: self.replicas[app_name])

    def get_serve_details(self) -> dict[str, Any]:
        """Stand in for the dashboard's account of what runs."""
        running = {
            each["name"]: {"deployed_app_config": each, "status": "RUNNING"}
            for each in self.config["applications"]
        }
        return {"applications": running}

    def deploy_applications(self, config: Mapping[str, Any]) -> None:
        """Stand in for a rollout: encoders are built anew, which in a cluster other processes do."""
        self.config = dict(config)
        with self._tracer.pause():
            for application in self.config["applications"]:
                if application["name"] in MODELS:
                    self.replicas[application["name"]] = build(application)

    @contextmanager
    def in_place_of_ray(self) -> Iterator[None]:
        """Let this service answer for Ray."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(patch.object(serve, "deployment", lambda kind, **_: Unbound(kind)))
            stack.enter_context(patch.object(serve, "ingress", lambda: lambda kind: kind))
            stack.enter_context(patch.object(serve, "get_deployment_handle", self.get_deployment_handle))
            stack.enter_context(patch.object(ray, "init", lambda **_: None))
            stack.enter_context(patch.object(ray, "shutdown", lambda: None))
            stack.enter_context(patch.object(ray, "remote", lambda **_: Task))
            stack.enter_context(patch.object(ray, "get", lambda value: value))
            service = self

            class Client:
                def __init__(self, _address: str) -> None:
                    self.get_serve_details = service.get_serve_details
                    self.deploy_applications = service.deploy_applications

            stack.enter_context(patch("ray.dashboard.modules.serve.sdk.ServeSubmissionClient", Client))
            stack.enter_context(patch("ray.dashboard.utils.get_address_for_submission_client", str))
            yield


class Unbound:
    """A deployment of which `bind` makes the object itself."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        self.bind = kind


class Task:
    """A task or actor of Ray, done at once in this process."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.remote = work


class Handle:
    """A Serve handle; each method of the replica answers by a task of this loop."""

    _router = None
    """As before the first call of a handle, so that no calls are shared."""

    def __init__(self, replica: Callable[[], Any]) -> None:
        self._replica = replica

    def __getattr__(self, method: str) -> Any:
        return Method(lambda *args: getattr(self._replica(), method)(*args))


class Method:
    """A method of a handle."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    def remote(self, *args: object) -> asyncio.Future[Any]:
        """Begin the call."""
        return asyncio.ensure_future(self._call(*args))


def build(application: Mapping[str, Any]) -> Any:
    """Make an application's deployment as its builder does."""
    return _builder(application)(arguments(application))


def arguments(application: Mapping[str, Any]) -> Any:
    """Read the arguments of an application as Serve does, by the annotation of its builder."""
    return get_type_hints(_builder(application))["args"].model_validate(application["args"])


def _builder(application: Mapping[str, Any]) -> Callable[..., Any]:
    builder: Callable[..., Any] = getattr(app, application["import_path"].partition(":")[2])
    return builder


def configuration(folder: Path) -> dict[str, Any]:
    """Write the configuration of two encoders without weights, their ensemble and the gateway."""
    catalog = {"database_url": f"sqlite:///{folder}/catalog.sqlite", "blobs_url": str(folder / "blobs")}
    milvus = {"uri": f"unix:{folder}/milvus.sock"}
    encoders = [("encoder", name, {"name": name, "family": "fake"}, None) for name in MODELS]
    ensemble = ("ensemble", "ensemble", {"milvus": milvus}, {"weights": dict.fromkeys(MODELS, 1.0)})
    gateway = ("gateway", "gateway", {"catalog": catalog, "milvus": milvus}, {"models": list(MODELS)})
    applications = [
        {"name": name, "import_path": f"deployments.app:build_{kind}", "args": args}
        | ({} if user_config is None else {"deployments": [{"name": name, "user_config": user_config}]})
        for kind, name, args, user_config in (*encoders, ensemble, gateway)
    ]
    return {"applications": applications}


@contextmanager
def milvus_lite(folder: Path) -> Iterator[None]:
    """Run the owner of a Milvus Lite folder."""
    address = ["--folder", str(folder / "milvus"), "--address", f"unix:{folder}/milvus.sock"]
    with (folder / "milvus.log").open("w") as log:
        owner = subprocess.Popen([sys.executable, "-m", "milvus.lite", *address], cwd=ROOT, stderr=log)
    try:
        while not (folder / "milvus.sock").exists():
            if owner.poll() is not None:
                raise RuntimeError((folder / "milvus.log").read_text())
            threading.Event().wait(0.1)
        yield
    finally:
        owner.terminate()
        owner.wait()


def traced_calls() -> dict[str, list[str]]:
    """List the files that a search, a put and a promotion pass; each has been done once before it is traced."""
    logging.getLogger().setLevel(logging.ERROR)
    tracer = Tracer()
    tracer.install()
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        folder = Path(name)
        service = RunningService(configuration(folder), tracer)
        with milvus_lite(folder), service.in_place_of_ray():
            passed = asyncio.run(_requests(service, tracer))
            return passed | {"promote": _promotion(service, folder, tracer)}


async def _requests(service: RunningService, tracer: Tracer) -> dict[str, list[str]]:
    await service.start()
    gateway = service.replicas["gateway"].__serve_build_asgi_app__()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(gateway), base_url="http://127.0.0.1"
    ) as client:
        for number in range(PRODUCTS):
            await _put(client, number)
        await _search(client, 0)
        return {
            "search": await _fewest(tracer, lambda number: _search(client, number)),
            "put": await _fewest(tracer, lambda number: _put(client, PRODUCTS + number)),
        }


async def _fewest(tracer: Tracer, call: Callable[[int], Awaitable[None]]) -> list[str]:
    """Trace three calls and return the least: some of what is cached may expire before one of them."""
    passed: list[list[str]] = [[], [], []]
    for number, paths in enumerate(passed, start=1):
        with tracer.record(paths):
            await call(number)
    return min(passed, key=len)


async def _search(client: httpx.AsyncClient, number: int) -> None:
    """Search for what was not searched for before, so that it is encoded."""
    found = await _ask(client.post("/v1/search", json={"query": f"red shirt {number}", "limit": 5}))
    assert found["results"], found


async def _put(client: httpx.AsyncClient, number: int) -> None:
    body = {"title": "A red shirt", "images": [base64.b64encode(_png(number)).decode()]}
    await _ask(client.put(f"/v1/products/p{number}", json=body))


async def _ask(call: Awaitable[httpx.Response]) -> Any:
    answer = await call
    assert answer.is_success, answer.text
    return answer.json()


def _png(seed: int) -> bytes:
    pixels = random.Random(seed).randbytes(24 * 24 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (24, 24), pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _promotion(service: RunningService, folder: Path, tracer: Tracer) -> list[str]:
    """Promote two candidates, which an index pass has completed, one after the other, and trace the second."""
    passed: list[str] = []
    for candidate in (ANOTHER, CANDIDATE):
        job = _prepare(service, candidate)
        config = folder / "serve_config.yaml"
        config.write_text(yaml.safe_dump(service.config))
        with tracer.record(passed):
            _run(job, config)
    return passed


def _prepare(service: RunningService, candidate: str) -> str:
    """Build the candidate's collection and register the job; returns its id."""
    settings = arguments(service.config["applications"][-1])
    catalog, store = open_catalog(settings.catalog), MilvusStore(settings.milvus)
    try:
        encoder = LocalEncoder(MODELS[0], candidate)
        asyncio.run(Indexer(encoder, store, catalog.ledger, catalog.blobs).index_missing())
        return str(catalog.jobs.create("promote", {"model": MODELS[0], "checkpoint": candidate}).job_id)
    finally:
        store.close()
        catalog.close()


def _run(job: str, config: Path) -> None:
    """Do a job as Ray does one of the API: `python -m jobs run`."""
    output, log = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["jobs", "run", job, "--config", str(config), "--address", "here"]),
        patch.object(logging.getLogger(), "handlers", []),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(log),
        contextlib.suppress(SystemExit),
    ):
        main()
    assert job in output.getvalue(), log.getvalue()
