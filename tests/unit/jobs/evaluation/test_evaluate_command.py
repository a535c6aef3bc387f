from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import InvalidInput
from core.jobs import EvaluateArgs
from jobs.evaluate_command import comparison_args


def test_what_a_shell_names_becomes_arguments_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("")
    told = comparison_args(
        "dinov2",
        {"checkpoint": None, "pooling": "mean"},
        ['{"weights": {"openclip": 1}}'],
        str(tmp_path / "labels.csv"),
    )
    args = EvaluateArgs.model_validate(told)
    assert args.candidate is not None
    assert args.candidate.candidate == {"pooling": "mean"}
    assert args.ensembles[0].fusion == "rrf"
    assert args.queries == str(tmp_path / "labels.csv")


def test_changes_without_a_candidate_and_ensembles_that_are_no_json_are_refused() -> None:
    with pytest.raises(InvalidInput, match="--pooling is of a candidate"):
        comparison_args(None, {"pooling": "mean"}, [], None)
    with pytest.raises(InvalidInput, match="an ensemble is a JSON object such as"):
        comparison_args(None, {}, ["openclip=1"], None)


@pytest.mark.parametrize("weights", [{}, {"openclip": -1}, {"openclip": float("nan")}])
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="weights"):
        EvaluateArgs.model_validate({"ensembles": [{"weights": weights}]})
