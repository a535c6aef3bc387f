"""The commands of bulk work: over the API, and in a process of their own."""

import typer

import cli.main
import jobs.__main__
from core.jobs import KINDS
from jobs.kinds import work_of


def commands(app: typer.Typer) -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_kind_of_job_is_a_command_of_both() -> None:
    # `prune --files` is the command of `prune_files`.
    wanted = {kind.partition("_")[0] for kind in KINDS}
    assert wanted <= commands(cli.main.app)
    assert wanted <= commands(jobs.__main__.app)


def test_every_kind_of_job_has_work_to_do() -> None:
    for kind in KINDS:
        assert callable(work_of(kind))
