"""What counts as a match: a caller's threshold as smallest scores of the model versions that answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from core.calibration import Form
from core.ensemble import ENSEMBLE
from core.errors import Conflict, InvalidInput, VitrineError, expected
from core.null_samples import NullSamples
from core.ports import EncoderClient
from core.search import QueryPart
from deployments.encoders import EncoderSet


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a caller asks for: a cosine of one model, or a rate at which unrelated queries find anything."""

    score: float | None = None
    max_false_match_rate: float | None = None

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return self.score is not None or self.max_false_match_rate is not None

    def check(self, model: str) -> None:
        """Refuse both at once, and a cosine for the ensemble.

        Raises:
            InvalidInput: as said.
        """
        if self.score is None:
            return
        if self.max_false_match_rate is not None:
            raise InvalidInput("give either `score_threshold` or `max_false_match_rate`").at(
                "score_threshold"
            )
        if model == ENSEMBLE:
            raise InvalidInput(
                "cosines of different models cannot share a threshold; name one `model`, or give "
                "`max_false_match_rate`, which the ensemble takes too"
            ).at("score_threshold")


class Thresholds:
    """Turns thresholds into smallest cosines by collection."""

    def __init__(self, encoders: EncoderSet, samples: NullSamples) -> None:
        self._encoders = encoders
        self._samples = samples

    async def minimum_scores(
        self, threshold: Threshold, model: str, parts: Sequence[QueryPart], without: Sequence[str]
    ) -> dict[str, float]:
        """The smallest cosine that counts as a match, by collection; `without` are members not to ask.

        For the ensemble each member gets half of the rate, since `core.matching` takes a majority; a
        member that cannot be calibrated has no entry, so it calls nothing a match.

        Raises:
            Conflict: no model can keep the rate.
            VitrineError: no model answers.
        """
        if threshold.score is not None:
            return {(await self._encoders.get(model).describe()).collection: threshold.score}
        assert threshold.max_false_match_rate is not None
        form: Form = tuple((("text" if isinstance(p.content, str) else "image"), p.weight) for p in parts)
        if model != ENSEMBLE:
            rate = threshold.max_false_match_rate
            return dict([await self._samples.smallest_match(self._encoders.get(model), form, rate)])
        unable = await self._encoders.unable(modality for modality, _ in form)
        asked = [each for each in self._encoders if each.name not in without and each.name not in unable]
        rate = threshold.max_false_match_rate / 2
        outcomes = await asyncio.gather(*(self._member(encoder, form, rate) for encoder in asked))
        found = dict(each for each in outcomes if isinstance(each, tuple))
        errors = [each for each in outcomes if isinstance(each, VitrineError)]
        if not found and errors:
            raise next((each for each in errors if isinstance(each, Conflict)), errors[0])
        return found

    async def _member(
        self, encoder: EncoderClient, form: Form, rate: float
    ) -> tuple[str, float] | VitrineError | None:
        try:
            can = (await encoder.describe()).modalities
            if any(modality not in can for modality, _ in form):
                return None
            return await self._samples.smallest_match(encoder, form, rate)
        except Exception as error:
            return expected(error, f"the calibration of {encoder.name}")
