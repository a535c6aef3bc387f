"""Lines of a job hold its id and that of the request, as text or as JSON."""

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from core.errors import Conflict
from core.telemetry import answering, current_request_id
from jobs.runner.start import logging_for, start_log


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    start_log()
    yield stream
    root.setLevel(level)


def test_lines_hold_the_id_of_the_request_from_every_thread(written: io.StringIO) -> None:
    with answering("shop-17"), logging_for("build-1", "TEXT"):
        thread = threading.Thread(
            target=logging.getLogger("jobs.runner.context").warning, args=("no sign of life",)
        )
        thread.start()
        thread.join()
    logging.getLogger("jobs.runner.context").info("after the job")
    begins, first, ends, second = written.getvalue().splitlines()
    assert begins.endswith("jobs.runner.start INFO shop-17 job build-1 begins")
    assert "job build-1 ends after" in ends
    assert first.endswith("jobs.runner.context WARNING shop-17 no sign of life")
    assert second.endswith("jobs.runner.context INFO - after the job")


def test_lines_are_json_where_the_service_writes_json(written: io.StringIO) -> None:
    with answering("shop-17"), logging_for("build-1", "JSON"):
        logging.getLogger("jobs").info("%d images", 64)
    _, line, end = (json.loads(line) for line in written.getvalue().splitlines())
    assert {key: line[key] for key in ("levelname", "message", "request_id", "job_id")} == {
        "levelname": "INFO",
        "message": "64 images",
        "request_id": "shop-17",
        "job_id": "build-1",
    }
    assert (end["status"], end["request_id"]) == ("ok", "shop-17")
    assert end["ms"] >= 0


def test_a_job_that_fails_says_so_at_its_end(written: io.StringIO) -> None:
    with pytest.raises(Conflict), logging_for("build-1", "TEXT"):
        raise Conflict("another builds it")
    assert written.getvalue().rstrip().endswith("s: Conflict")


def test_a_job_of_a_shell_goes_by_its_own_id(written: io.StringIO) -> None:
    with logging_for("build-1", "TEXT"):
        assert current_request_id() == "build-1"
    assert current_request_id() == ""
