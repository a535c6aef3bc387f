"""What can be asked of the jobs that fill collections."""

from pydantic import Field

from core.jobs.arguments import JobArgs


class BuildArgs(JobArgs):
    """Fill the collection of one version of a model: the configured one, or a candidate."""

    model: str = Field(description="A configured encoder.")
    checkpoint: str | None = Field(None, description="Checkpoint of a candidate, in place of the configured.")
    pretrained: str | None = Field(None, description="Tag of the candidate's weights, for openclip.")
    revision: str | None = Field(None, description="Revision of the candidate's checkpoint.")
    precision: str | None = Field(None, description="Number format of the candidate's weights.")
    pooling: str | None = Field(None, description="How the candidate pools its tokens.")

    @property
    def candidate(self) -> dict[str, str]:
        """What differs from the configured encoder."""
        return {
            name: value
            for name in ("checkpoint", "pretrained", "revision", "precision", "pooling")
            if (value := getattr(self, name)) is not None
        }


class SampleArgs(BuildArgs):
    """Build a share of a collection, to measure the speed and to predict the whole."""

    percent: float = Field(5.0, gt=0, le=100, description="Share of the pictures, in percent.")
