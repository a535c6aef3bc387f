"""What the evaluation is asked about a candidate."""

from types import SimpleNamespace
from typing import Any

import pytest

from core.bulk import BulkConfig
from core.jobs import EvaluateArgs
from jobs.context import JobContext
from jobs.evaluation.gate import GateDecision
from jobs.settings import EncoderSettings, Settings
from jobs.upgrade.judgement import judge
from milvus.config import MilvusConfig
from models.config import EncoderConfig


def encoder(**fields: Any) -> EncoderSettings:
    config = EncoderConfig(name="dinov2", family="dinov2", **fields)
    return EncoderSettings(config, num_cpus=1, num_gpus=0)


def test_the_candidate_is_compared_with_what_runs_even_where_another_file_describes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[JobContext, EvaluateArgs]] = []
    decision = GateDecision(True, "passed", "map", None)

    def evaluate(context: JobContext, args: EvaluateArgs) -> Any:
        asked.append((context, args))
        return SimpleNamespace(decision=decision)

    monkeypatch.setattr("jobs.upgrade.judgement.evaluate", evaluate)
    live, candidate = encoder(checkpoint="base"), encoder(checkpoint="large", pooling="mean")
    settings = Settings(
        catalog=None,  # type: ignore[arg-type]
        milvus=MilvusConfig(uri="http://127.0.0.1:1"),
        bulk=BulkConfig(),
        encoders={"dinov2": candidate},
    )
    context = JobContext(None, settings, None)  # type: ignore[arg-type]
    assert judge(context, live, candidate) is decision
    ((given, args),) = asked
    assert args.candidate is not None
    assert args.candidate.candidate == {"checkpoint": "large", "pooling": "mean"}
    compared = given.settings.encoder("dinov2", args.candidate.candidate)
    assert compared.config == candidate.config
    assert given.settings.encoder("dinov2", {}).config == live.config
