"""What the cells of a CSV column are: whole columns of numbers or truth values, else texts."""

import math
import re
from collections.abc import Callable
from typing import Any

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_TRUTHS = {"true": True, "false": False}
_INT64 = range(-(2**63), 2**63)


class ColumnTypes:
    """Learns the types of columns from all of their cells, so that no column mixes two.

    A number with a leading zero, as an article number or a postal code, makes its column one of texts.
    """

    def __init__(self) -> None:
        self._fits: dict[str, list[str]] = {}

    def learn(self, column: str, text: str) -> None:
        """Take a cell in; an empty one says nothing."""
        text = text.strip()
        if not text:
            return
        fits = self._fits.setdefault(column, list(_READERS))
        if fits:
            fits[:] = [name for name in fits if _FITS[name](text)]

    def convert(self, column: str, text: str | None) -> Any:
        """The value of a cell by the type of its column."""
        stripped = (text or "").strip()
        fits = self._fits.get(column)
        if not stripped or not fits:
            return text
        return _READERS[fits[0]](stripped)


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and len(text) <= 20 and int(text) in _INT64


def _is_number(text: str) -> bool:
    # A whole number that 64 bits do not hold is an identifier, of which a float would lose digits.
    if _INTEGER.fullmatch(text):
        return _is_integer(text)
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


_FITS: dict[str, Callable[[str], bool]] = {
    "truth": lambda text: text.lower() in _TRUTHS,
    "integer": _is_integer,
    "number": _is_number,
}
_READERS: dict[str, Callable[[str], Any]] = {
    "truth": lambda text: _TRUTHS[text.lower()],
    "integer": int,
    "number": float,
}
