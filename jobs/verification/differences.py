"""Differences between catalog, ledger, Milvus and image files, counted by kind, and the share sampled."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_STEPS = 2**64
_AGAIN = "put the product with its images again, or repair and import it again"
EXAMPLES = 10
LOGGED = 10_000
"""Differences of a kind that are logged one by one, up to the most lines of a log that the API returns."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of about `percent` of all row keys, drawn by the seed."""

    percent: float
    seed: int

    def __contains__(self, key: str) -> bool:
        drawn = hashlib.blake2b(f"{self.seed}:{key}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) < _STEPS * self.percent / 100


Kind = Literal[
    "missing_collection",
    "lost_vector",
    "orphan_vector",
    "changed_vector",
    "missing_image",
    "quarantined_image",
    "quarantined_caption",
    "obsolete_row",
    "unchecked_version",
    "missing_file",
    "damaged_file",
]
Differences = dict[Kind, list[str]]
"""Row keys by kind of difference, in one range of image ids."""
_MEANINGS: Mapping[Kind, tuple[str, bool]] = {
    "missing_collection": ("the ledger has rows of a collection that Milvus does not have", True),
    "lost_vector": ("the ledger has a vector as indexed that Milvus does not have", True),
    "orphan_vector": ("Milvus has a vector without a row in the ledger", True),
    "changed_vector": ("a vector is not what its image is encoded to", True),
    "missing_image": ("an image is not in the collection of the configured version", True),
    "quarantined_image": ("an image could not be indexed; a repair tries it once more", True),
    "quarantined_caption": ("a model could not caption an image; a repair has it tried once more", True),
    "obsolete_row": ("an image is gone or has changed, and its old vector is still there", True),
    "unchecked_version": ("vectors were not compared: this version's encoder cannot be loaded", False),
    "missing_file": (f"a product's image file is gone; {_AGAIN}", False),
    "damaged_file": (f"a product's image file has other contents; {_AGAIN}", False),
}


@dataclass
class _Difference:
    count: int = 0
    examples: list[dict[str, str | None]] = field(default_factory=list)


class Findings:
    """Differences, counted by kind and collection; memory does not grow with their number."""

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str], _Difference] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(
        self,
        kind: Kind,
        collection: str,
        keys: Collection[str],
        products: Mapping[str, str] | None = None,
        number: int | None = None,
    ) -> None:
        """Count differences; `keys` may be empty.

        `collection` is empty for differences outside of collections. `products` names the products of keys that
        the catalog knows. `number` is their count where `keys` are only some of them.
        """
        if not keys:
            return
        difference = self._found.setdefault((kind, collection), _Difference())
        named, ordered = products or {}, sorted(keys)
        for key in ordered[: max(0, LOGGED - difference.count)]:
            logger.info(
                "%s: %s of product %s in %s", kind, key, named.get(key, "-"), collection or "no collection"
            )
        difference.count += len(keys) if number is None else number
        lacking = max(0, EXAMPLES - len(difference.examples))
        difference.examples += [{"key": key, "product_id": named.get(key)} for key in ordered[:lacking]]

    def concern(self, collection: str) -> bool:
        """Return whether anything in this collection differs."""
        return any(of == collection for _, of in self._found)

    def report(self) -> list[dict[str, Any]]:
        """List the differences with counts and examples, as a job's result has them."""
        return [
            {
                "kind": kind,
                "collection": collection or None,
                "meaning": _MEANINGS[kind][0],
                "repairable": _MEANINGS[kind][1],
                "count": difference.count,
                "examples": difference.examples,
            }
            for (kind, collection), difference in sorted(self._found.items())
        ]
