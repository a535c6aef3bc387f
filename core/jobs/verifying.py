"""What can be asked of a verification."""

from pydantic import Field

from core.jobs.arguments import JobArgs


class VerifyArgs(JobArgs):
    """Compare catalogue, ledger and Milvus, and repair what differs if asked to."""

    model: str | None = Field(None, description="A configured encoder; by default all of them.")
    percent: float = Field(
        5.0, ge=0, le=100, description="Share of the pictures to encode anew and to compare, in percent."
    )
    seed: int | None = Field(
        None, ge=0, description="Of the drawing of that share; by default another every time."
    )
    repair: bool = Field(False, description="Whether to repair what can be repaired.")
