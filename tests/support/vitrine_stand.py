"""A service with two encoders in this process, behind a real connection, and `vitrine` to call it with."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from typer.testing import CliRunner, Result

from core.jobs import Job, Progress
from deployments.services.jobs import BulkJobs
from models.config import CaptionConfig
from tests.support.documented_service import Cluster
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served
from vitrine.cli.main import app as commands

COLORS = {"red": "#c02020", "green": "#20c020", "blue": "#2020c0"}


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
    encoders: dict[str, LocalEncoder]
    looked_at: threading.Event
    """Somebody follows a job."""

    @property
    def jobs(self) -> Any:
        return self.app.state.services.catalog.jobs

    def run(self, *arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(commands, [*arguments, "--url", self.url], **options)

    def answer(self, *arguments: str) -> Any:
        """Return what a command prints as JSON."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def meanwhile(self, *ends: dict[str, Any]) -> None:
        """End jobs as they come, one after another."""

        def work() -> None:
            for end in ends:
                while not (queued := [job for job in self.jobs.page(10) if job.state == "queued"]):
                    time.sleep(0.01)
                self.jobs.begin(queued[0].job_id)
                self.jobs.beat(queued[0].job_id, Progress("indexing", 10, 4))
                state = end.get("state", "succeeded")
                progress = Progress("done", 10, 10, images_per_s=2.0, eta_s=1.0)
                self.jobs.finish(queued[0].job_id, state, progress, end.get("result"), end.get("error"))

        threading.Thread(target=work, daemon=True).start()


@contextmanager
def vitrine_stand(folder: Path) -> Iterator[Stand]:
    encoders = {"first": LocalEncoder("first", captions=CaptionConfig()), "second": LocalEncoder("second")}
    with local_service(folder, encoders) as app:
        services = app.state.services
        jobs = WatchedJobs(services.catalog, Cluster(), 5, models=list(encoders), folders=("/",))
        jobs.looked_at = threading.Event()
        app.state.services = replace(services, jobs=jobs)
        with served(app) as url:
            yield Stand(app, url, encoders, jobs.looked_at)
