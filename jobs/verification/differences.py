"""Differences between catalog, ledger, Milvus and image files, counted by kind, and the share sampled."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_STEPS = 2**64


@dataclass(frozen=True, slots=True)
class Sample:
    """About `percent` of all row keys; another seed draws others."""

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
"""Row keys by how they differ, of one range of image ids."""
_AGAIN = "put the product with its images again, or repair and import it again"
_MEANINGS: Mapping[Kind, tuple[str, bool]] = {
    "missing_collection": ("the ledger says that a collection holds rows, and Milvus does not have it", True),
    "lost_vector": ("the ledger says that a vector is in, and Milvus does not hold it", True),
    "orphan_vector": ("Milvus holds a vector that the ledger knows nothing of", True),
    "changed_vector": ("a vector is not what its image is encoded to", True),
    "missing_image": ("an image is not in the collection of the configured version", True),
    "quarantined_image": ("an image could not be indexed; a repair tries it once more", True),
    "quarantined_caption": ("a model could not caption an image; a repair has it tried once more", True),
    "obsolete_row": ("an image is gone or has changed, and its old vector is still there", True),
    "unchecked_version": ("vectors were not compared: this version's encoder cannot be loaded", False),
    "missing_file": (f"a product's image file is gone; {_AGAIN}", False),
    "damaged_file": (f"a product's image file has other contents; {_AGAIN}", False),
}
EXAMPLES = 10
LOGGED = 10_000
"""Differences of a kind that the log names one by one: as many lines of it as can be asked for."""

logger = logging.getLogger(__name__)


@dataclass
class _Difference:
    count: int = 0
    examples: list[dict[str, str | None]] = field(default_factory=list)


class Findings:
    """The differences that were found, counted by kind and collection; memory does not grow with them."""

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
        """Count differences; none are fine.

        `collection` is empty for what belongs to none. `products` names the products of keys where the
        catalog knows them. `number` is how many there are where `keys` are but some of them.
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
        room = EXAMPLES - len(difference.examples)
        difference.examples += [
            {"key": key, "product_id": named.get(key)} for key in ordered[:room] if room > 0
        ]

    def concern(self, collection: str) -> bool:
        """Tell whether anything of this collection differs."""
        return any(of == collection for _, of in self._found)

    def report(self) -> list[dict[str, Any]]:
        """List the differences with numbers and examples, as a job's result holds them."""
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
