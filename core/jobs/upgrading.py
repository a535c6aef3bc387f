"""What can be asked of the jobs that move a model to another version."""

from pydantic import Field

from core.jobs.arguments import JobArgs
from core.jobs.building import BuildArgs
from core.types import WholeNumber


class PlanArgs(BuildArgs):
    """Say what a candidate would change and cost; writes nothing."""

    percent: float = Field(2.0, gt=0, le=100, description="Share of the pictures to measure by, in percent.")


class PromoteArgs(BuildArgs):
    """Let a built candidate take over from the live version, without an hour of downtime."""

    force: str | None = Field(
        None, min_length=1, max_length=500, description="Why to promote it whatever the evaluation says."
    )
    apply: bool = Field(
        True,
        description="Whether to change the running configuration. If not, the job tells the change and waits "
        "until somebody has made it, as on Kubernetes, where the RayService holds the configuration.",
    )
    wait_s: float = Field(
        1800.0, gt=0, description="How long to wait until the replicas serve the version, in seconds."
    )


class RollbackArgs(JobArgs):
    """Go back to the version that was live before, or to an earlier one."""

    model: str = Field(description="A configured encoder.")
    to: str | None = Field(
        None, pattern="^[0-9a-f]{12}$", description="Fingerprint of the version; by default the one before."
    )
    apply: bool = Field(True, description="As for a promotion.")
    wait_s: float = Field(1800.0, gt=0, description="As for a promotion.")


class PruneArgs(JobArgs):
    """Drop the collections of versions that are neither live, nor serve, nor were live before."""

    model: str = Field(description="A configured encoder.")
    keep: WholeNumber = Field(1, ge=0, description="Earlier versions to keep, the latest first.")
    dry_run: bool = Field(False, description="Only say what would be dropped.")


class PruneFilesArgs(JobArgs):
    """Remove every image file that no product names, now and without the grace that the repair gives."""

    dry_run: bool = Field(False, description="Only say how many files would be removed.")
