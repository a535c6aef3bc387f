"""Whether a candidate is good enough, by the evaluation's gate."""

from dataclasses import replace

from core.jobs import BuildArgs, EvaluateArgs
from jobs.context import JobContext
from jobs.evaluation.comparison import evaluate
from jobs.evaluation.gate import GateDecision
from jobs.settings import EncoderSettings

_NAMED = ("checkpoint", "pretrained", "revision", "precision", "pooling")


def judge(context: JobContext, live: EncoderSettings, candidate: EncoderSettings) -> GateDecision | None:
    """Compare the candidate with the live version; None where nothing can be compared.

    Raises:
        VitrineError: as an evaluation.
    """
    model = live.config.name
    settings = replace(context.settings, encoders={**context.settings.encoders, model: live})
    before, after = live.config.model_dump(), candidate.config.model_dump()
    differs = {name: after[name] for name in _NAMED if after[name] != before[name]}
    args = EvaluateArgs(models=[model], candidate=BuildArgs(model=model, **differs))
    return evaluate(replace(context, settings=settings), args).decision
