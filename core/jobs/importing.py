"""What can be asked of an import."""

from pydantic import Field

from core.jobs.arguments import JobArgs
from core.sources import SourceDescription


class ImportArgs(JobArgs):
    """Take products over from a source; embeddings are completed by the repair or a build."""

    source: SourceDescription = Field(description="Where the products come from.")
    ask_again: bool = Field(
        True,
        description="Whether servers are asked if pictures that were fetched before have changed; if not, a "
        "known URL stands for the same picture.",
    )
    delete_missing: bool = Field(
        False, description="Delete products that this source has delivered before and does so no more."
    )
    max_delete_percent: float = Field(
        10.0, ge=0, le=100, description="Share of the source's products above which none is deleted."
    )
