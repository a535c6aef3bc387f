"""Kinds of jobs: each has a function, and arguments that are checked alike."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from core.jobs import KINDS, VERSION_FIELDS, Candidate, EvaluateArgs
from jobs.runner.start import work_of
from models.config import EncoderConfig


def test_every_kind_of_job_has_work_that_takes_its_arguments() -> None:
    assert {kind: get_type_hints(work_of(kind))["args"] for kind in KINDS} == KINDS


def test_a_candidate_names_fields_of_an_encoder_alone() -> None:
    assert set(VERSION_FIELDS) <= set(EncoderConfig.model_fields)
    given = {"checkpoint": "large", "int8_threshold": 0.0, "draft": False}
    assert Candidate.model_validate(given).changes == given


@pytest.mark.parametrize("kind", ["plan", "build", "sample", "evaluate", "promote"])
def test_every_verb_of_a_candidate_takes_the_same_fields(kind: str) -> None:
    given = {"model": "dinov2", "checkpoint": "large", "pooling": "mean"}
    args = KINDS[kind].model_validate(given)
    assert isinstance(args, Candidate)
    assert args.changes == {"checkpoint": "large", "pooling": "mean"}


def test_the_page_offers_every_field_of_a_candidate() -> None:
    page = Path(__file__).parents[3] / "deployments" / "web" / "js" / "upgrade.js"
    found = re.search(r"^const CANDIDATE = \[\n(.*?)^\];", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r'^ *\["(\w+)"', found[1], re.MULTILINE)) == VERSION_FIELDS


def test_a_candidate_without_a_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="pooling is a field of a candidate; name its model"):
        EvaluateArgs.model_validate({"pooling": "mean"})


@pytest.mark.parametrize("weights", [{}, {"openclip": -1}, {"openclip": float("nan")}])
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="weights"):
        EvaluateArgs.model_validate({"ensembles": [{"weights": weights}]})
