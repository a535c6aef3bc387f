"""How bulk jobs use a cluster."""

from typing import Self

from pydantic import Field, model_validator

from core.config import Config


class FileImportConfig(Config):
    """Builds write files that Milvus imports by itself, in place of upserts; needs a Milvus server."""

    url: str = Field(
        min_length=1,
        description="Folder of the files in the object store that Milvus reads, as fsspec names it: "
        "`s3://bucket/vitrine-import`.",
    )
    milvus_path: str = Field(
        min_length=1,
        description="The same folder as Milvus names it: its path within Milvus's own bucket, `vitrine-import`.",
    )
    file_pictures: int = Field(
        20_000,
        ge=1,
        description="Pictures of one file, and of one unit of work: what is lost when a copy of the model is "
        "killed.",
    )
    files_at_once: int = Field(8, ge=1, le=256, description="Files that Milvus imports at once.")
    wait_s: float = Field(
        3600.0, gt=0, description="How long Milvus may take for the files of one round, in seconds."
    )


class BulkConfig(Config):
    """Resources and sizes of a bulk job; what is not set follows the encoder's own deployment."""

    min_actors: int = Field(1, ge=1, description="Copies of the model that a job starts with.")
    max_actors: int = Field(1, ge=1, description="Most copies of the model that a job grows to.")
    cpus_per_actor: float | None = Field(
        None, ge=0, description="CPUs of one copy; by default those of the encoder's replica."
    )
    gpus_per_actor: float | None = Field(
        None, ge=0, description="GPUs of one copy; by default those of the encoder's replica."
    )
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="Pictures of one write; by default the encoder's max_batch_size."
    )
    batches_in_flight: int = Field(
        3,
        ge=1,
        le=64,
        description="Batches of one copy under way at once: one is decoded while another is in the model and "
        "a third is written. More hide a slow store, cost memory, and are lost when the process is killed.",
    )
    shard_pictures: int = Field(
        512, ge=1, description="Pictures of one unit of work: what a copy takes up at a time."
    )
    gap_threshold: int = Field(
        100,
        ge=0,
        description="A build ends when at most that many pictures are missing, which live traffic has "
        "added since; it goes round again while more are.",
    )
    patience_s: float = Field(
        600.0, gt=0, description="How long a build waits for a store that is away, in seconds."
    )

    file_import: FileImportConfig | None = Field(
        None,
        description="Have Milvus import files that builds write; by default builds upsert. For large "
        "collections that nobody searches yet.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_actors > self.max_actors:
            raise ValueError(f"min_actors {self.min_actors} is above max_actors {self.max_actors}")
        return self
