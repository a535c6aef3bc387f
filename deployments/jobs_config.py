"""How the gateway starts bulk work."""

from pydantic import Field

from core.bulk import BulkConfig
from core.config import Config
from core.evaluation import EvaluationConfig
from core.importing import ImportConfig


class JobsConfig(Config):
    """Bulk work of the jobs API, which runs on Ray Jobs."""

    bulk: BulkConfig = Field(BulkConfig(), description="What a bulk job may take of the cluster.")
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="How models are compared, and when a worse one is refused."
    )
    imports: ImportConfig = Field(ImportConfig(), description="What imports may read, and at what pace.")
    dashboard_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where Ray's dashboard, which takes jobs, answers; by default that of this cluster.",
    )
    deadline_s: float = Field(15.0, gt=0, description="How long Ray may take to answer, in seconds.")
