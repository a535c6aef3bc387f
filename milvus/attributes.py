"""How a product's attributes are stored, so that one expression means the same on every engine.

Engines disagree on missing keys, on mixed types, on names with brackets or dots, and on integers near
2**63. So each attribute is stored under keys that carry its kind, and a comparison only ever meets
values of its own kind:

    {"color": "red", "price": 10, "sizes": ["S", "M"]}
    {"names": ["color", "price", "sizes"],
     "all_string_color": ["red"], "one_string_color": "red",
     "all_number_price": [10.0], "one_number_price": 10.0, "all_string_sizes": ["S", "M"]}

`names` answers "exists", `all_…` holds the values that "equal" looks through, `one_…` the single value
that has an order. Numbers are 64-bit floats; what has no kind (objects, nested lists) only exists.
"""

from typing import Any
from urllib.parse import quote

from core.errors import InvalidInput
from core.filters import Kind, kind_of
from core.types import Attributes

NAMES = "names"


def encode_attributes(attributes: Attributes) -> dict[str, Any]:
    """Turn a product's attributes into the JSON value that a collection's row holds.

    Raises:
        InvalidInput: a name or string holds a lone surrogate, which no engine can store.
    """
    stored: dict[str, Any] = {NAMES: []}
    for name, value in attributes.items():
        if value is not None:
            stored[NAMES].append(_encodable(name))
            _encode_one(stored, name, value)
    return stored


def elements_key(kind: Kind, name: str) -> str:
    """The stored key of all values of one kind that the attribute has."""
    return f"all_{kind}_{_plain(name)}"


def single_key(kind: Kind, name: str) -> str:
    """The stored key of the attribute's value when it is a single one of this kind."""
    return f"one_{kind}_{_plain(name)}"


def _encode_one(stored: dict[str, Any], name: str, value: object) -> None:
    single = not isinstance(value, list | tuple)
    for element in [value] if not isinstance(value, list | tuple) else value:
        found = kind_of(element)
        if found is None:
            continue
        kind, scalar = found
        if kind == "string":
            _encodable(scalar)
        stored.setdefault(elements_key(kind, name), []).append(scalar)
        if single and kind != "bool":
            stored[single_key(kind, name)] = scalar


def _plain(name: str) -> str:
    """Percent-encode all but letters, digits, `_`, `-` and `.`: a `~` or `/` would end a JSON pointer."""
    return quote(name, safe="").replace("~", "%7E")


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("an attribute holds a lone surrogate, which is no character") from None
    return text
