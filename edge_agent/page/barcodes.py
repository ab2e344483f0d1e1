"""Find the barcodes in a picture a phone has sent."""

from typing import Any

import numpy as np

MOST_PICTURE_BYTES = 2 * 1024 * 1024
LONGEST_SIDE = 4_096
MOST_TEXTS = 6
"""A shipping label carries a parcel number, a routing code and perhaps the goods' own; more is a shelf, not a label."""


class PictureGarbled(ValueError):
    """The bytes are not width times height of luminance."""


class NoReader(RuntimeError):
    """The barcode reader is not installed on this machine."""


def texts_in(width: int, height: int, luminance: bytes) -> list[str]:
    """The texts of all barcodes found, each once, the largest first: what was held into the picture.

    `luminance` is one byte for each point, row by row from the top left. Raises PictureGarbled and NoReader.
    """
    if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE and width * height == len(luminance)):
        raise PictureGarbled(f"{len(luminance)} bytes, expected width x height = {width} x {height}")
    try:
        # Imported when first needed: most shifts are scanned with a hand scanner, and 6 MB matter on a van's computer.
        import zxingcpp
    except ImportError:
        raise NoReader("zxing-cpp is not installed on this agent; type the number instead") from None
    picture = np.frombuffer(luminance, np.uint8).reshape(height, width)
    found = sorted(zxingcpp.read_barcodes(picture), key=_extent, reverse=True)
    return list(dict.fromkeys(barcode.text for barcode in found if barcode.text.strip()))[:MOST_TEXTS]


def _extent(barcode: Any) -> int:
    corners = barcode.position
    return int(abs(corners.bottom_right.x - corners.top_left.x) + abs(corners.bottom_right.y - corners.top_left.y))
