"""How imports treat this machine and the servers that they ask."""

from pydantic import Field

from core.config import Config


class ImportConfig(Config):
    """Bounds of imports."""

    folders: tuple[str, ...] = Field(
        (),
        description="Folders that imports of the API may read, with all that is below them. Whoever has a "
        "shell may import from anywhere.",
    )
    products_at_once: int = Field(8, ge=1, le=256, description="Products that are in hand at once.")
    pictures_at_once: int = Field(16, ge=1, le=256, description="Pictures that are read or fetched at once.")
    batch_products: int = Field(
        64,
        ge=1,
        le=1000,
        description="Products after which the position is saved: what a killed import does again at most.",
    )
    attempts: int = Field(6, ge=1, description="How often a server is asked that fails or is too busy.")
    backoff_s: float = Field(
        1.0, ge=0, description="Pause before the second attempt, in seconds; it doubles each time."
    )
    max_backoff_s: float = Field(
        120.0, gt=0, description="Longest pause, also where a server asks for a longer one, in seconds."
    )
