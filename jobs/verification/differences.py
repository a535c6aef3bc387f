"""What can differ between catalog, ledger, Milvus and picture files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "missing_collection",
    "lost_vector",
    "orphan_vector",
    "changed_vector",
    "missing_picture",
    "quarantined_picture",
    "obsolete_row",
    "unchecked_version",
    "missing_file",
    "damaged_file",
]
_MEANINGS: Mapping[Kind, tuple[str, bool]] = {
    "missing_collection": ("the ledger has rows of a collection that Milvus does not hold", True),
    "lost_vector": ("the ledger says that a vector is in, and Milvus does not hold it", True),
    "orphan_vector": ("Milvus holds a vector that the ledger knows nothing of", True),
    "changed_vector": ("a vector is not what its picture is encoded to", True),
    "missing_picture": ("a picture is not in the collection of the configured version", True),
    "quarantined_picture": ("a picture could not be indexed; a repair tries it once more", True),
    "obsolete_row": ("a picture is gone or has changed, and its old vector is still there", True),
    "unchecked_version": ("vectors were not compared: this version's encoder cannot be loaded", False),
    "missing_file": ("a product's picture file is gone; store the product with its pictures again", False),
    "damaged_file": ("a product's picture file has other contents; store it with its pictures again", False),
}
EXAMPLES = 10


@dataclass
class Findings:
    """The differences that were found, by kind and collection; files of pictures belong to none."""

    found: dict[tuple[Kind, str], list[str]] = field(default_factory=dict)
    products: dict[str, str] = field(default_factory=dict)
    """The product of each row key that is named, where the catalog knows it."""

    def add(self, kind: Kind, collection: str, keys: Iterable[str]) -> None:
        """Take in differences; none are fine."""
        if keys := list(keys):
            self.found[kind, collection] = sorted({*self.of(kind, collection), *keys})

    def of(self, kind: Kind, collection: str) -> list[str]:
        """Return the keys that differ so in a collection."""
        return self.found.get((kind, collection), [])

    def told(self) -> list[dict[str, Any]]:
        """List the differences with numbers and examples, as a job's result holds them."""
        return [
            {
                "kind": kind,
                "collection": collection or None,
                "meaning": _MEANINGS[kind][0],
                "repairable": _MEANINGS[kind][1],
                "count": len(keys),
                "examples": [{"key": key, "product_id": self.products.get(key)} for key in keys[:EXAMPLES]],
            }
            for (kind, collection), keys in sorted(self.found.items())
        ]
