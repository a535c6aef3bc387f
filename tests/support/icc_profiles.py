"""Color profiles (specification ICC.1:2001-04, chapter 6), made on the spot."""

import struct

D50 = (0.9642, 1.0, 0.8249)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65_536 * value) for value in values))


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(256 * exponent), 0)


def profile(space: bytes, **tags: bytes) -> bytes:
    """An ICC profile of version 2.4 (specification ICC.1:2001-04, chapter 6)."""
    tags = {"wtpt": xyz(*D50), **tags}
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += name.encode() + struct.pack(">2I", at + len(body), len(tag))
        body += tag
    pcs = b"Lab " if "A2B0" in tags else b"XYZ "
    head = struct.pack(">2I", at + len(body), 0) + b"\2\x40\0\0mntr" + space + pcs + bytes(12) + b"acsp"
    return (head + bytes(28) + xyz(*D50)[8:]).ljust(128, b"\0") + table + body


def of_primaries(exponent: float, *colors: tuple[float, float, float]) -> bytes:
    tags = {f"{name}XYZ": xyz(*color) for name, color in zip("rgb", colors, strict=True)}
    return profile(b"RGB ", **tags, **{f"{name}TRC": gamma(exponent) for name in "rgb"})
