"""What each kind of job does; `core.jobs.KINDS` holds their arguments under the same names."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from core.jobs import JobArgs
from jobs.context import JobContext

Work = Callable[[JobContext, JobArgs], dict[str, Any]]

_PLACES = {
    "build": "jobs.build:build",
    "sample": "jobs.build:sample",
    "evaluate": "jobs.evaluate:evaluate_job",
    "import": "jobs.importing:import_products",
    "plan": "jobs.upgrade.plan:plan",
    "promote": "jobs.upgrade.promote:promote",
    "rollback": "jobs.upgrade.promote:rollback",
    "prune": "jobs.upgrade.prune:prune",
    "prune_files": "jobs.upgrade.prune:prune_files",
    "verify": "jobs.verification.verify:verify",
    "adopt": "jobs.verification.verify:adopt",
}
"""Function of each kind; a job imports only what it runs."""

_WITHOUT_RAY = {"import", "prune_files", "adopt"}


def work_of(kind: str) -> Work:
    """Return the function that does this kind of job; its answer becomes the job's result."""
    module, _, name = _PLACES[kind].partition(":")
    work: Work = getattr(import_module(module), name)
    return work


def needs_ray(kind: str) -> bool:
    """Tell whether this kind of job spreads its work over a cluster; the others do it in their process."""
    return kind not in _WITHOUT_RAY
