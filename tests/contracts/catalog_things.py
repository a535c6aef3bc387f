"""What the suites of the catalog put into it."""

from datetime import UTC, datetime, timedelta

from core.types import EncoderInfo, NewPicture

RED = NewPicture(b"a red shirt", "image/jpeg", 20, 30)
BLUE = NewPicture(b"a blue shirt", "image/png", 40, 50)
GREEN = NewPicture(b"a green shirt", "image/webp", 60, 70)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        """Set the clock on, or back."""
        self.now += timedelta(seconds=seconds)


def encoder(name: str = "openclip", fingerprint: str = "0123456789ab") -> EncoderInfo:
    """A model version."""
    return EncoderInfo(name, "openclip", "ViT-B-32", fingerprint, 512, ("image", "text"), "float32", "cpu")
