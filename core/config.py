"""The base of every configuration model, and the configuration of bulk jobs, which the service and jobs share.

Every model is frozen, strict about keys, and open to the environment.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.errors import ConfigError

Place = tuple[str | int, ...]
"""The keys and positions that lead to a value of a configuration."""
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Config(BaseModel):
    """A frozen configuration model that refuses unknown keys.

    String values may refer to the environment of the process that builds the application:
    `${NAME}` must be set, `${NAME:-fallback}` need not. Errors never show values, which may be secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier releases that have another name now, each with that name."""

    @model_validator(mode="before")
    @classmethod
    def _name_new_keys(cls, values: Any) -> Any:
        for old in cls.renamed.keys() & values if isinstance(values, dict) else ():
            raise ValueError(f"{old!r} is now called {cls.renamed[old]!r}")
        return values

    @model_validator(mode="before")
    @classmethod
    def _expand_environment(cls, values: Any) -> Any:
        return expand_environment(values)


def expand_environment(value: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """Replace `${NAME}` and `${NAME:-fallback}` in every string of a nested value.

    Raises:
        ConfigError: a name without a fallback is not set.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _lookup(match, environment), value)
    if isinstance(value, dict):
        return {key: expand_environment(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_environment(item, environment) for item in value]
    return value


def unset_names(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield the names without a fallback that a nested value refers to and that are not set, each with its place."""
    if isinstance(value, str):
        for found in _REFERENCE.finditer(value):
            if found["default"] is None and found["name"] not in os.environ:
                yield place, found["name"]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from unset_names(item, (*place, key))


def _lookup(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name, default = match["name"], match["default"]
    found = environment.get(name, default)
    if found is None:
        raise ConfigError(f"the configuration refers to ${{{name}}}, which is not set in the environment")
    return found


class FileImportConfig(Config):
    """Builds by files that Milvus imports, in place of upserts; needs a Milvus server."""

    url: str = Field(
        min_length=1,
        description="Folder for the files in Milvus's object store, as a URL of fsspec: "
        "`s3://bucket/vitrine-import`.",
    )
    milvus_path: str = Field(
        min_length=1,
        description="Path of the same folder within Milvus's bucket: `vitrine-import`.",
    )
    file_images: int = Field(
        20_000,
        ge=1,
        description="Images of one file, which is one unit of work: if an actor is killed, it is done again.",
    )
    files_at_once: int = Field(8, ge=1, le=256, description="Files that Milvus imports at once.")
    wait_s: float = Field(
        3600.0, gt=0, description="How long Milvus may take to import the files of one round, in seconds."
    )


class BulkConfig(Config):
    """Resources and sizes of a bulk job; defaults follow the encoder's own deployment."""

    min_actors: int = Field(
        1, ge=1, description="Actors that a job starts with; each holds a copy of the model."
    )
    max_actors: int = Field(1, ge=1, description="Most actors of a job.")
    cpus_per_actor: float | None = Field(
        None,
        ge=0,
        description="CPUs for one copy of the model, decoding included; by default those of the encoder's "
        "replica. Without `decode_actors` an actor decodes in as many threads, by default in the encoder's "
        "`decode_threads`.",
    )
    gpus_per_actor: float | None = Field(
        None, ge=0, description="GPUs of one actor; by default those of the encoder's replica."
    )
    decode_actors: int | None = Field(
        None,
        ge=0,
        description="Processes of a job that read and decode images for its models, on any node; 0 leaves that "
        "to the models' own processes. By default 0 without GPUs. With GPUs each copy of the model has as many "
        "as `cpus_per_actor` pays for when one CPU is left to the model and to the writes: 3 of 4 CPUs. A job "
        "starts with one and adds more as the cluster has room. What is no more than `shard_images` is left to "
        "the models' processes.",
    )
    cpus_per_decode_actor: float = Field(
        1.0, gt=0, description="CPUs of one of `decode_actors`, which decodes in as many threads."
    )
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="Images of one write; by default the encoder's max_batch_size."
    )
    batches_in_flight: int = Field(
        3,
        ge=1,
        le=64,
        description="Batches in flight in one actor: one is decoded while another is encoded and a third is "
        "written. More hide a slow store, but cost memory and are lost if the process is killed.",
    )
    shard_images: int = Field(512, ge=1, description="Images of one unit of work of an actor.")
    gap_threshold: int = Field(
        100,
        ge=0,
        description="A build ends when at most this many images are missing, since live traffic adds images "
        "meanwhile. While more are missing, it starts another round.",
    )
    patience_s: float = Field(
        600.0, gt=0, description="How long a build waits for an unavailable store, in seconds."
    )

    file_import: FileImportConfig | None = Field(
        None,
        description="Build by files that Milvus imports, for large collections that are not searched yet; by "
        "default builds upsert.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_actors > self.max_actors:
            raise ValueError(f"min_actors {self.min_actors} is above max_actors {self.max_actors}")
        return self


METRIC = r"^((precision|recall|ndcg)@[1-9][0-9]{0,2}|map|mrr)$"
"""Names of metrics; `map` and `mrr` use the whole list."""


class QualityGateConfig(Config):
    """The quality gate: the rule that refuses a worse candidate."""

    metric: str = Field(
        "ndcg@10", pattern=METRIC, description="The metric that is compared, such as ndcg@10 or map."
    )
    max_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest allowed drop of the mean from the live version to the candidate.",
    )
    min_queries: int = Field(50, ge=2, description="Fewest queries that both versions must have answered.")
    judge: Literal["mean", "lower_bound"] = Field(
        "mean",
        description="The figure that max_drop applies to: the mean of the differences, or the lower end of its "
        "confidence interval, which is wide if there are few queries.",
    )


class EvaluationConfig(Config):
    """Queries and metrics of a comparison of models."""

    queries: str | None = Field(
        None,
        min_length=1,
        description="Labeled queries: path or fsspec URL of a table, of any format that imports read. By default, "
        "images of the catalog are augmented and must find their own product.",
    )
    sample: int = Field(
        200, ge=2, le=10_000, description="Images that are drawn from the catalog if there are no labels."
    )
    seed: int = Field(0, ge=0, description="Seed of the sample, of the augmentations, and of the bootstrap.")
    cutoffs: tuple[int, ...] = Field(
        (1, 5, 10), min_length=1, description="Ranks k at which precision, recall and nDCG are measured."
    )
    relevant_from: int = Field(
        1,
        ge=1,
        description="Smallest grade that is relevant for precision, recall, map and mrr; nDCG uses all grades.",
    )
    depth: int = Field(
        100,
        ge=1,
        le=1000,
        description="Length of a result list; map and mrr count products beyond it as not found.",
    )
    pool_products: int = Field(
        2000,
        ge=10,
        le=10_000,
        description="Most products to search among while a collection is incomplete; every collection holds them.",
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="Resamples of the bootstrap.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    shown_queries: int = Field(
        20, ge=0, le=200, description="Queries that the report shows with their images."
    )
    quality_gate: QualityGateConfig = Field(
        QualityGateConfig(), description="The rule that refuses a worse candidate."
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """All measured metrics, the gate's included."""
        names = [f"{name}@{k}" for name in ("precision", "recall", "ndcg") for k in sorted(set(self.cutoffs))]
        return tuple(dict.fromkeys([*names, "map", "mrr", self.quality_gate.metric]))

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        gate_cutoff = int(self.quality_gate.metric.partition("@")[2] or 1)
        deepest = max(*self.cutoffs, gate_cutoff)
        if min(self.cutoffs) < 1 or deepest > self.depth:
            raise ValueError(f"cutoffs lie between 1 and depth, which is {self.depth}; {deepest} does not")
        return self
