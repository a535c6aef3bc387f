"""A job server that does not answer holds no thread of the gateway for ever."""

import socket

import pytest

from core.errors import Unavailable
from deployments.ray_jobs import RayJobs


def test_a_job_server_that_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        jobs = RayJobs(f"http://127.0.0.1:{server.getsockname()[1]}", answer_s=0.1)
        for call in (jobs.start, jobs.stop, jobs.logs):
            with pytest.raises(Unavailable, match="Ray does not take jobs now"):
                call("build-1")
