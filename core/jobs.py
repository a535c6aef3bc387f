"""Jobs of callers: arguments of every kind, state, progress and the names in results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.fusion import Fusion
from core.sources import SourceDescription
from core.types import EncoderInfo, WholeNumber

JobState = Literal["queued", "running", "succeeded", "failed", "canceled", "interrupted"]
"""`interrupted`: the heartbeat of the process ended; the same job, submitted again, goes on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job; `eta_s` is the expected time to its end in seconds, None while unknown."""

    stage: str = ""
    total: int = 0
    done: int = 0
    failed: int = 0
    images_per_s: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Record of a job in the catalog; `claim` names what no other job may work on meanwhile."""

    job_id: str
    kind: str
    args: Mapping[str, Any]
    state: JobState
    progress: Progress
    claim: str | None
    result: Mapping[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime
    finished_at: datetime | None


class JobArgs(BaseModel):
    """Arguments of a job as a caller sends them; unknown names and other types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_odd_strings(cls, values: Any) -> Any:
        for text in _strings(values):
            # A configuration follows such references into the environment, where the secrets are.
            if "${" in text:
                raise ValueError("arguments may not refer to the environment by ${…}")
            if not text.isprintable():
                raise ValueError("arguments may hold printable characters only")
        return values


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


class Candidate(JobArgs):
    """Fields of a version that may differ from the configured encoder; None: as configured.

    A candidate is the configured encoder with these fields in place of its own. They are every field that a
    vector depends on.
    """

    family: str | None = Field(None, description="Family of a candidate, in place of the configured one.")
    checkpoint: str | None = Field(None, description="Checkpoint of a candidate.")
    pretrained: str | None = Field(None, description="Tag of a candidate's weights, for openclip.")
    revision: str | None = Field(None, description="Revision of a candidate's checkpoint.")
    precision: str | None = Field(None, description="Number format of a candidate's weights.")
    int8_threshold: float | None = Field(
        None, ge=0, description="Activations beyond which int8 multiplies in full, for a candidate."
    )
    pooling: str | None = Field(None, description="Pooling of a candidate's tokens.")
    draft: bool | None = Field(
        None, description="Whether JPEG files are decoded at a reduced size for a candidate."
    )
    decode_on_gpu: bool | None = Field(
        None, description="Whether a build decodes JPEG files on the GPU for a candidate."
    )

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that are given."""
        return {name: value for name in VERSION_FIELDS if (value := getattr(self, name)) is not None}


VERSION_FIELDS = tuple(Candidate.model_fields)
"""Fields of an encoder's configuration that make it one version of its model and no other."""


def version_facts(info: EncoderInfo) -> dict[str, Any]:
    """Describe a version in the result of a job: the same names in each."""
    return {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "collection": info.collection,
        "dimension": info.dimension,
        "checkpoint": info.checkpoint,
        "precision": info.precision,
    }


class BuildArgs(Candidate):
    """Fill the collection of one version of a model: the configured one, or a candidate."""

    model: str = Field(description="A configured encoder.")


class SampleArgs(BuildArgs):
    """Build a share of a collection, to measure the speed and predict the time of the whole."""

    percent: float = Field(5.0, gt=0, le=100, description="Share of the images, in percent.")


CANDIDATE_SUFFIX = ":candidate"
"""Ends the label of a candidate; names of models hold no colon."""


class EnsembleArgs(JobArgs):
    """An ensemble to compare with other systems."""

    name: str = Field("ensemble", min_length=1, max_length=64, description="Its name in the results.")
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="Members and their weights; MODEL:candidate is the candidate of that model."
    )
    fusion: Fusion = Field("rrf", description="Fusion of the members' lists: rrf or weighted.")


class RerankArgs(JobArgs):
    """A second stage of the systems that are compared."""

    model: str = Field(description="A configured encoder with a matching head.")
    depth: WholeNumber = Field(
        50, ge=1, le=500, description="Products of the first stage that are re-ranked."
    )


class EvaluateArgs(Candidate):
    """Evaluate models and ensembles on labeled queries, or on changed images of the catalog."""

    model: str | None = Field(
        None,
        description="A configured encoder. With fields of a candidate, both are compared and the quality gate "
        "decides. By default all that have a collection.",
    )
    compare: list[str] = Field([], description="Further configured encoders to compare.")
    ensembles: list[EnsembleArgs] = Field(
        [],
        description="Ensembles to compare; by default the configured one where all its members are compared.",
    )
    rerank: RerankArgs | None = Field(
        None,
        description="Measure each system once more, as NAME+rerank, on the queries with text: its first products "
        "are re-ranked by the matching head of this model.",
    )
    queries: str | None = Field(
        None, min_length=1, description="File of labeled queries, in place of the configured one."
    )
    sample: WholeNumber | None = Field(
        None, ge=2, le=10_000, description="Images of the catalog to draw, in place of labeled queries."
    )
    seed: WholeNumber | None = Field(
        None, ge=0, description="Seed of the drawing, in place of the configured one."
    )

    @model_validator(mode="after")
    def _name_the_model(self) -> Self:
        if self.changes and self.model is None:
            raise ValueError(f"{next(iter(self.changes))} is a field of a candidate; name its model")
        return self


class ImportArgs(JobArgs):
    """Import products from a source; the repair or a build makes their embeddings."""

    source: SourceDescription = Field(description="Where the products come from.")
    ask_again: bool = Field(
        True,
        description="Whether servers are asked if images that were fetched before have changed; if not, a "
        "known URL stands for the same image.",
    )
    delete_missing: bool = Field(
        False, description="Delete products that this source has delivered before and does so no more."
    )
    max_delete_percent: float = Field(
        10.0, ge=0, le=100, description="Share of the source's products above which none is deleted."
    )
    dry_run: bool = Field(
        False,
        description="Only read the source and show which column is read as what, the first products and the "
        "counts; images are not read, and nothing is written.",
    )


class PlanArgs(BuildArgs):
    """Estimate what a candidate changes and costs; writes nothing."""

    percent: float = Field(2.0, gt=0, le=100, description="Share of the images to measure by, in percent.")


class PromoteArgs(BuildArgs):
    """Make a built candidate the live version, without downtime."""

    force: str | None = Field(
        None, min_length=1, max_length=500, description="Reason to promote it whatever the quality gate says."
    )
    apply: bool = Field(
        True,
        description="Whether to change the running configuration. If not, the job logs the change and waits "
        "until somebody has made it, as on Kubernetes, where the RayService holds the configuration.",
    )
    wait_s: float = Field(
        1800.0, gt=0, description="How long to wait until the replicas serve the version, in seconds."
    )


class RollbackArgs(JobArgs):
    """Go back to the version that was live before, or to an earlier one."""

    model: str = Field(description="A configured encoder.")
    fingerprint: str | None = Field(
        None, pattern="^[0-9a-f]{12}$", description="Fingerprint of the version; by default the one before."
    )
    apply: bool = Field(True, description="As for a promotion.")
    wait_s: float = Field(1800.0, gt=0, description="As for a promotion.")


class PruneArgs(JobArgs):
    """Drop the collections of versions that are not live, do not serve and were not live before."""

    model: str = Field(description="A configured encoder.")
    keep: WholeNumber = Field(1, ge=0, description="Earlier versions to keep, the latest first.")
    dry_run: bool = Field(False, description="Only say what would be dropped.")


class PruneFilesArgs(JobArgs):
    """Remove every image file that no product names, without the delay of the repair."""

    dry_run: bool = Field(False, description="Only say how many files would be removed.")


class VerifyArgs(JobArgs):
    """Compare catalog, ledger and Milvus, and repair what differs if asked to."""

    model: str | None = Field(None, description="A configured encoder; by default all of them.")
    percent: float = Field(
        5.0, ge=0, le=100, description="Share of the images to encode anew and to compare, in percent."
    )
    seed: WholeNumber | None = Field(
        None, ge=0, description="Seed of the drawing of that share; by default another each time."
    )
    repair: bool = Field(False, description="Whether to repair what can be repaired.")


class AdoptArgs(JobArgs):
    """Adopt the configured Milvus where the former one is lost: all is encoded anew."""

    keep_index: bool = Field(
        False,
        description="Whether to trust the ledger and encode nothing anew: the collections are there, as after "
        "a restore of Milvus.",
    )


KINDS: dict[str, type[JobArgs]] = {
    "build": BuildArgs,
    "sample": SampleArgs,
    "evaluate": EvaluateArgs,
    "import": ImportArgs,
    "plan": PlanArgs,
    "promote": PromoteArgs,
    "rollback": RollbackArgs,
    "prune": PruneArgs,
    "prune_files": PruneFilesArgs,
    "verify": VerifyArgs,
    "adopt": AdoptArgs,
}
"""Arguments of every kind of job; `jobs.runner.start` holds the function of each."""
