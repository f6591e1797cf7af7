"""Feature maps on disk."""

import errno
import os

import numpy as np
import pytest
import torch
from supervised_runs import draw_photos

from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.training.triplet_dataset import cache_views, triplet_dataset

BATCH = 32  # canvases of one forward pass
NOTED = 640  # canvases after which progress is noted


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(
        read_objects(draw_photos(tmp_path_factory.mktemp("data") / "photos"))
    )


class Calls:
    """A forward hook that counts, and fails at the call with a number."""

    def __init__(self, fails_at=None):
        self.count = 0
        self.fails_at = fails_at

    def __call__(self, *args):
        self.count += 1
        if self.count == self.fails_at:
            raise KeyboardInterrupt


def counted(backbone, fails_at=None):
    calls = Calls(fails_at)
    backbone._forward_hooks.clear()
    backbone.register_forward_hook(calls)
    return calls


def test_cached_features_equal_computed_ones(make_localizer, views, tmp_path):
    model, processor = make_localizer()
    backbone = model.model.backbone
    cache_views(tmp_path, backbone, processor, views)
    calls = counted(backbone)
    cache = cache_views(tmp_path, backbone, processor, views)
    assert calls.count == 0
    assert len(list(tmp_path.iterdir())) == 1

    computed = triplet_dataset(views, processor, seed=0)[0]
    cached = triplet_dataset(views, processor, cache, seed=0)[0]
    with torch.no_grad():
        expected = backbone(computed["pixel_values"][None]).feature_maps
    for stored, level in zip(cached["feature_maps"], expected, strict=True):
        # kept in half precision
        torch.testing.assert_close(stored, level[0].float(), atol=0.05, rtol=0.05)
    assert cached["descriptions"] == computed["descriptions"]
    assert torch.equal(cached["points"], computed["points"])


def test_a_cache_that_was_cut_off_is_completed(make_localizer, views, tmp_path):
    model, processor = make_localizer()
    backbone = model.model.backbone
    many = (views * 80)[: NOTED + 80]
    whole = cache_views(tmp_path / "whole", backbone, processor, many)
    counted(backbone, fails_at=NOTED // BATCH + 1)
    with pytest.raises(KeyboardInterrupt):
        cache_views(tmp_path / "cut", backbone, processor, many)
    calls = counted(backbone)
    completed = cache_views(tmp_path / "cut", backbone, processor, many)
    assert calls.count == 3  # 80 canvases in batches of 32
    for expected, level in zip(whole.levels, completed.levels, strict=True):
        np.testing.assert_array_equal(level, expected)


def test_a_full_disk_is_an_error_with_the_file_that_found_no_room(
    make_localizer, views, tmp_path, monkeypatch
):
    model, processor = make_localizer()
    sizes = []

    def fallocate(descriptor, offset, size):
        sizes.append(size)
        if len(sizes) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fallocate)
        with pytest.raises(OSError, match="No space left on device.*level1.npy"):
            cache_views(tmp_path, model.model.backbone, processor, views)
    cache = cache_views(tmp_path, model.model.backbone, processor, views)
    assert sizes == [file.nbytes + file.offset for file in cache.levels[:2]]
    again = cache_views(tmp_path / "new", model.model.backbone, processor, views)
    for level, expected in zip(cache.levels, again.levels, strict=True):
        np.testing.assert_array_equal(level, expected)


def test_another_backbone_has_another_cache(make_localizer, views, tmp_path):
    for seed in (0, 1):
        model, processor = make_localizer(seed=seed)
        cache_views(tmp_path, model.model.backbone, processor, views)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("statistic", ["image_mean", "image_std"])
def test_another_normalization_has_another_cache(
    make_localizer, views, tmp_path, statistic
):
    model, processor = make_localizer()
    before = cache_views(tmp_path, model.model.backbone, processor, views)
    setattr(processor.image_processor, statistic, [0.25, 0.5, 0.3])
    after = cache_views(tmp_path, model.model.backbone, processor, views)
    assert len(list(tmp_path.iterdir())) == 2
    assert not np.array_equal(before.levels[0], after.levels[0])


def test_other_pixels_under_the_same_name_have_another_cache(make_localizer, tmp_path):
    model, processor = make_localizer()
    folder = draw_photos(tmp_path / "photos")
    caches = []
    for _ in range(2):
        views = make_views(read_objects(folder))
        caches.append(
            cache_views(tmp_path / "cache", model.model.backbone, processor, views)
        )
        content = (folder / "4.png").read_bytes()
        (folder / "2.png").write_bytes(content)
    first, second = caches
    assert first.folder != second.folder
    assert not np.array_equal(first.levels[0][:], second.levels[0][:])


def test_a_photo_that_was_moved_keeps_its_cache(make_localizer, tmp_path):
    model, processor = make_localizer()
    backbone = model.model.backbone
    views = make_views(read_objects(draw_photos(tmp_path / "photos")), 2)
    cache_views(tmp_path / "cache", backbone, processor, views)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    calls = counted(backbone)
    views = make_views(read_objects(tmp_path / "elsewhere"), 2)
    cache_views(tmp_path / "cache", backbone, processor, views)
    assert calls.count == 0
