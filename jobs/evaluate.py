"""The job that compares models and ensembles."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from catalog.sources.folder_paths import inside
from core.errors import InvalidInput
from core.jobs import EvaluateArgs, JobArgs
from jobs.context import JobContext
from jobs.evaluation.comparison import evaluate
from jobs.evaluation.files import store_files
from jobs.evaluation.table import tables

_WIDTH = 200
"""Columns of the tables where they are written to no terminal, as to a log."""


def evaluate_job(context: JobContext, args: JobArgs) -> dict[str, Any]:
    """Compare, show the tables, store the report; returns the figures and where the rest lies.

    Raises:
        VitrineError: as `evaluate`.
        InvalidInput: a caller of the API names a file that the configuration does not open to it.
    """
    assert isinstance(args, EvaluateArgs)
    if args.queries is not None and not context.at_shell:
        _check_opened(args.queries, context.settings.imports.folders)
    result = evaluate(context, args)
    console = Console(stderr=True)
    (console if console.is_terminal else Console(stderr=True, width=_WIDTH)).print(tables(result))
    context.run.report(stage="writing the report")
    return result.summary() | store_files(result, context.catalog)


def _check_opened(path: str, folders: Sequence[str]) -> None:
    # A whole path only: what fsspec knows leads to servers too, and a relative one to where this process is.
    if Path(path).is_absolute() and "::" not in path:
        for folder in folders:
            with suppress(InvalidInput):
                inside(Path(folder), path)
                return
    raise InvalidInput(
        "the configuration opens no folder that holds these queries to jobs of the API: add it to "
        "jobs.imports.folders, name the file as jobs.evaluation.queries, or evaluate from a shell"
    ).at("args.queries")
