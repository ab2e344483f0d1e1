"""Signatures and photographs a driver's telephone would take: small PNG pictures, drawn from luck alone.

PNG as in ISO/IEC 15948: signature, IHDR, IDAT (zlib), IEND. The same stop is signed the same in every run of a seed.
"""

import struct
import zlib

from firmware_sim.luck import Luck

PNG = b"\x89PNG\r\n\x1a\n"
SIGNED = (200, 80)
PHOTOGRAPHED = (120, 160)
STROKES = 5


def signature(luck: Luck) -> bytes:
    """A scrawl in black on white, as PNG bytes (8-bit grey)."""
    width, height = SIGNED
    rows = [bytearray(b"\xff" * width) for _ in range(height)]
    x, y = 12.0, height / 2
    for k in range(STROKES):
        own = luck.of("stroke", k)
        to_x, to_y = x + (width - 24) / STROKES, own.uniform("to", 12, height - 12)
        bend_y = own.uniform("bend", -40, height + 40)
        for step in range(120):
            t = step / 119
            at_x = x + (to_x - x) * t
            at_y = (1 - t) ** 2 * y + 2 * t * (1 - t) * bend_y + t * t * to_y
            _dot(rows, at_x, at_y)
        x, y = to_x, to_y
    return _png(width, height, 0, rows)


def photograph(luck: Luck) -> bytes:
    """A parcel before a door, as PNG bytes (8-bit RGB): colours and place differ, so no two are the same."""
    width, height = PHOTOGRAPHED
    wall, door, parcel = (_colour(luck.of(name)) for name in ("wall", "door", "parcel"))
    left, size = round(luck.uniform("left", 20, 70)), round(luck.uniform("size", 20, 34))
    rows = []
    for y in range(height):
        row = bytearray(wall * width)
        if 20 <= y < height - 8:
            row[3 * 28 : 3 * 92] = door * 64
        if height - 8 - size <= y < height - 8:
            row[3 * left : 3 * (left + size)] = parcel * size
        rows.append(row)
    return _png(width, height, 2, rows)


def _dot(rows: list[bytearray], x: float, y: float) -> None:
    for down in (0, 1):
        for right in (0, 1):
            at_x, at_y = round(x) + right, round(y) + down
            if 0 <= at_y < len(rows) and 0 <= at_x < len(rows[0]):
                rows[at_y][at_x] = 20


def _colour(luck: Luck) -> bytes:
    return bytes(round(luck.uniform(part, 40, 220)) for part in ("red", "green", "blue"))


def _png(width: int, height: int, colour_type: int, rows: list[bytearray]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\x00" + bytes(row) for row in rows), 6)
    return PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
