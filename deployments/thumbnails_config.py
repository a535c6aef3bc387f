"""What thumbnails may cost a replica of the gateway."""

from pydantic import Field

from core.config import Config


class ThumbnailsConfig(Config):
    """Bounds of the making and keeping of thumbnails."""

    cache_bytes: int = Field(
        32 * 2**20, ge=0, description="Memory for thumbnails that were asked for lately, in bytes."
    )
    at_once: int = Field(
        2,
        gt=0,
        description="Images that are decoded at once for thumbnails, within images.max_pixels_in_flight.",
    )
