"""What a product may be called and hold."""

import json
import math
import re
import unicodedata
from typing import Any

from core.errors import InvalidInput, VitrineError
from core.types import Attributes

MAX_ID_CHARS = 200
MAX_TITLE_CHARS = 500
MAX_DESCRIPTION_CHARS = 20_000
MAX_KEY_CHARS = 100
MAX_ATTRIBUTES_BYTES = 32 * 1024
# All control characters and surrogates of Unicode, its categories Cc and Cs.
_ID = re.compile(rf"[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_CHARS}}}")
_INT64 = range(-(2**63), 2**63)
_NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"
"""What servers make of bytes in a path that are no UTF-8: different ones would become one id."""


def is_product_id(value: str) -> bool:
    """Tell whether a product can have this id: anything else cannot be stored, so it is not found."""
    return value not in (".", "..") and _ID.fullmatch(value) is not None


def check_product_id(value: str, param: str = "product_id") -> None:
    """Refuse an id that cannot stand in a path of the API.

    Raises:
        InvalidInput: it is empty, too long, `.` or `..`, or holds "/", a control character or a surrogate.
    """
    if not is_product_id(value):
        raise _invalid(
            f'a product id has 1 to {MAX_ID_CHARS} characters, none of them "/" or a control character, '
            'and is not "." or ".."',
            param,
        )


def check_new_product_id(value: str) -> None:
    """Refuse an id that no product should get, though one may have it.

    Raises:
        InvalidInput: as by `check_product_id`, or it holds the replacement character.
    """
    check_product_id(value)
    if _NOT_UTF8 in value:
        raise _invalid(
            "a product id holds no U+FFFD, which stands for bytes that are not UTF-8", "product_id"
        )


def check_texts(title: str, description: str) -> None:
    """Refuse texts that are too long or that a database cannot hold.

    Raises:
        InvalidInput: the title or the description is such a text.
    """
    for name, text, most in (
        ("title", title, MAX_TITLE_CHARS),
        ("description", description, MAX_DESCRIPTION_CHARS),
    ):
        if len(text) > most:
            raise _invalid(f"the {name} has {len(text)} characters; at most {most} are kept", name)
        if not _is_storable(text):
            raise _invalid(f"the {name} holds a NUL or half a surrogate pair", name)


def check_attributes(attributes: Attributes) -> None:
    """Refuse attributes that a search cannot filter by.

    Raises:
        InvalidInput: a key is empty, too long or unprintable; a value is neither a scalar nor a list of
            scalars; a number is not finite or beyond 64 bits; all together are too large.
    """
    sizes: dict[str, int] = {}
    for key, value in attributes.items():
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or not _is_printable(key):
            raise _invalid(
                f"attribute name {key!r:.120} must have 1 to {MAX_KEY_CHARS} characters and no control "
                "characters",
                "attributes",
            )
        for item in value if isinstance(value, list | tuple) else [value]:
            _check_scalar(key, item)
        sizes[key] = len(json.dumps({key: value}, ensure_ascii=False, separators=(",", ":")).encode())
    if sum(sizes.values()) > MAX_ATTRIBUTES_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        raise _invalid(
            f"the attributes are larger than {MAX_ATTRIBUTES_BYTES} bytes of JSON; "
            f"the largest is {largest!r} with {sizes[largest]}",
            f"attributes.{largest}",
        )


def _check_scalar(key: str, value: Any) -> None:
    match value:
        case bool():
            return
        case str() if not _is_storable(value):
            problem = "holds a NUL or half a surrogate pair"
        case int() if value not in _INT64:
            problem = "does not fit into 64 bits"
        case float() if not math.isfinite(value):
            problem = "is not a finite number"
        case str() | int() | float():
            return
        case _:
            problem = "must be a string, a number, a boolean or a list of these"
    raise _invalid(f"attribute {key!r} {problem}", f"attributes.{key}")


def _is_storable(text: str) -> bool:
    # PostgreSQL refuses NUL in text, and neither database can encode a lone surrogate.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _invalid(message: str, param: str) -> VitrineError:
    return InvalidInput(message).at(param)
