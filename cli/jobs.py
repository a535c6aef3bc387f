"""`vitrine jobs`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import Service, asks
from cli.following import follow, show_end

if TYPE_CHECKING:
    from vitrine.operations import Job

app = typer.Typer(no_args_is_help=True, help="Look at bulk work, follow it, cancel it.")
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("list")
@asks
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to list.")] = 20, *, service: Service
) -> None:
    """List the latest jobs, newest first."""
    from cli.tables import table

    with service.client() as client:
        jobs = client.jobs.list(limit)
    rows = [(each.job_id, each.state, _share(each), each.progress.stage, each.created_at) for each in jobs]
    service.show(jobs, lambda: table(("job", "state", "done", "stage", "submitted"), rows))


@app.command()
@asks
def show(job_id: JobId, *, service: Service) -> None:
    """Say how far a job is, or what it came to."""
    from cli.tables import facts

    with service.client() as client:
        job = client.jobs.get(job_id)
    service.show(job, lambda: facts({**dict(job), "progress": dict(job.progress)}))


@app.command()
@asks
def logs(
    job_id: JobId,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="Lines to print, the last ones.")] = 200,
    *,
    service: Service,
) -> None:
    """Print what a job's process has written."""
    with service.client() as client:
        text = client.jobs.logs(job_id, lines)
    if service.as_json:
        service.show({"job_id": job_id, "lines": text.splitlines()}, str)
    else:
        typer.echo(text, nl=False)


@app.command()
@asks
def wait(
    job_id: JobId,
    cancel_on_interrupt: Annotated[
        bool,
        typer.Option("--cancel-on-interrupt", help="Let Ctrl-C cancel the job, not only stop following."),
    ] = False,
    *,
    service: Service,
) -> None:
    """Follow a job to its end; the exit code is that of the command that submitted it."""
    with service.client() as client:
        job = follow(client, job_id, cancel_on_interrupt)
    show_end(service, job)


@app.command()
@asks
def cancel(job_id: JobId, *, service: Service) -> None:
    """Stop a job; what it has done stays done."""
    with service.client() as client:
        job = client.jobs.cancel(job_id)
    service.show(job, lambda: f"cancelled {job.job_id}")


@app.command()
@asks
def errors(
    job_id: JobId,
    limit: Annotated[int, typer.Option(min=0, help="Rows to list; 0: all.")] = 100,
    *,
    service: Service,
) -> None:
    """List the rows of an import that were broken, and why."""
    from cli.tables import table

    with service.client() as client:
        broken = list(islice(client.jobs.errors(job_id, min(limit, 1000) or 1000), limit or None))
    rows = [(each.row, each.product_id, each.error) for each in broken]
    service.show(broken, lambda: table(("row", "product", "error"), rows))


@app.command()
@asks
def report(
    job_id: JobId,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the page, in HTML.")],
    *,
    service: Service,
) -> None:
    """Write the report of an evaluation, with pictures where the models differ most."""
    with service.client() as client:
        page = client.jobs.report(job_id)
    file.write_bytes(page)
    service.show({"file": str(file), "bytes": len(page)}, lambda: str(file))


def _share(job: "Job") -> str:
    return f"{job.progress.done:,} of {job.progress.total:,}" if job.progress.total else ""
