"""Captions of the catalog's pictures."""

from pydantic import Field

from core.config import Config


class IngestCaptions(Config):
    """Which model captions the pictures of the catalog, in the background, so that words find them."""

    model: str = Field(description="An encoder whose own configuration asks for captions.")
    batch_size: int = Field(
        8, gt=0, le=256, description="Pictures per call to it; what a call has written is kept."
    )
    deadline_s: float = Field(120.0, gt=0, description="How long such a call may take, in seconds.")
