"""Perceptual hashes of photos."""

import numpy as np
from PIL import Image

from hf_talking_points.data.duplicates import near_duplicates, perceptual_hash


def photo(seed, size):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def test_perceptual_hash_survives_scaling_and_compression(tmp_path):
    original = photo(1, (256, 192))
    original.save(tmp_path / "small.jpg", quality=60)
    changed = Image.open(tmp_path / "small.jpg").resize((100, 75))
    originals = [perceptual_hash(original)]
    assert near_duplicates([perceptual_hash(changed)], originals, 3).all()
    others = [perceptual_hash(photo(seed, (64, 48))) for seed in range(2, 60)]
    assert not near_duplicates(others, originals, 3).any()
    assert not near_duplicates(others, [], 3).any()


def test_many_hashes_are_compared_like_few():
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 5000)]
    near = near_duplicates(hashes, [hashes[4500] ^ 0b101], 2)
    assert np.flatnonzero(near).tolist() == [4500]
    assert not near_duplicates(hashes, [hashes[4500] ^ 0b101], 1).any()
