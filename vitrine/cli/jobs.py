"""Commands `jobs …`, and following a job to its end with a progress bar."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrine.cli.output import console
from vitrine.cli.service import Exit, OptionGroup, Service, asks

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

    from vitrine.client import Vitrine
    from vitrine.schemas.operations import Job


_PANEL = "Job"
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Waiting(OptionGroup):
    """What becomes of a command while its job is at work."""

    detach: Annotated[
        bool, typer.Option("--detach", help="Submit the job and print its id.", rich_help_panel=_PANEL)
    ] = False
    cancel_on_interrupt: Annotated[
        bool,
        typer.Option(
            "--cancel-on-interrupt",
            help="Let Ctrl-C cancel the job; without it Ctrl-C only stops following, and the job goes on.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def do(self, service: Service, kind: str, **args: Any) -> "Job":
        """Submit a job, follow it, and print what it came to; arguments that are None are left out.

        Raises:
            typer.Exit: it has not succeeded.
        """
        with service.client() as client:
            given = {name: value for name, value in args.items() if value is not None}
            job = client.jobs.submit(kind, **given)
            if self.detach:
                service.show(job, lambda: job.job_id)
                return job
            job = follow(client, job.job_id, self.cancel_on_interrupt)
        show_end(service, job)
        return job


def follow(client: "Vitrine", job_id: str, cancel_on_interrupt: bool) -> "Job":
    """Draw a job's progress until it has ended.

    Raises:
        typer.Exit: Ctrl-C was pressed.
    """
    job: Job | None = None
    try:
        with _bar() as bar:
            task = bar.add_task(job_id, total=None, pace="")
            for job in client.jobs.follow(job_id, POLL_S):
                _draw(bar, task, job)
    except KeyboardInterrupt:
        if not cancel_on_interrupt:
            hint = f"job {job_id} goes on: `vitrine jobs wait {job_id}` follows it, `cancel` in its place ends it"
            typer.echo(hint, err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
        client.jobs.cancel(job_id)
        typer.echo(f"job {job_id} is canceled; what it has done stays done", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    assert job is not None
    return job


def show_end(service: Service, job: "Job") -> None:
    """Print what a job came to.

    Raises:
        typer.Exit: it has not succeeded, or what it says refuses to go on.
    """
    if job.state == "succeeded" or service.as_json:
        service.show(job, lambda: _drawn(job))
    if job.state != "succeeded":
        why = job.error or _WHY.get(job.state, "")
        typer.echo(f"job {job.job_id} {_SAID.get(job.state, job.state)}{why and ': '}{why}", err=True)
    code = exit_of_job(job)
    if code is not Exit.OK:
        raise typer.Exit(code)


def _drawn(job: "Job") -> "RenderableType":
    from vitrine.cli.output import evaluation, facts

    result = job.result or {}
    if "figures" in result:
        return evaluation(job.job_id, result)
    return facts({"job": job.job_id, **result})


def exit_of_job(job: "Job") -> Exit:
    """Choose the exit code of a job that has ended; a gate or a verification may refuse what succeeded."""
    result = job.result or {}
    gate = result.get("gate")
    if isinstance(gate, dict) and gate.get("passed") is False:
        return Exit.REFUSED
    if job.state == "interrupted":
        return Exit.TRY_LATER
    if job.state != "succeeded":
        return Exit.FAILED
    return Exit.REFUSED if result.get("agrees") is False else Exit.OK


_SAID = {"failed": "has failed", "canceled": "was canceled", "interrupted": "was interrupted"}
_WHY = {"interrupted": "its process died; the same command again goes on where it was"}


def _bar() -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    # What is no terminal gets no bar, so that logs of scripts stay readable.
    errors = console(stderr=True)
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


def _draw(bar: "Progress", task: Any, job: "Job") -> None:
    progress = job.progress
    pace = [f"{progress.failed:,} failed"] if progress.failed else []
    pace += [f"{progress.images_per_s:.1f}/s"] if progress.images_per_s else []
    pace += [f"{progress.eta_s:,.0f} s left"] if progress.eta_s else []
    bar.update(
        task,
        description=f"{job.kind}: {progress.stage or job.state}",
        total=progress.total or None,
        completed=progress.done,
        pace=", ".join(pace),
    )


app = typer.Typer(no_args_is_help=True, help="Look at bulk work, follow it, cancel it.")
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("list")
@asks
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to list.")] = 20, *, service: Service
) -> None:
    """List the latest jobs, newest first."""
    from vitrine.cli.output import table

    with service.client() as client:
        jobs = client.jobs.list(limit)
    rows = [(each.job_id, each.state, _share(each), each.progress.stage, each.created_at) for each in jobs]
    service.show(jobs, lambda: table(("job", "state", "done", "stage", "submitted"), rows))


@app.command()
@asks
def show(job_id: JobId, *, service: Service) -> None:
    """Say how far a job is, or what it came to."""
    from vitrine.cli.output import facts

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
    service.show(job, lambda: f"canceled {job.job_id}")


@app.command()
@asks
def errors(
    job_id: JobId,
    limit: Annotated[int, typer.Option(min=0, help="Rows to list; 0: all.")] = 100,
    *,
    service: Service,
) -> None:
    """List the rows of an import that were broken, and why."""
    from vitrine.cli.output import table

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
    """Write the report of an evaluation, with images where the models differ most."""
    with service.client() as client:
        page = client.jobs.report(job_id)
    file.write_bytes(page)
    service.show({"file": str(file), "bytes": len(page)}, lambda: str(file))


def _share(job: "Job") -> str:
    return f"{job.progress.done:,} of {job.progress.total:,}" if job.progress.total else ""
