"""The files that a comparison leaves: its report, and each query's values."""

import json
from pathlib import Path
from typing import Any

from catalog.opening import Catalog
from core.errors import NotFound, Unavailable
from jobs.evaluation.report import report
from jobs.evaluation.result import EvaluationResult
from models.images import ImageLimits


def store_files(result: EvaluationResult, catalog: Catalog, limits: ImageLimits) -> dict[str, Any]:
    """Keep the files where the service finds them; returns their sha256 by name, as `files`.

    Raises:
        Unavailable: the store of files does not take them.
    """
    contents = {
        "report.html": report(result, catalog, limits),
        "evaluation.json": json.dumps(result.full(), indent=1),
    }
    return {"files": {name: catalog.reports.put(text.encode()) for name, text in contents.items()}}


def copy_files(job_id: str, catalog: Catalog, folder: Path) -> list[Path]:
    """Write the files of an ended job into a folder.

    Raises:
        NotFound: there is no such job, or it has left no files.
        Unavailable: the folder cannot be written.
    """
    files = (catalog.jobs.get(job_id).result or {}).get("files")
    if not files:
        raise NotFound(f"job {job_id} has left no files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, sha256 in files.items():
            (folder / name).write_bytes(catalog.reports.get(sha256))
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {error.strerror}") from error
    return [folder / name for name in files]
