"""How far collections and captions have come."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """How far a collection has come: pictures in the catalog, indexed, failed (quarantine) and missing."""

    pictures: int
    indexed: int
    failed: int
    missing: int


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """How far a version's captions have come: pictures in the catalog, captioned, failed and missing."""

    pictures: int
    captioned: int
    failed: int
    missing: int
