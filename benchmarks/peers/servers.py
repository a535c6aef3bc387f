"""The servers that are compared: their environments, and how each is started with a tower."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

from benchmarks.peers.images import embedding_requests
from benchmarks.peers.measure import Target, family
from benchmarks.served import encoder_settings
from benchmarks.service import MODEL, serving
from core.tcp_ports import free_port

VITRINE = "vitrine"
PEERS = {
    "infinity": ("infinity-emb[torch,server]==0.0.78", "aiohttp", "pillow"),
    "litserve": ("litserve==0.2.19", "pillow", "transformers"),
}
"""What each peer needs beside the PyTorch that Vitrine runs on."""
_PATH = "/v1/embeddings"
_START_S = 120.0
_LITSERVE = Path(__file__).with_name("litserve_server.py")


class NotInstalled(Exception):
    """A peer's environment could not be made; the message says why."""


def environments_folder() -> Path:
    """Return the default folder of the environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitrine" / "peers"


def install(name: str, folder: Path) -> Path:
    """Make the environment of a peer unless it is there, and return its folder of programs.

    Raises:
        NotInstalled: with the last lines of the installer.
    """
    wanted = [*PEERS[name], *(f"{each}=={version(each)}" for each in ("torch", "torchvision"))]
    environment = folder / name
    mark = environment / ".installed"
    if not (mark.exists() and mark.read_text() == "\n".join(wanted)):
        print(f"making the environment of {name} in {environment}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        python = str(environment / "bin" / "python")
        _make_environment(name, environment)
        _installer(name, "uv", "pip", "install", "--quiet", "--python", python, *wanted)
        mark.write_text("\n".join(wanted))
    return environment / "bin"


def _make_environment(name: str, environment: Path) -> None:
    _installer(name, "venv", str(environment))


def _installer(name: str, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], text=True, capture_output=True)
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-3:])
        raise NotInstalled(f"{name} could not be installed: {last}")


@contextmanager
def served(name: str, programs: Path | None, tower: Path, threads: int, probe: bytes) -> Iterator[Target]:
    """Run a server with a tower until the context ends, and yield it once it has embedded `probe`.

    `programs` is the environment's folder of programs of a peer.
    """
    if programs is None:
        # Without a cache of embeddings.
        settings = encoder_settings(tower, threads=threads, cache_max_bytes=0)
        with serving(tower.parent / f"home-{free_port()}", settings, probe) as (service, port):
            yield Target(service.pid, port, _PATH, MODEL)
        return
    port = free_port()
    command = _command(name, programs, tower, port)
    log = tower.parent / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            # Infinity makes a folder for its cache where it runs.
            cwd=tower.parent if name == "infinity" else None,
            env=_environment(threads),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        target = Target(process.pid, port, "/embeddings" if name == "infinity" else _PATH, MODEL)
        _wait(process, target, probe, log)
        yield target
    finally:
        _end(process)


def _command(name: str, programs: Path, tower: Path, port: int) -> list[str]:
    if name == "litserve":
        return [str(programs / "python"), str(_LITSERVE), str(tower), str(port)]
    return [
        *(str(programs / "infinity_emb"), "v2", "--model-id", str(tower), "--served-model-name", MODEL),
        *("--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"),
        *("--batch-size", "32", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
    ]


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a peer: nothing of ours, no network, and as many threads as Vitrine has."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }
    return {**kept, **own}


def _wait(process: "subprocess.Popen[bytes]", target: Target, probe: bytes, log: Path) -> None:
    body = b"".join(next(embedding_requests(target.path, target.model, [probe], 1))[1:])
    url = f"http://127.0.0.1:{target.port}{target.path}"
    deadline = time.monotonic() + _START_S
    said = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=30)
        except httpx.HTTPError as error:
            said = type(error).__name__
        else:
            if answer.is_success:
                return
            said = answer.text[:300]
        time.sleep(0.3)
    raise RuntimeError(f"the server did not start ({said}): {log.read_text()[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(psutil.NoSuchProcess):
        processes = family(process.pid)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(processes, timeout=10)
    process.wait(10)
