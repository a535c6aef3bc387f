"""`vitrine` against the HTTP API over a real connection: what it prints, and its exit codes."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from core.errors import ConfigError, Conflict, InvalidInput, NotFound, Unavailable, VitrineError
from core.jobs import Progress
from jobs.runner import start
from jobs.runner.context import JobContext
from tests.support.catalog_fixtures import encoder
from tests.support.children import Child
from tests.support.documented_service import image
from tests.support.vitrine_stand import COLORS, Stand
from vitrine.cli.main import app as commands
from vitrine.cli.service import Exit

UNUSED = "http://127.0.0.1:9"
VITRINE = (sys.executable, "-m", "vitrine.cli.main")


def test_products_are_put_listed_shown_and_deleted(stand: Stand, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.png" for name in COLORS}
    for name, file in files.items():
        file.write_bytes(image(COLORS[name]))
        described = ("--title", f"{name} shirt", "--attributes", json.dumps({"color": name}))
        assert stand.answer("products", "put", name, str(file), *described)["created"] is True
    assert [each["product_id"] for each in stand.answer("products", "list")] == ["blue", "green", "red"]
    assert [each["product_id"] for each in stand.answer("products", "list", "--limit", "1")] == ["blue"]
    assert "green shirt" in stand.run("products", "list").stdout
    product = stand.answer("products", "get", "red")
    assert product["attributes"] == {"color": "red"}
    file, image_id = tmp_path / "written", product["images"][0]["image_id"]
    stand.answer("products", "image", image_id, str(file))
    assert file.read_bytes() == files["red"].read_bytes()
    stand.answer("products", "image", image_id, str(file), "--thumbnail", "small")
    assert file.read_bytes()[8:12] == b"WEBP"
    (color,) = stand.answer("products", "attributes")["attributes"]
    assert (color["name"], color["products"]) == ("color", 3)
    assert "green (1)" in stand.run("products", "attributes").stdout
    assert stand.answer("products", "delete", "red", "blue") == {"deleted": ["red", "blue"]}
    assert stand.run("products", "get", "red").exit_code == Exit.NOT_FOUND


@pytest.mark.usefixtures("stocked")
def test_images_texts_and_products_find_products(stand: Stand, tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    for limit, found, query in (
        (2, "red", (file, "--model", "first", "--box", "0,0,1,1")),
        (1, "green", ("green shirt", "--keyword-weight", "1", "--filter", '{"color": "green"}')),
        (1, "green", ("--like", "red", "--unlike", "blue")),
        (1, "green", ("limegreen", "--model", "first", "--rerank", "second", "--rerank-depth", "3")),
    ):
        results = stand.answer("search", *query, "--limit", str(limit))["results"]
        assert (len(results), results[0]["product_id"]) == (limit, found)
    assert "red shirt" in stand.run("search", file, "--no-thumbnails").stdout
    assert "▀" in stand.run("search", file, "--thumbnails", "--limit", "1").stdout


@pytest.mark.usefixtures("stocked")
def test_models_are_compared_side_by_side(stand: Stand, tmp_path: Path) -> None:
    query = ("compare", str(tmp_path / "red.png"), "--model", "first", "--model", "ensemble", "--limit", "2")
    assert [found["results"][0]["product_id"] for found in stand.answer(*query)["lists"]] == ["red", "red"]
    shown = stand.run(*query).stdout
    assert "red (1)" in shown
    assert "first and ensemble" in shown
    assert stand.run("compare").exit_code == Exit.USAGE


@pytest.mark.usefixtures("stocked")
def test_the_state_of_the_service_is_shown(stand: Stand) -> None:
    assert [each["model"] for each in stand.answer("models")] == ["first", "second"]
    assert stand.answer("models", "first")[0]["counts"]["indexed"] == 3
    assert stand.answer("stats")["images"] == 3
    assert stand.answer("ready")["ready"] is True
    for command in (("models",), ("models", "first"), ("stats",), ("ready",)):
        assert stand.run(*command).exit_code == 0
    stand.encoders["first"].away = True
    away = stand.run("ready", "--json")
    assert (away.exit_code, json.loads(away.stdout)["ready"]) == (Exit.TRY_LATER, False)
    assert stand.run("models").exit_code == 0


@pytest.mark.usefixtures("stocked")
def test_the_gaps_of_a_version_are_listed(stand: Stand, tmp_path: Path) -> None:
    assert stand.answer("gaps", "first")["missing"] == []
    fingerprint = stand.answer("models", "first")[0]["fingerprint"]
    stand.encoders["first"].away = True
    stand.answer("products", "put", "late", str(tmp_path / "red.png"))
    assert stand.run("gaps", "first").exit_code == Exit.TRY_LATER
    gaps = stand.answer("gaps", "first", "--fingerprint", fingerprint)
    assert [each["product_id"] for each in gaps["missing"]] == ["late"]
    assert "late" in stand.run("gaps", "first", "--fingerprint", fingerprint).stdout
    assert stand.run("gaps", "none").exit_code == Exit.NOT_FOUND


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


@pytest.mark.usefixtures("stocked")
def test_one_input_that_cannot_be_embedded_costs_the_others_nothing(stand: Stand, tmp_path: Path) -> None:
    red, broken = str(tmp_path / "red.png"), tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    embedded = stand.answer("embed", "first", red, "a red shirt", red)["embeddings"]
    assert [each["input"] for each in embedded] == [red, "a red shirt", red]
    assert embedded[0]["embedding"] == embedded[2]["embedding"] != embedded[1]["embedding"]
    assert sum(number**2 for number in embedded[1]["embedding"]) == pytest.approx(1, abs=1e-5)
    partly = stand.run("embed", "first", red, str(broken), "--json")
    answers = json.loads(partly.stdout)["embeddings"]
    assert (partly.exit_code, ["error" in each for each in answers]) == (Exit.USAGE, [False, True])
    assert "+" in stand.run("embed", "first", red).stdout
    alone = stand.run("embed", "first", str(broken))
    assert (alone.exit_code, alone.stdout) == (Exit.USAGE, "")


@pytest.mark.usefixtures("stocked")
def test_a_model_with_captions_writes_them(stand: Stand, tmp_path: Path) -> None:
    file = str(tmp_path / "red.png")
    (caption,) = stand.answer("caption", file)
    assert caption["caption"] in stand.run("caption", file, "--model", "first").stdout
    assert stand.run("caption", file, "--model", "second").exit_code == Exit.USAGE


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


TABLE = {"source": {"kind": "manifest", "path": "/shop.csv", "delimiter": ";"}, "delete_missing": True}
CANDIDATE = {"model": "first", "checkpoint": "other", "apply": False, "force": "a test"}


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (("evaluate", *VERBS["evaluate"]), {"model": "first", "pooling": "mean", "sample": 20}),
        (("import", "/shop.csv", "--options", '{"delimiter": ";"}', "--delete-missing"), TABLE),
        (("import", "/shop.csv.gz", "--dry-run"), {"dry_run": True}),
        (("promote", *VERBS["promote"], "--force", "a test"), CANDIDATE),
        (("adopt", "--yes", "--keep-index"), {"keep_index": True}),
    ],
)
def test_arguments_arrive_as_they_are_meant(stand: Stand, command: tuple[str, ...], args: Any) -> None:
    assert stand.answer(*command, "--detach")["args"].items() >= args.items()


REFUSED = {"quality_gate": {"passed": False}}


@pytest.mark.parametrize(
    ("verb", "end", "code"),
    [
        ("build", {"state": "failed", "error": "the disk is full"}, Exit.FAILED),
        ("build", {"state": "canceled"}, Exit.FAILED),
        ("promote", {"state": "failed", "error": "no", "result": REFUSED}, Exit.REFUSED),
        ("promote", {"result": {"quality_gate": {"passed": None}}}, Exit.OK),
        ("evaluate", {"result": REFUSED}, Exit.REFUSED),
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
    for options, would, kind in (
        (("--model", "first"), {"would_drop": ["first_0"]}, "prune"),
        (("--files",), {"would_remove": 3}, "prune_files"),
    ):
        stand.meanwhile({"result": would})
        assert stand.run("prune", *options, input="n\n").exit_code == Exit.FAILED
        (job,) = stand.jobs.page(1)
        assert (job.kind, job.args["dry_run"]) == (kind, True)
        assert stand.run("prune", *options, "--detach").exit_code == Exit.USAGE
    stand.meanwhile({"result": {"removed": 3}})
    assert stand.answer("prune", "--files", "--yes")["result"] == {"removed": 3}
    stand.meanwhile({"result": {"would_remove": 0}})
    assert stand.answer("prune", "--files", "--dry-run")["args"] == {"dry_run": True}
    for wrong in ((), ("--files", "--model", "first")):
        assert stand.run("prune", *wrong, "--yes").exit_code == Exit.USAGE


def test_another_milvus_is_adopted_only_by_who_confirms_it(stand: Stand) -> None:
    assert stand.run("adopt", input="n\n").exit_code == Exit.FAILED
    assert stand.run("adopt", "--detach").exit_code == Exit.USAGE
    assert stand.jobs.page(5) == []


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
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.stderr.strip()
    assert "Traceback" not in result.output


def test_a_service_that_is_not_there_is_one_sentence() -> None:
    result = CliRunner().invoke(commands, ["stats"], env={"VITRINE_URL": UNUSED})
    assert result.exit_code == Exit.TRY_LATER
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith(f"the service at {UNUSED}")
    assert CliRunner().invoke(commands, ["stats", "--url", "nowhere"]).exit_code == Exit.USAGE


def _obey_ctrl_c() -> None:
    """As at a terminal: what a script starts in the background inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("options", "state"), [([], "queued"), (["--cancel-on-interrupt"], "canceled")])
def test_ctrl_c_leaves_the_job_alone_or_cancels_it(stand: Stand, options: list[str], state: str) -> None:
    command = [*VITRINE, "build", "--model", "first", "--url", stand.url, *options]
    with Child("build", command, preexec_fn=_obey_ctrl_c) as process:
        assert stand.looked_at.wait(60)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    (job,) = stand.jobs.page(1)
    assert (process.returncode, job.state) == (Exit.INTERRUPTED, state)
    (sentence,) = process.output().strip().splitlines()
    assert job.job_id in sentence


def test_a_terminal_shows_how_far_a_job_is(stand: Stand) -> None:
    leader, terminal = pty.openpty()
    command = [*VITRINE, "build", "--model", "first", "--url", stand.url]
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


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A Serve configuration whose service does not run."""
    catalog = {"database_url": f"sqlite:///{tmp_path}/shop.sqlite", "blobs_url": str(tmp_path / "blobs")}
    gateway = {"catalog": catalog, "milvus": {"uri": UNUSED}}
    applications = [{"name": "gateway", "import_path": "deployments.app:build_gateway", "args": gateway}]
    file = tmp_path / "serve_config.yaml"
    file.write_text(json.dumps({"applications": applications}))
    return str(file)


def local(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VITRINE, *arguments, "--local"], capture_output=True, text=True, check=False)


def test_a_job_runs_here_without_the_service(config: str, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(image(COLORS["red"]))
    table = tmp_path / "shop.csv"
    table.write_text("product_id,title,images\nred,Red shirt,red.png\nbroken,Broken shirt,nowhere.png\n")
    here = ("--config", config)
    done = local("import", str(table), *here, "--json")
    assert done.returncode == Exit.OK, done.stderr
    job = json.loads(done.stdout)
    assert (job["kind"], job["state"]) == ("import", "succeeded")
    assert (job["result"]["created"], job["result"]["failed"]) == (1, 1)
    assert f"job {job['job_id']} begins" in done.stderr
    broken = local("jobs", "errors", job["job_id"], *here, "--json")
    assert [each["product_id"] for each in json.loads(broken.stdout)] == ["broken"]
    page = str(tmp_path / "page.html")
    assert local("jobs", "report", job["job_id"], page, *here).returncode == Exit.NOT_FOUND
    planned = local("prune", "--files", "--dry-run", *here)
    assert planned.returncode == Exit.OK, planned.stderr
    assert "would_remove" in planned.stdout


Here = Callable[..., Result]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, config: str) -> Here:
    """Runs a command in this process, whose job does `work` instead, without Ray."""

    def run(work: Callable[[JobContext, Any], Any], *arguments: str) -> Result:
        monkeypatch.setattr(start, "work_of", lambda _kind: work)
        return CliRunner().invoke(commands, [*arguments, "--local", "--config", config, "--json"])

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
    here: Here, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    failed = here(fails(error), "build", "--model", "first")
    job = json.loads(failed.stdout)
    ours = isinstance(error, VitrineError)
    assert (failed.exit_code, job["state"]) == (Exit.FAILED, "failed")
    assert job["error"] == (str(error) if ours else type(error).__name__)
    assert f"job {job['job_id']} has failed: {job['error']}" in failed.stderr
    assert "None" not in failed.stderr
    # An error that is not ours leaves its traceback.
    assert ("Traceback" in caplog.text) is not ours


def test_a_promotion_that_the_quality_gate_refuses_here_prints_its_figures(here: Here) -> None:
    gate = {"passed": False, "reason": "refused: map goes from 0.9 to 0.5"}
    work = fails(Conflict("the quality gate refuses"), {"quality_gate": gate})
    refused = here(work, "promote", "--model", "first")
    assert (refused.exit_code, json.loads(refused.stdout)["result"]) == (Exit.REFUSED, {"quality_gate": gate})


def test_a_job_that_is_canceled_here_ends_as_one_of_the_service(here: Here) -> None:
    def work(context: JobContext, _args: Any) -> Any:
        context.catalog.jobs.cancel(context.run.job.job_id)
        raise Conflict("canceled or replaced")

    canceled = here(work, "adopt", "--yes")
    assert canceled.exit_code == Exit.FAILED
    assert "was canceled" in canceled.stderr


def test_a_file_of_queries_is_that_of_the_callers_folder(
    stand: Stand, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queries.csv").write_text("text,product_id\n")
    monkeypatch.chdir(tmp_path)
    command = ("evaluate", "--queries", "queries.csv")
    for job in (json.loads(here(lambda *_: {}, *command).stdout), stand.answer(*command, "--detach")):
        assert job["args"] == {"queries": str(tmp_path / "queries.csv")}


def test_a_report_of_an_evaluation_is_written_here(here: Here, tmp_path: Path) -> None:
    contents = {"report.html": b"<html>", "evaluation.json": b"{}"}

    def work(context: JobContext, _args: Any) -> Any:
        return {"files": {each: context.catalog.reports.put(data) for each, data in contents.items()}}

    job = json.loads(here(work, "evaluate").stdout)
    for name, content in contents.items():
        file = tmp_path / name
        written = here(work, "jobs", "report", job["job_id"], str(file))
        assert json.loads(written.stdout) == {"file": str(file), "bytes": len(content)}
        assert file.read_bytes() == content


def test_a_mistake_here_is_one_sentence_and_an_exit_code(config: str, tmp_path: Path) -> None:
    wrong = local("import", str(tmp_path), "--max-delete-percent", "200", "--config", config)
    assert (wrong.returncode, wrong.stdout) == (Exit.USAGE, "")
    assert wrong.stderr.startswith("max_delete_percent: ")
    Path(config).write_text("applications: []")
    unusable = local("import", str(tmp_path), "--config", config)
    assert (unusable.returncode, len(unusable.stderr.splitlines())) == (Exit.MISCONFIGURED, 1)
