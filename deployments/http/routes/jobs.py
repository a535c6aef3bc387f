"""Routes of jobs: submit, list, progress, logs, report, cancel."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from core import jobs
from core.errors import NotFound
from deployments.http.auth import ADMIN, READ
from deployments.http.errors import WITH_BODY, WITH_KEY, fails
from deployments.http.requests import BodyRoute, services
from vitrine.schemas.operations import Job, RowError, SubmitJobRequest

_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

router = APIRouter(prefix="/v1", tags=["jobs"], responses=fails(*WITH_KEY), route_class=BodyRoute)


def _text(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}}


@router.post(
    "/jobs",
    summary="Submit a job",
    status_code=202,
    dependencies=[ADMIN],
    responses=fails(*WITH_BODY, 404, 409),
)
async def submit(body: SubmitJobRequest, request: Request, response: Response) -> Job:
    """Start bulk work on the cluster; an equal job that is at work is refused with its id (409)."""
    job = await services(request).jobs.submit(body.kind, body.args)
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return _job(job)


@router.get("/jobs", summary="List jobs", dependencies=[READ])
async def list_jobs(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Job]:
    """List the latest jobs, newest first, those started from a shell too."""
    return [_job(job) for job in await services(request).jobs.page(limit)]


@router.get("/jobs/{job_id}", summary="Progress of a job", dependencies=[READ], responses=fails(404))
async def get_job(job_id: str, request: Request) -> Job:
    """Say how far a job is, or what it came to."""
    return _job(await services(request).jobs.get(job_id))


@router.get(
    "/jobs/{job_id}/logs",
    summary="Logs of a job",
    response_class=Response,
    dependencies=[ADMIN],
    responses=_text("text/plain", "The lines.") | fails(404),
)
async def get_logs(
    job_id: str, request: Request, lines: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> PlainTextResponse:
    """Return the last lines that the job's process has written, 4 MiB at most."""
    return PlainTextResponse(await services(request).jobs.logs(job_id, lines))


@router.get(
    "/jobs/{job_id}/report",
    summary="Report of a comparison of models",
    response_class=Response,
    dependencies=[READ],
    responses=_text("text/html", "The page.") | fails(404),
)
async def get_report(job_id: str, request: Request) -> HTMLResponse:
    """Return the page that an evaluation has written, with images; 404 for jobs that write none."""
    found = services(request)
    files = ((await found.jobs.get(job_id)).result or {}).get("files") or {}
    if "report.html" not in files:
        raise NotFound(f"job {job_id} has written no report; an evaluation that has succeeded does")
    page = await asyncio.to_thread(found.catalog.reports.get, files["report.html"])
    return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})


@router.get(
    "/jobs/{job_id}/errors", summary="Broken rows of an import", dependencies=[ADMIN], responses=fails(404)
)
async def get_errors(
    job_id: str,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> list[RowError]:
    """Say what was wrong with rows, those behind row `after`; kept until the source is imported from again."""
    found = services(request)
    await found.jobs.get(job_id)
    errors = await asyncio.to_thread(found.catalog.imports.errors, job_id, limit, after)
    return [RowError.model_validate(each, from_attributes=True) for each in errors]


@router.delete("/jobs/{job_id}", summary="Cancel a job", dependencies=[ADMIN], responses=fails(404, 409))
async def cancel(job_id: str, request: Request) -> Job:
    """Stop a job; what it has done stays done. A job that has ended is refused (409)."""
    return _job(await services(request).jobs.cancel(job_id))


def _job(job: jobs.Job) -> Job:
    return Job.model_validate(job, from_attributes=True)
