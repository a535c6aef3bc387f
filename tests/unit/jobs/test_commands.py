"""The commands of bulk work: over the API, and in a process of their own."""

from pathlib import Path

import cli.main
import pytest
import typer
from pydantic import ValidationError

import jobs.__main__
from core.errors import InvalidInput
from core.jobs import KINDS, EvaluateArgs
from jobs.commands import comparison_args
from jobs.runner.start import work_of


def commands(app: typer.Typer) -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_kind_of_job_is_a_command_of_both() -> None:
    # `prune --files` is the command of `prune_files`.
    wanted = {kind.partition("_")[0] for kind in KINDS}
    assert wanted <= commands(cli.main.app)
    assert wanted <= commands(jobs.__main__.app)


def test_every_kind_of_job_has_work_to_do() -> None:
    for kind in KINDS:
        assert callable(work_of(kind))


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
