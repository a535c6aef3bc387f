"""What every kind of job works with."""

from dataclasses import dataclass

from catalog.opening import Catalog
from jobs.run import JobRun
from jobs.settings import Settings


@dataclass(frozen=True, slots=True)
class JobContext:
    """The hold on the job, the configuration, and the open catalog; Ray is connected where the kind needs it.

    `at_shell`: who asked has a shell on this machine, and may read what this process may.
    """

    run: JobRun
    settings: Settings
    catalog: Catalog
    at_shell: bool = False
