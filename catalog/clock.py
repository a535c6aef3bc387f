"""The time of day."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Read the clock, as an aware datetime."""
    return datetime.now(UTC)
