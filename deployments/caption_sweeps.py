"""Captioning the catalog in the background, pass after pass."""

import logging

from core.captioning import Captioning, CaptionReport
from core.errors import VitrineError

logger = logging.getLogger(__name__)


class CaptionSweeps:
    """Passes of one model that never raise, and say once what stands in their way."""

    def __init__(self, model: str, captioning: Captioning, batch_size: int) -> None:
        self._model = model
        self._captioning = captioning
        self._batch_size = batch_size
        self._problem: str | None = None

    async def sweep(self) -> CaptionReport | str:
        """Make one pass; returns what was done, or what stood in the way."""
        try:
            report = await self._captioning.sweep(self._batch_size)
        except VitrineError as error:
            return self._tell(error.message)
        except Exception:
            logger.exception("captions by %s failed", self._model)
            return "internal error; see the logs"
        self._problem = None
        if report != CaptionReport():
            logger.info("captions by %s: %s", self._model, report)
        return report

    def _tell(self, problem: str) -> str:
        if problem != self._problem:
            logger.warning("captions by %s: %s", self._model, problem)
            self._problem = problem
        return problem
