"""Schema of every collection: fields, encoded attributes, and the checks that Milvus Lite leaves out.

Engines disagree on missing keys, on mixed types, on names with brackets or dots, and on integers near
2**63. So each attribute is stored under keys that carry its kind, and a comparison only ever meets
values of its own kind:

    {"color": "red", "price": 10, "sizes": ["S", "M"]}
    {"names": ["color", "price", "sizes"],
     "all_string_color": ["red"], "one_string_color": "red",
     "all_number_price": [10.0], "one_number_price": 10.0, "all_string_sizes": ["S", "M"]}

`names` answers "exists", `all_…` holds the values that "equal" looks through, `one_…` the single value
that has an order. Numbers are 64-bit floats; what has no kind (objects, nested lists) only exists.

A declared attribute stands in a field of its own instead, where a server indexes it. Its values are of the declared
kind only: a string begins with "=" there, a bool is 0 or 1. Neither Milvus 2.3 nor Lite has nullable fields, so a
missing attribute is a value that no other can be, and that is below all others: `MISSING`. A collection with such
fields has one more, `part`: 0 or 1, by the key alone, for searches of one half of the rows.
"""

import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import numpy as np

from core.errors import ConfigError, InputTooLarge, InvalidInput
from core.filters import MAX_STRING, Kind, kind_of
from core.types import Attributes, Vector, VectorRow

NAMES = "names"
MAX_NAME = 255
MAX_DIMENSION = 32768
MAX_ID_BYTES = 800
"""A catalog takes ids of 200 characters, of up to four bytes each."""
MAX_KEY_BYTES = MAX_ID_BYTES + 24
MAX_JSON_BYTES = 65536
MAX_CALL_BYTES = 16 * 1024 * 1024
"""A quarter of the 64 MB that a Milvus server takes in one call, since encoding inflates rows."""

MISSING: Mapping[Kind, str | float | int] = {"string": "", "number": -sys.float_info.max, "bool": -1}
"""Values of the field of a declared attribute that a product does not have."""
MAX_STRING_BYTES = 4 * MAX_STRING + 1
_FIELD_PREFIX = "attribute_"

HIT_FIELDS = ["image_id", "revision", "product_id"]
MARK_PREFIX = "vitrine_store_"
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MARK = re.compile(MARK_PREFIX + r"([0-9a-f]{32})")


def check_name(name: str) -> str:
    """Return the name of a collection or alias, or refuse it.

    Raises:
        InvalidInput: not of [a-z0-9_], empty, beginning with a digit, or too long.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        shown = name.encode("utf-8", "replace").decode()[:80]
        raise InvalidInput(
            f"{shown!r} is no collection name: expected at most {MAX_NAME} of a-z, 0-9 and _, no digit first"
        )
    return name


def mark_name(store_id: str) -> str:
    """Name the empty collection that marks a Milvus as that of the catalog with this id.

    The name holds the id, since Milvus Lite keeps neither descriptions nor properties of collections.

    Raises:
        InvalidInput: the id is not of 32 hex digits.
    """
    name = f"{MARK_PREFIX}{store_id}"
    if marked_id(name) is None:
        raise InvalidInput(f"{store_id!r:.80} is no id of a store: expected 32 hex digits")
    return name


def marked_id(name: str) -> str | None:
    """Read the id from the name of a mark; None for any other collection, which a model may have."""
    found = _MARK.fullmatch(name)
    return None if found is None else found[1]


def check_dimension(dimension: int) -> int:
    """Return the dimension, or refuse what Milvus cannot index.

    Raises:
        InvalidInput: below 2 or above 32768.
    """
    if not 2 <= dimension <= MAX_DIMENSION:
        raise InvalidInput(f"the dimension {dimension} is not between 2 and {MAX_DIMENSION}")
    return dimension


def check_vector(vector: Vector, dimension: int) -> Vector:
    """Return the vector as float32 of shape (dimension,), or refuse it.

    Raises:
        InvalidInput: another shape, a value that is not finite, or a length of zero (no direction).
    """
    checked = np.asarray(vector, dtype=np.float32)
    if checked.shape != (dimension,):
        raise InvalidInput(f"the vector has shape {checked.shape}, the collection takes ({dimension},)")
    if not np.isfinite(checked).all():
        raise InvalidInput("the vector holds a value that is not finite")
    if not checked.any():
        raise InvalidInput("the vector is zero, so it has no direction to compare")
    return checked


@lru_cache(maxsize=4096)
def check_field(attribute: str) -> str:
    """Name the field of a declared attribute: letters and digits stay, other characters are their code in hex.

    Raises:
        ConfigError: the name is too long for a field, or no text.
    """
    field = _FIELD_PREFIX + re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}_", attribute)
    if len(field) > MAX_NAME or any("\ud800" <= each <= "\udfff" for each in attribute):
        raise ConfigError(
            f"the attribute {attribute[:80]!a} cannot be declared: its name is too long, or no text"
        )
    return field


def attribute_of(field: str) -> str | None:
    """Read the name of the declared attribute from that of its field; None for any other field."""
    if not field.startswith(_FIELD_PREFIX):
        return None
    return re.sub(r"_([0-9a-f]+)_", lambda match: chr(int(match[1], 16)), field.removeprefix(_FIELD_PREFIX))


def encode_rows(
    rows: Sequence[VectorRow], dimension: int, declared: Mapping[str, Kind] | None = None
) -> list[dict[str, Any]]:
    """Encode rows for a collection with fields for these `declared` attributes; all are checked first.

    Raises:
        InvalidInput: a wrong vector, id or attribute, or one key twice.
        InputTooLarge: attributes beyond the 64 KB of a JSON field.
    """
    # Images of one product share its attributes.
    shared = {id(row.item.attributes): row.item.attributes for row in rows}
    fields = {key: encode_attributes(each, declared or {}) for key, each in shared.items()}
    encoded = [_encode_row(row, dimension, fields[id(row.item.attributes)]) for row in rows]
    if declared:
        for each in encoded:
            each["part"] = zlib.crc32(each["key"].encode()) % 2
    for key, times in Counter(row["key"] for row in encoded).items():
        if times > 1:
            raise InvalidInput(f"the key {key!r} comes twice in one batch")
    return encoded


def encode_attributes(attributes: Attributes, declared: Mapping[str, Kind]) -> dict[str, Any]:
    """Encode a product's attributes as fields of its rows: one for each declared attribute, and JSON text.

    Raises:
        InvalidInput: a name or string holds a lone surrogate, which no engine can store, or a value is not of the
            declared kind.
        InputTooLarge: they take more than the 64 KB of a JSON field.
    """
    fields = {check_field(name): _declared_value(name, kind, attributes) for name, kind in declared.items()}
    stored: dict[str, Any] = {NAMES: []}
    try:
        for name, value in attributes.items():
            if value is not None and name not in declared:
                stored[NAMES].append(name)
                _add_values(stored, name, value)
        text = json.dumps(stored, ensure_ascii=False)
        size = len(text.encode())
        "".join(value for value in fields.values() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        raise InvalidInput("an attribute holds a lone surrogate, which is no character") from None
    if size > MAX_JSON_BYTES:
        raise InputTooLarge(
            f"the attributes take {size} bytes in the index; at most {MAX_JSON_BYTES} are possible"
        )
    return fields | {"attributes": text}


def declared_value(kind: Kind, value: object) -> str | float | int | None:
    """Return what the field of a declared attribute holds for a value; None for one that it cannot hold."""
    found = kind_of(value)
    if found is None or found[0] != kind:
        return None
    if isinstance(value, str):
        return f"={value}" if len(value) <= MAX_STRING else None
    stored = int(found[1]) if kind == "bool" else found[1]
    return None if stored == MISSING[kind] else stored


def _declared_value(name: str, kind: Kind, attributes: Attributes) -> str | float | int:
    value = attributes.get(name)
    if value is None:
        return MISSING[kind]
    stored = declared_value(kind, value)
    if stored is None:
        limit = f" of at most {MAX_STRING} characters" if kind == "string" else ""
        given = "a list" if isinstance(value, list | tuple) else json.dumps(value)[:40]
        raise InvalidInput(
            f"the attribute {name!r} is {given}; milvus.indexed_attributes declares it as one {kind}{limit}"
        )
    return stored


def elements_key(kind: Kind, name: str) -> str:
    """Name the stored key of all values of one kind that the attribute has."""
    return f"all_{kind}_{_plain(name)}"


def single_key(kind: Kind, name: str) -> str:
    """Name the stored key of the attribute's value when it is a single one of this kind."""
    return f"one_{kind}_{_plain(name)}"


def _add_values(stored: dict[str, Any], name: str, value: object) -> None:
    single = not isinstance(value, list | tuple)
    for element in value if isinstance(value, list | tuple) else [value]:
        if (found := kind_of(element)) is not None:
            kind, scalar = found
            stored.setdefault(elements_key(kind, name), []).append(scalar)
            if single and kind != "bool":
                stored[single_key(kind, name)] = scalar


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    """Percent-encode all but letters, digits, `_`, `-` and `.`: a `~` or `/` would end a JSON pointer."""
    return quote(name, safe="").replace("~", "%7E")


def row_bytes(row: dict[str, Any]) -> int:
    """Estimate the bytes of an encoded row in a call."""
    return int(row["embedding"].nbytes) + 4 * sum(len(each) for each in row.values() if isinstance(each, str))


def _encode_row(row: VectorRow, dimension: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
    item = row.item
    if not -(2**63) <= item.revision < 2**63:
        raise InvalidInput(f"the revision {item.revision} does not fit in 64 bits")
    return {
        "key": _check_id(item.key, MAX_KEY_BYTES),
        "image_id": _check_id(item.image_id, MAX_ID_BYTES),
        "revision": item.revision,
        "product_id": _check_id(item.product_id, MAX_ID_BYTES),
        **attributes,
        "embedding": check_vector(row.vector, dimension),
    }


def _check_id(value: str, max_bytes: int) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput("an id holds a lone surrogate, which is no character") from None
    if not 1 <= size <= max_bytes:
        raise InvalidInput(f"an id has {size} bytes, expected 1 to {max_bytes}")
    return value
