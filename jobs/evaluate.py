"""The job that compares models and ensembles."""

from typing import Any

from rich.console import Console

from catalog.sources.folder_paths import check_opened
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
    if not context.at_shell:
        check_opened(args, context.settings.imports.folders)
    result = evaluate(context, args)
    console = Console(stderr=True)
    (console if console.is_terminal else Console(stderr=True, width=_WIDTH)).print(tables(result))
    context.run.report(stage="writing the report")
    return result.summary() | store_files(result, context.catalog, context.settings.images)
