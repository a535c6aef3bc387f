"""What can be asked of the jobs that bring catalog, ledger and Milvus in step."""

from pydantic import Field

from core.jobs.arguments import JobArgs
from core.types import WholeNumber


class VerifyArgs(JobArgs):
    """Compare catalogue, ledger and Milvus, and repair what differs if asked to."""

    model: str | None = Field(None, description="A configured encoder; by default all of them.")
    percent: float = Field(
        5.0, ge=0, le=100, description="Share of the pictures to encode anew and to compare, in percent."
    )
    seed: WholeNumber | None = Field(
        None, ge=0, description="Of the drawing of that share; by default another every time."
    )
    repair: bool = Field(False, description="Whether to repair what can be repaired.")


class AdoptArgs(JobArgs):
    """Take the configured Milvus as the catalog's own, where the former one is lost: all is encoded anew."""

    keep_index: bool = Field(
        False,
        description="Whether the collections are there, as after a restore of Milvus, so that the ledger is "
        "believed and nothing is encoded anew.",
    )
