"""Commands `jobs …`, and following a job to its end with a progress bar."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitrine.cli.output import console, evaluation, facts, table
from vitrine.cli.service import Exit, Output, Service, asks

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

    from catalog.opening import Catalog
    from vitrine.client import Vitrine
    from vitrine.schemas.operations import Job


POLL_S = 1.0
job_option = partial(typer.Option, rich_help_panel="Job")
CancelOnInterrupt = Annotated[
    bool,
    job_option(
        "--cancel-on-interrupt",
        help="Let Ctrl-C cancel the job; otherwise Ctrl-C stops following, and the job continues.",
    ),
]


@dataclass(frozen=True, slots=True)
class Local(Service):
    """Choice between the service and this process, which then needs the database and Milvus itself."""

    local: Annotated[bool, job_option("--local", help="Work in this process, without the service.")] = False
    config: Annotated[
        Path | None,
        job_option(
            exists=True, dir_okay=False, help="Serve configuration, with --local; default: the running one."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.config is not None and not self.local:
            raise typer.BadParameter("goes with --local", param_hint="--config")

    @contextmanager
    def catalog(self) -> "Iterator[Catalog]":
        """Open the catalog of the configuration."""
        from jobs.runner.start import opened

        with opened(self.config) as (_, catalog):
            yield catalog


@dataclass(frozen=True, slots=True)
class JobOptions(Local):
    """Place of a job, and how a command follows it."""

    address: Annotated[
        str | None,
        job_option(
            help="Ray cluster, with --local; default: that of RAY_ADDRESS, else a new one; for promote, "
            "rollback and prune the one on this machine."
        ),
    ] = None
    detach: Annotated[bool, job_option("--detach", help="Submit the job and print its id.")] = False
    cancel_on_interrupt: CancelOnInterrupt = False

    def __post_init__(self) -> None:
        Local.__post_init__(self)
        if self.address is not None and not self.local:
            raise typer.BadParameter("goes with --local", param_hint="--address")
        if self.detach and self.local:
            raise typer.BadParameter("a job of this process ends with it", param_hint="--detach")

    def do(self, kind: str, **args: Any) -> "Job":
        """Submit a job and follow it, or run it here, and print its result; arguments of None are left out.

        Raises:
            typer.Exit: it has not succeeded.
        """
        given = {name: value for name, value in args.items() if value is not None}
        if self.local:
            job = self._run_here(kind, given)
        else:
            with self.client() as client:
                job = client.jobs.submit(kind, **given)
                if self.detach:
                    self.show(job, lambda: job.job_id)
                    return job
                job = follow(client, job.job_id, self.cancel_on_interrupt)
        show_end(self, job)
        return job

    def _run_here(self, kind: str, args: dict[str, Any]) -> "Job":
        from jobs.runner.start import prepare_process, run_here
        from vitrine.schemas.operations import Job

        prepare_process()
        try:
            job = run_here(kind, args, self.config, self.address)
        except KeyboardInterrupt:
            typer.echo("interrupted; what is done stays done", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
        return Job.model_validate(job, from_attributes=True)

    def require_person(self) -> None:
        """Refuse to ask a question that nobody can answer.

        Raises:
            typer.BadParameter: the output is for a script.
        """
        if self.detach or self.as_json:
            raise typer.BadParameter("give --yes: nobody can be asked", param_hint="--yes")


def follow(client: "Vitrine", job_id: str, cancel_on_interrupt: bool) -> "Job":
    """Draw a job's progress until it has ended.

    Raises:
        typer.Exit: Ctrl-C was pressed.
    """
    job: Job | None = None
    try:
        with progress_bar() as bar:
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


def show_end(output: Output, job: "Job") -> None:
    """Print the result of a job.

    Raises:
        typer.Exit: it has not succeeded, or its result is a refusal.
    """
    if job.state == "succeeded" or output.as_json:
        output.show(job, lambda: _drawn(job))
    if job.state != "succeeded":
        why = job.error or _WHY.get(job.state, "")
        typer.echo(f"job {job.job_id} {_ENDED.get(job.state, job.state)}{why and ': '}{why}", err=True)
    code = exit_of_job(job)
    if code is not Exit.OK:
        raise typer.Exit(code)


def _drawn(job: "Job") -> "RenderableType":
    result = dict(job.result or {})
    if isinstance(gate := result.get("quality_gate"), dict):
        result["quality_gate"] = gate.get("reason")
    if "figures" in result:
        return evaluation(job.job_id, result)
    return facts({"job": job.job_id, **result})


def exit_of_job(job: "Job") -> Exit:
    """Choose the exit code of a job that has ended; the quality gate or a verification may refuse."""
    result = job.result or {}
    gate = result.get("quality_gate")
    if isinstance(gate, dict) and gate.get("passed") is False:
        return Exit.REFUSED
    if job.state == "interrupted":
        return Exit.TRY_LATER
    if job.state != "succeeded":
        return Exit.FAILED
    return Exit.REFUSED if result.get("agrees") is False else Exit.OK


_ENDED = {"failed": "has failed", "canceled": "was canceled", "interrupted": "was interrupted"}
_WHY = {"interrupted": "its process died; the same command again goes on where it was"}


def progress_bar() -> "Progress":
    """Make a bar on standard error; its tasks have a field `pace`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    done = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # What is no terminal gets no bar, so that logs of scripts stay readable.
    errors = console(stderr=True)
    columns = (SpinnerColumn(), "{task.description}", *done, "{task.fields[pace]}")
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


app = typer.Typer(no_args_is_help=True, help="List, follow and cancel jobs.")
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("list")
@asks
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to list.")] = 20, *, service: Service
) -> None:
    """List the latest jobs, newest first."""
    with service.client() as client:
        jobs = client.jobs.list(limit)
    rows = [(each.job_id, each.state, _share(each), each.progress.stage, each.created_at) for each in jobs]
    service.show(jobs, lambda: table(("job", "state", "done", "stage", "submitted"), rows))


@app.command()
@asks
def show(job_id: JobId, *, service: Service) -> None:
    """Show the progress of a job, or its result."""
    with service.client() as client:
        job = client.jobs.get(job_id)
    service.show(job, lambda: facts({**dict(job), "progress": dict(job.progress)}))


@app.command()
@asks
def logs(
    job_id: JobId,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="Number of lines from the end.")] = 200,
    *,
    service: Service,
) -> None:
    """Print the log of a job."""
    with service.client() as client:
        text = client.jobs.logs(job_id, lines)
    if service.as_json:
        service.show({"job_id": job_id, "lines": text.splitlines()}, str)
    else:
        typer.echo(text, nl=False)


@app.command()
@asks
def wait(job_id: JobId, cancel_on_interrupt: CancelOnInterrupt = False, *, service: Service) -> None:
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
    service: Local,
) -> None:
    """List the broken rows of an import, with the reason."""
    if service.local:
        with service.catalog() as catalog:
            broken: Sequence[Any] = catalog.imports.errors(job_id, limit or sys.maxsize, 0)
    else:
        with service.client() as client:
            broken = list(islice(client.jobs.errors(job_id, min(limit, 1000) or 1000), limit or None))
    rows = [(each.row, each.product_id, each.error) for each in broken]
    service.show(broken, lambda: table(("row", "product", "error"), rows))


@app.command()
@asks
def report(
    job_id: JobId,
    file: Annotated[
        Path,
        typer.Argument(
            dir_okay=False,
            help="Where to write the page, in HTML; with --local a name in .json gets the values by query.",
        ),
    ],
    *,
    service: Local,
) -> None:
    """Write the report of an evaluation, with images where the models differ most."""
    if service.local:
        with service.catalog() as catalog:
            content = _report_file(catalog, job_id, file)
    else:
        with service.client() as client:
            content = client.jobs.report(job_id)
    file.write_bytes(content)
    service.show({"file": str(file), "bytes": len(content)}, lambda: str(file))


def _report_file(catalog: "Catalog", job_id: str, file: Path) -> bytes:
    from core.errors import NotFound

    files = (catalog.jobs.get(job_id).result or {}).get("files")
    if not files:
        raise NotFound(f"job {job_id} has written no report")
    return catalog.reports.get(files["evaluation.json" if file.suffix == ".json" else "report.html"])


def _share(job: "Job") -> str:
    return f"{job.progress.done:,} of {job.progress.total:,}" if job.progress.total else ""
