"""What can be asked of an evaluation."""

from typing import Annotated

from pydantic import Field

from core.ensemble import Fusion
from core.jobs.arguments import JobArgs
from core.jobs.building import BuildArgs
from core.types import WholeNumber

CANDIDATE = ":candidate"
"""Ends the label of a candidate: names of models hold no colon."""


class EnsembleArgs(JobArgs):
    """An ensemble to compare with others."""

    name: str = Field("ensemble", min_length=1, max_length=64, description="What the results call it.")
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="Members and their weights; MODEL:candidate is the candidate of that model."
    )
    fusion: Fusion = Field("rrf", description="How the members' lists are fused: rrf or weighted.")


class EvaluateArgs(JobArgs):
    """Compare models and ensembles on labelled queries, or on changed pictures of the catalog."""

    models: list[str] = Field(
        [], description="Configured encoders to compare; by default all that have a collection."
    )
    candidate: BuildArgs | None = Field(
        None, description="Version to compare with the configured one of its model, which the gate judges."
    )
    ensembles: list[EnsembleArgs] = Field(
        [],
        description="Ensembles to compare; by default the configured one where all its members are compared.",
    )
    queries: str | None = Field(
        None, min_length=1, description="File of labelled queries, in place of the configured one."
    )
    sample: WholeNumber | None = Field(
        None, ge=2, le=10_000, description="Pictures of the catalog to draw, in place of labelled queries."
    )
    seed: WholeNumber | None = Field(
        None, ge=0, description="Of the drawing, in place of the configured one."
    )
