"""Which attributes products have, and with what values: enough to offer filters."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from catalog.products import SqlProducts
from core.filters.meaning import kind_of
from core.shared_work import start_shared
from core.types import Attributes

MAX_PRODUCTS = 2_000
"""Products that are read: a larger catalog is judged by that many, drawn by chance."""
MAX_ATTRIBUTES = 50
MAX_VALUES = 50
MAX_CHARS = 100
"""Longer strings are prose, which nobody picks from a list."""
TTL_S = 30.0


@dataclass(slots=True)
class Attribute:
    """One attribute: how many products have it, its words and yes/no by frequency, and its span of numbers."""

    name: str
    products: int = 0
    values: Counter[str | bool] = field(default_factory=Counter)
    minimum: float | None = None
    maximum: float | None = None

    def add(self, value: object) -> None:
        """Count one product's value; the elements of a list each."""
        self.products += 1
        elements = value if isinstance(value, list) else [value]
        for kind, element in {known for each in elements if (known := kind_of(each)) is not None}:
            if kind == "number":
                self.minimum = element if self.minimum is None else min(self.minimum, element)
                self.maximum = element if self.maximum is None else max(self.maximum, element)
            elif kind == "bool" or len(element) <= MAX_CHARS:
                self.values[element] += 1


@dataclass(frozen=True, slots=True)
class Summary:
    """The attributes of those products that were read, the most frequent first."""

    products_read: int
    attributes: list[Attribute]


def summarise(products: Iterable[Attributes]) -> Summary:
    """Sum up what products hold; names that cannot be filtered by are left out."""
    found: dict[str, Attribute] = {}
    read = 0
    for attributes in products:
        read += 1
        for name, value in attributes.items():
            if value is not None:
                found.setdefault(name, Attribute(name)).add(value)
    useful = [each for each in found.values() if each.values or each.minimum is not None]
    useful.sort(key=lambda each: (-each.products, each.name))
    return Summary(read, useful[:MAX_ATTRIBUTES])


class AttributeSummaries:
    """The summary of the catalog, read anew when it is older than half a minute."""

    def __init__(self, products: SqlProducts) -> None:
        self._products = products
        self._reading: asyncio.Task[Summary] | None = None
        self._read_at = 0.0

    async def current(self) -> Summary:
        """Sum up the catalog; may raise Unavailable."""
        if self._reading is None or (self._reading.done() and time.monotonic() > self._read_at + TTL_S):
            self._reading = start_shared(self._read())
        return await asyncio.shield(self._reading)

    async def _read(self) -> Summary:
        # A failure is believed by those alone who wait for it.
        self._read_at = float("-inf")
        summary = await asyncio.to_thread(self._summarise)
        self._read_at = time.monotonic()
        return summary

    def _summarise(self) -> Summary:
        return summarise(each.attributes for each in self._products.sample(MAX_PRODUCTS))
