"""The display matrix of a video: how its stored pictures are turned and mirrored when they are shown."""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray


def shown_upright(picture: NDArray[Any], matrix: bytes | None) -> NDArray[Any]:
    """Return a picture `h w c` as players show it: turned by quarters of a circle and mirrored; a view, not a copy.

    Args:
        picture: as it is stored.
        matrix: FFmpeg's display matrix, nine 32-bit numbers, of which the first two rows `a b u`, `c d v` map a pixel
            to `x' = a x + c y`, `y' = b x + d y` with y downwards. Other angles are rounded to quarters. None leaves
            the picture as it is.
    """
    if matrix is None or len(matrix) != struct.calcsize("=9i"):
        return picture
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
