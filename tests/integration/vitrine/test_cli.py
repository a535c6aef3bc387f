"""`vitrine` against the HTTP API over a real connection: what it prints, and its exit codes."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from core.errors import ConfigError, Conflict, InvalidInput, NotFound, Unavailable, VitrineError
from core.jobs import Job, Progress
from deployments.services.jobs import BulkJobs
from jobs.runner import start
from jobs.runner.context import JobContext
from models.config import CaptionConfig
from tests.support.catalog_fixtures import encoder
from tests.support.children import Child
from tests.support.documented_service import Cluster, image
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served
from vitrine.cli import jobs as job_commands
from vitrine.cli.main import app as commands
from vitrine.cli.service import Exit

COLORS = {"red": "#c02020", "green": "#20c020", "blue": "#2020c0"}
UNUSED = "http://127.0.0.1:9"


class WatchedJobs(BulkJobs):
    """Notes when a job is looked at, as whoever follows it does."""

    looked_at: threading.Event

    async def get(self, job_id: str) -> Job:
        self.looked_at.set()
        return await super().get(job_id)


@dataclass
class Stand:
    app: FastAPI
    url: str
    encoder: LocalEncoder
    looked_at: threading.Event
    """Somebody follows a job."""

    @property
    def jobs(self) -> Any:
        return self.app.state.services.catalog.jobs

    def run(self, *arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(commands, [*arguments, "--url", self.url], **options)

    def answer(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def meanwhile(self, *ends: dict[str, Any]) -> threading.Thread:
        """End jobs as they come, one after another."""

        def work() -> None:
            for end in ends:
                while not (queued := [job for job in self.jobs.page(10) if job.state == "queued"]):
                    time.sleep(0.01)
                self.jobs.begin(queued[0].job_id)
                state = end.get("state", "succeeded")
                progress = Progress("done", 10, 10, images_per_s=2.0, eta_s=1.0)
                self.jobs.finish(queued[0].job_id, state, progress, end.get("result"), end.get("error"))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(job_commands, "POLL_S", 0.02)
    monkeypatch.setenv("COLUMNS", "200")
    encoder = LocalEncoder("first")
    with local_service(tmp_path, {"first": encoder}) as app:
        services = app.state.services
        looked_at = threading.Event()
        jobs = WatchedJobs(services.catalog, Cluster(), 5, models=("first",), folders=("/",))
        jobs.looked_at = looked_at
        app.state.services = replace(services, jobs=jobs)
        with served(app) as url:
            yield Stand(app, url, encoder, looked_at)


@pytest.fixture
def stocked(stand: Stand, tmp_path: Path) -> Stand:
    for name, color in COLORS.items():
        (tmp_path / f"{name}.png").write_bytes(image(color))
        attributes = json.dumps({"color": name})
        put = (
            "put",
            name,
            str(tmp_path / f"{name}.png"),
            "--title",
            f"{name} shirt",
            "--attributes",
            attributes,
        )
        assert stand.answer("products", *put)["created"] is True
    return stand


def test_products_are_put_listed_shown_and_deleted(stocked: Stand, tmp_path: Path) -> None:
    assert [each["product_id"] for each in stocked.answer("products", "list")] == ["blue", "green", "red"]
    assert [each["product_id"] for each in stocked.answer("products", "list", "--limit", "1")] == ["blue"]
    assert "green shirt" in stocked.run("products", "list").stdout
    product = stocked.answer("products", "get", "red")
    assert product["attributes"] == {"color": "red"}
    file = tmp_path / "written.png"
    stocked.answer("products", "image", product["images"][0]["image_id"], str(file))
    assert file.read_bytes() == image(COLORS["red"])
    assert stocked.answer("products", "delete", "red", "blue") == {"deleted": ["red", "blue"]}
    assert stocked.run("products", "get", "red").exit_code == Exit.NOT_FOUND


def test_an_image_file_and_words_find_products(stocked: Stand, tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    found = stocked.answer("search", file, "--model", "first", "--limit", "2", "--box", "0,0,1,1")
    assert [len(found["results"]), found["results"][0]["product_id"]] == [2, "red"]
    words = stocked.answer("search", "green shirt", "--keyword-weight", "1", "--filter", '{"color": "green"}')
    assert [each["product_id"] for each in words["results"]] == ["green"]
    shown = stocked.run("search", file, "--no-thumbnails")
    assert shown.exit_code == 0
    assert "red shirt" in shown.stdout
    liked = stocked.answer("search", "--like", "red", "--unlike", "blue")
    assert [each["product_id"] for each in liked["results"]] == ["green"]


def test_thumbnails_are_drawn_on_request(stocked: Stand, tmp_path: Path) -> None:
    drawn = stocked.run("search", str(tmp_path / "red.png"), "--thumbnails", "--limit", "1")
    assert "▀" in drawn.stdout


def test_the_state_of_the_service_is_shown(stocked: Stand) -> None:
    assert [each["model"] for each in stocked.answer("models")] == ["first"]
    assert stocked.answer("models", "first")[0]["counts"]["indexed"] == 3
    assert stocked.answer("stats")["images"] == 3
    assert stocked.answer("ready")["ready"] is True
    for command in (("models",), ("models", "first"), ("stats",), ("ready",)):
        assert stocked.run(*command).exit_code == 0
    stocked.encoder.away = True
    away = stocked.run("ready", "--json")
    assert (away.exit_code, json.loads(away.stdout)["ready"]) == (Exit.TRY_LATER, False)
    assert stocked.run("models").exit_code == 0


def test_keys_are_made_listed_and_revoked(stand: Stand) -> None:
    key = stand.run("keys", "create", "boss", "--scope", "admin").stdout.strip()
    assert stand.run("stats").exit_code == Exit.NOT_ALLOWED
    made = stand.answer("keys", "create", "shop", "--scope", "read", "--key", key)
    assert stand.run("keys", "list", "--key", made["key"]).exit_code == Exit.NOT_ALLOWED
    key_id = made["details"]["key_id"]
    assert stand.answer("keys", "revoke", key_id, "--key", key) == {"revoked": key_id}
    listed = stand.answer("keys", "list", "--key", key)
    assert [each["revoked_at"] is not None for each in listed] == [False, True]
    assert key_id in stand.run("keys", "list", "--key", key).stdout


VERBS = {
    "plan": ["--model", "first", "--checkpoint", "other"],
    "build": ["--model", "first"],
    "sample": ["--model", "first", "--percent", "1"],
    "evaluate": ["--model", "first", "--pooling", "mean", "--sample", "20"],
    "promote": ["--model", "first", "--checkpoint", "other", "--no-apply"],
    "rollback": ["--model", "first", "--fingerprint", "0123456789ab"],
    "prune": ["--model", "first", "--yes"],
    "verify": ["--percent", "1", "--repair"],
    "adopt": ["--yes"],
    "import": ["."],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_submits_its_job_and_waits_for_the_result(stand: Stand, verb: str) -> None:
    stand.app.state.services.catalog.ledger.register(encoder("first", VERBS["rollback"][-1]))
    stand.meanwhile({"result": {"remaining": 0}})
    job = stand.answer(verb, *VERBS[verb])
    assert (job["kind"], job["state"], job["result"]) == (verb, "succeeded", {"remaining": 0})


def test_arguments_arrive_as_they_are_meant(stand: Stand, tmp_path: Path) -> None:
    args = stand.answer("evaluate", *VERBS["evaluate"], "--detach")["args"]
    assert args == {"model": "first", "pooling": "mean", "sample": 20}
    table = str(tmp_path / "shop.csv")
    args = stand.answer("import", table, "--options", '{"delimiter": ";"}', "--delete-missing", "--detach")[
        "args"
    ]
    assert args["source"] == {"kind": "manifest", "path": table, "delimiter": ";"}
    assert args["delete_missing"] is True
    args = stand.answer("import", f"{table}.gz", "--dry-run", "--detach")["args"]
    assert args == {"source": {"kind": "manifest", "path": f"{table}.gz"}, "dry_run": True}
    args = stand.answer("promote", *VERBS["promote"], "--force", "a test", "--detach")["args"]
    assert args == {"model": "first", "checkpoint": "other", "apply": False, "force": "a test"}


@pytest.mark.parametrize(
    ("verb", "end", "code"),
    [
        ("build", {"state": "failed", "error": "the disk is full"}, Exit.FAILED),
        ("build", {"state": "canceled"}, Exit.FAILED),
        (
            "promote",
            {"state": "failed", "error": "no", "result": {"quality_gate": {"passed": False}}},
            Exit.REFUSED,
        ),
        ("promote", {"result": {"quality_gate": {"passed": None}}}, Exit.OK),
        ("evaluate", {"result": {"quality_gate": {"passed": False}}}, Exit.REFUSED),
        ("evaluate", {"result": {"quality_gate": None}}, Exit.OK),
        ("verify", {"result": {"agrees": False}}, Exit.REFUSED),
        ("verify", {"result": {"agrees": True}}, Exit.OK),
    ],
)
def test_the_exit_code_says_how_a_job_ended(stand: Stand, verb: str, end: dict[str, Any], code: Exit) -> None:
    stand.meanwhile(end)
    result = stand.run(verb, *VERBS[verb])
    assert result.exit_code == code, result.output
    if "error" in end:
        assert end["error"] in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    (job,) = stand.jobs.page(1)
    assert stand.run("jobs", "wait", job.job_id).exit_code == code


def test_a_prune_asks_before_it_drops_anything(stand: Stand) -> None:
    stand.meanwhile({"result": {"would_drop": ["first_0"]}}, {"result": {"dropped": ["first_0"]}})
    assert stand.run("prune", "--model", "first", input="n\n").exit_code == Exit.FAILED
    assert [job.args.get("dry_run") for job in stand.jobs.page(5)] == [True]
    assert stand.run("prune", "--model", "first", "--detach").exit_code == Exit.USAGE


def test_another_milvus_is_adopted_only_by_who_confirms_it(stand: Stand) -> None:
    assert stand.run("adopt", input="n\n").exit_code == Exit.FAILED
    assert stand.run("adopt", "--detach").exit_code == Exit.USAGE
    assert stand.jobs.page(5) == []
    assert stand.answer("adopt", "--yes", "--keep-index", "--detach")["args"] == {"keep_index": True}


def test_a_prune_of_files_is_a_job_of_its_own_and_asks_first(stand: Stand) -> None:
    stand.meanwhile({"result": {"would_remove": 3}})
    assert stand.run("prune", "--files", input="n\n").exit_code == Exit.FAILED
    assert [(job.kind, job.args) for job in stand.jobs.page(5)] == [("prune_files", {"dry_run": True})]
    stand.meanwhile({"result": {"removed": 3}})
    assert stand.answer("prune", "--files", "--yes")["result"] == {"removed": 3}
    stand.meanwhile({"result": {"would_remove": 0}})
    assert stand.answer("prune", "--files", "--dry-run")["args"] == {"dry_run": True}
    for wrong in ((), ("--files", "--model", "first")):
        assert stand.run("prune", *wrong, "--yes").exit_code == Exit.USAGE


def test_jobs_are_listed_shown_logged_and_canceled(stand: Stand) -> None:
    job_id = stand.run("build", "--model", "first", "--detach").stdout.strip()
    assert [each["job_id"] for each in stand.answer("jobs", "list")] == [job_id]
    assert stand.answer("jobs", "show", job_id)["state"] == "queued"
    assert "images" in stand.run("jobs", "logs", job_id).stdout
    assert len(stand.answer("jobs", "logs", job_id)["lines"]) == 1
    for command in (("list",), ("show", job_id)):
        assert job_id in stand.run("jobs", *command).stdout
    assert stand.run("build", "--model", "first").exit_code == Exit.REFUSED
    assert stand.answer("jobs", "cancel", job_id)["state"] == "canceled"
    assert stand.run("jobs", "cancel", job_id).exit_code == Exit.REFUSED
    assert stand.run("jobs", "report", job_id, os.devnull).exit_code == Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("search",), Exit.USAGE),
        (("search", "a", "--limit", "0"), Exit.USAGE),
        (("search", "a", "--filter", "red"), Exit.USAGE),
        (("search", "a", "--filter", '{"price": {"near": 1}}'), Exit.USAGE),
        (("search", "a", "--box", "0,0,1,1"), Exit.USAGE),
        (("search", "nowhere.jpg"), Exit.USAGE),
        (("search", "a", "--model", "none"), Exit.NOT_FOUND),
        (("products", "get", "none"), Exit.NOT_FOUND),
        (("jobs", "show", "none"), Exit.NOT_FOUND),
        (("build", "--model", "first", "--color", "red"), Exit.USAGE),
        (("evaluate", "--pooling", "mean"), Exit.USAGE),
        (("import", "https://127.0.0.1/items", "--options", '{"color": 1}'), Exit.USAGE),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    stand: Stand, arguments: tuple[str, ...], code: Exit
) -> None:
    result = stand.run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.strip()
    assert "Traceback" not in result.output


def test_a_service_that_is_not_there_is_one_sentence() -> None:
    result = CliRunner().invoke(commands, ["stats"], env={"VITRINE_URL": UNUSED})
    assert result.exit_code == Exit.TRY_LATER
    assert result.stderr.strip().startswith(f"the service at {UNUSED}")
    assert len(result.stderr.strip().splitlines()) == 1
    assert CliRunner().invoke(commands, ["stats", "--url", "nowhere"]).exit_code == Exit.USAGE


def _obey_ctrl_c() -> None:
    """As at a terminal: what a script starts in the background inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("options", "state"), [([], "queued"), (["--cancel-on-interrupt"], "canceled")])
def test_ctrl_c_leaves_the_job_alone_or_cancels_it(stand: Stand, options: list[str], state: str) -> None:
    command = [
        sys.executable,
        "-m",
        "vitrine.cli.main",
        "build",
        "--model",
        "first",
        "--url",
        stand.url,
        *options,
    ]
    with Child("build", command, preexec_fn=_obey_ctrl_c) as process:
        assert stand.looked_at.wait(60)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    output = process.output()
    (job,) = stand.jobs.page(1)
    assert (process.returncode, job.state) == (Exit.INTERRUPTED, state)
    assert job.job_id in output
    assert len(output.strip().splitlines()) == 1


def test_a_terminal_shows_how_far_a_job_is(stand: Stand) -> None:
    leader, terminal = pty.openpty()
    command = [sys.executable, "-m", "vitrine.cli.main", "build", "--model", "first", "--url", stand.url]
    with subprocess.Popen(command, stderr=terminal, stdout=subprocess.PIPE) as process:
        os.close(terminal)
        while not (queued := stand.jobs.page(1)):
            assert process.poll() is None
            time.sleep(0.02)
        stand.jobs.begin(queued[0].job_id)
        stand.jobs.beat(queued[0].job_id, Progress("indexing", 20, 7, 1, 2.5, 6.0))
        drawn = ""
        while "7/20" not in drawn:
            drawn += os.read(leader, 4096).decode(errors="replace")
        stand.jobs.finish(queued[0].job_id, "succeeded", Progress("done", 20, 20), {"remaining": 0})
        shown, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert "build: indexing" in drawn
    assert b"remaining" in shown


def test_an_evaluation_is_a_table_of_figures_with_their_intervals(stand: Stand) -> None:
    estimate = {"mean": 0.8667, "low": 0.7333, "high": 0.9667, "queries": 30}
    figures = {"kind": "labeled words", "queries": 30, "estimates": {"first": {"ndcg@10": estimate}}}
    result = {"figures": [figures], "quality_gate": {"passed": True, "reason": "passed: no worse"}}
    stand.meanwhile({"result": result})
    shown = stand.run("evaluate", "--sample", "30")
    assert shown.exit_code == 0, shown.output
    assert "0.867 (0.733 to 0.967)" in shown.stdout
    assert "passed: no worse" in shown.stdout


def test_models_are_compared_side_by_side(stocked: Stand, tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    compared = stocked.answer("compare", file, "--model", "first", "--model", "ensemble", "--limit", "2")
    assert [next(each["product_id"] for each in found["results"]) for found in compared["lists"]] == [
        "red",
        "red",
    ]
    shown = stocked.run("compare", file, "--limit", "2").stdout
    assert "red (1)" in shown
    assert "first and ensemble" in shown
    assert stocked.run("compare").exit_code == Exit.USAGE


def test_texts_and_images_are_embedded_and_one_mistake_costs_the_others_nothing(
    stocked: Stand, tmp_path: Path
) -> None:
    red, broken = str(tmp_path / "red.png"), tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    embedded = stocked.answer("embed", "first", red, "a red shirt", red)["embeddings"]
    assert [each["input"] for each in embedded] == [red, "a red shirt", red]
    assert embedded[0]["embedding"] == embedded[2]["embedding"] != embedded[1]["embedding"]
    assert sum(number**2 for number in embedded[1]["embedding"]) == pytest.approx(1, abs=1e-5)
    partly = stocked.run("embed", "first", red, str(broken), "--json")
    answers = json.loads(partly.stdout)["embeddings"]
    assert (partly.exit_code, ["error" in each for each in answers]) == (Exit.USAGE, [False, True])
    assert "+" in stocked.run("embed", "first", red).stdout
    alone = stocked.run("embed", "first", str(broken))
    assert (alone.exit_code, alone.stdout) == (Exit.USAGE, "")


def test_a_model_without_captions_says_so_and_one_with_them_writes_them(stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(image(COLORS["red"]))
    file = str(tmp_path / "red.png")
    assert stand.run("caption", file).exit_code == Exit.USAGE
    encoders = {"first": LocalEncoder("first", captions=CaptionConfig())}
    (tmp_path / "other").mkdir()
    with local_service(tmp_path / "other", encoders) as app, served(app) as url:
        able = replace(stand, url=url)
        (caption,) = able.answer("caption", file)
        assert caption["caption"] in able.run("caption", file, "--model", "first").stdout


def test_what_filters_can_ask_for_is_listed(stocked: Stand) -> None:
    (color,) = stocked.answer("products", "attributes")["attributes"]
    assert (color["name"], color["products"]) == ("color", 3)
    assert "green (1)" in stocked.run("products", "attributes").stdout


def test_a_thumbnail_is_written_in_its_size(stocked: Stand, tmp_path: Path) -> None:
    (image,) = stocked.answer("products", "get", "red")["images"]
    file = tmp_path / "small.webp"
    stocked.answer("products", "image", image["image_id"], str(file), "--thumbnail", "small")
    assert file.read_bytes()[8:12] == b"WEBP"


def test_the_gaps_of_a_version_are_listed(stocked: Stand, tmp_path: Path) -> None:
    assert stocked.answer("gaps", "first")["missing"] == []
    fingerprint = stocked.answer("models", "first")[0]["fingerprint"]
    stocked.encoder.away = True
    stocked.answer("products", "put", "late", str(tmp_path / "red.png"))
    assert stocked.run("gaps", "first").exit_code == Exit.TRY_LATER
    gaps = stocked.answer("gaps", "first", "--fingerprint", fingerprint)
    assert [each["product_id"] for each in gaps["missing"]] == ["late"]
    assert "late" in stocked.run("gaps", "first", "--fingerprint", fingerprint).stdout
    assert stocked.run("gaps", "none").exit_code == Exit.NOT_FOUND


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A Serve configuration whose service does not run."""
    gateway = {
        "catalog": {
            "database_url": f"sqlite:///{tmp_path}/shop.sqlite",
            "blobs_url": str(tmp_path / "blobs"),
        },
        "milvus": {"uri": UNUSED},
    }
    applications = [{"name": "gateway", "import_path": "deployments.app:build_gateway", "args": gateway}]
    file = tmp_path / "serve_config.yaml"
    file.write_text(json.dumps({"applications": applications}))
    return file


def local(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitrine.cli.main", *arguments, "--local"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_job_runs_here_without_the_service(config: Path, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(image(COLORS["red"]))
    table = tmp_path / "shop.csv"
    table.write_text("product_id,title,images\nred,Red shirt,red.png\nbroken,Broken shirt,nowhere.png\n")
    here = ("--config", str(config))
    done = local("import", str(table), *here, "--json")
    assert done.returncode == Exit.OK, done.stderr
    job = json.loads(done.stdout)
    assert (job["kind"], job["state"]) == ("import", "succeeded")
    assert (job["result"]["created"], job["result"]["failed"]) == (1, 1)
    assert f"job {job['job_id']} begins" in done.stderr
    broken = local("jobs", "errors", job["job_id"], *here, "--json")
    assert [each["product_id"] for each in json.loads(broken.stdout)] == ["broken"]
    assert (
        local("jobs", "report", job["job_id"], str(tmp_path / "page.html"), *here).returncode
        == Exit.NOT_FOUND
    )
    planned = local("prune", "--files", "--dry-run", *here)
    assert planned.returncode == Exit.OK, planned.stderr
    assert "would_remove" in planned.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in this process, whose job does `work` instead, without Ray."""

    def run(work: Callable[[JobContext, Any], Any], *arguments: str) -> Result:
        monkeypatch.setattr(start, "work_of", lambda _kind: work)
        return CliRunner().invoke(commands, [*arguments, "--local"])

    # A job sets these for its whole process.
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, os.environ.get(name, "0"))
    monkeypatch.setattr(start, "_cluster", lambda *_: nullcontext())
    return run


def fails(error: Exception, result: dict[str, Any] | None = None) -> Callable[[JobContext, Any], Any]:
    def work(context: JobContext, _args: Any) -> Any:
        context.run.result = result
        raise error

    return work


ERRORS: list[Exception] = [
    InvalidInput("a row is wrong"),
    Unavailable("Milvus is away"),
    ConfigError("a variable is not set"),
    NotFound("no such version"),
    TimeoutError(),
    ConnectionError("refused"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "weights.bin"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_job_that_fails_here_ends_as_one_of_the_service(
    here: Callable[..., Result], config: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    failed = here(fails(error), "build", "--model", "first", "--config", str(config), "--json")
    job = json.loads(failed.stdout)
    ours = isinstance(error, VitrineError)
    assert (failed.exit_code, job["state"]) == (Exit.FAILED, "failed")
    assert job["error"] == (str(error) if ours else type(error).__name__)
    assert f"job {job['job_id']} has failed: {job['error']}" in failed.stderr
    assert "None" not in failed.stderr
    # An error that is not ours leaves its traceback.
    assert ("Traceback" in caplog.text) is not ours


def test_a_promotion_that_the_quality_gate_refuses_here_prints_its_figures(
    here: Callable[..., Result], config: Path
) -> None:
    gate = {"passed": False, "reason": "refused: map goes from 0.9 to 0.5"}
    work = fails(Conflict("the quality gate refuses"), {"quality_gate": gate})
    refused = here(work, "promote", "--model", "first", "--config", str(config), "--json")
    assert refused.exit_code == Exit.REFUSED
    assert json.loads(refused.stdout)["result"] == {"quality_gate": gate}


def test_a_job_that_is_canceled_here_ends_as_one_of_the_service(
    here: Callable[..., Result], config: Path
) -> None:
    def work(context: JobContext, _args: Any) -> Any:
        context.catalog.jobs.cancel(context.run.job.job_id)
        raise Conflict("canceled or replaced")

    canceled = here(work, "adopt", "--yes", "--config", str(config))
    assert canceled.exit_code == Exit.FAILED
    assert "was canceled" in canceled.stderr


def test_a_file_of_queries_is_that_of_the_callers_folder(
    stand: Stand,
    here: Callable[..., Result],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "queries.csv").write_text("text,product_id\n")
    monkeypatch.chdir(tmp_path)
    command = ("evaluate", "--queries", "queries.csv")
    done = here(lambda *_: {}, *command, "--config", str(config), "--json")
    assert json.loads(done.stdout)["args"] == {"queries": str(tmp_path / "queries.csv")}
    assert stand.answer(*command, "--detach")["args"] == {"queries": str(tmp_path / "queries.csv")}


@pytest.mark.parametrize("name", ["report.html", "evaluation.json"])
def test_a_report_of_an_evaluation_is_written_here(
    here: Callable[..., Result], config: Path, tmp_path: Path, name: str
) -> None:
    contents = {"report.html": b"<html>", "evaluation.json": b"{}"}

    def work(context: JobContext, _args: Any) -> Any:
        return {"files": {each: context.catalog.reports.put(data) for each, data in contents.items()}}

    end = ("--config", str(config), "--json")
    job = json.loads(here(work, "evaluate", *end).stdout)
    file = tmp_path / name
    written = here(work, "jobs", "report", job["job_id"], str(file), *end)
    assert json.loads(written.stdout) == {"file": str(file), "bytes": len(contents[name])}
    assert file.read_bytes() == contents[name]


def test_a_mistake_here_is_one_sentence_and_an_exit_code(config: Path, tmp_path: Path) -> None:
    wrong = local("import", str(tmp_path), "--max-delete-percent", "200", "--config", str(config))
    assert (wrong.returncode, wrong.stdout) == (Exit.USAGE, "")
    assert wrong.stderr.startswith("max_delete_percent: ")
    config.write_text("applications: []")
    unusable = local("import", str(tmp_path), "--config", str(config))
    assert (unusable.returncode, len(unusable.stderr.splitlines())) == (Exit.MISCONFIGURED, 1)
