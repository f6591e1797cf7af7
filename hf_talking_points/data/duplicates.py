"""Photos that nearly equal each other, known by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

HASHES_AT_ONCE = 4096  # hashes that are compared at once


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that change little when a photo is scaled, compressed or slightly retouched.

    They are the signs of the horizontal differences of its 9 x 8 gray thumbnail.
    """
    thumbnail = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(thumbnail, dtype=np.int16)
    rises = values[:, 1:] > values[:, :-1]
    return int.from_bytes(np.packbits(rises).tobytes(), "big")


def near_duplicates(
    hashes: Sequence[int], originals: Sequence[int], bits: int
) -> np.ndarray:
    """Which of `hashes` differ by at most `bits` bits from any of `originals`, a bool array."""
    compared = np.array(hashes, dtype=np.uint64)
    held_out = np.array(originals, dtype=np.uint64)
    is_near = np.zeros(len(compared), dtype=bool)
    if len(held_out) == 0:
        return is_near
    for start in range(0, len(compared), HASHES_AT_ONCE):
        chunk = compared[start : start + HASHES_AT_ONCE, None]
        differing_bits = np.bitwise_count(chunk ^ held_out[None])  # (chunk, originals)
        is_near[start : start + HASHES_AT_ONCE] = (differing_bits <= bits).any(axis=1)
    return is_near
