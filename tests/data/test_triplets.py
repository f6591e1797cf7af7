"""Triplets drawn from views of annotated photos."""

import numpy as np
import pytest
from PIL import Image

from hf_talking_points.data.sources import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.triplets import make_views, sample_triplets, surrounding_point


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    points = (PartPoint("left_eye", 8, 8), PartPoint("nose", 10, 12), PartPoint("tailbase", 18, 15))
    return Photo(
        "a.png",
        str(tmp_path / "a.png"),
        (60, 40),
        (AnnotatedObject("dog", (2, 2, 20, 20), points),),
    )


def test_views_are_seeded_and_hold_points(photo):
    views = make_views([photo], views_per_photo=5, seed=3)
    assert views[0].crop is None and views[0].photo is photo
    assert (
        [v.key for v in views]
        == [v.key for v in make_views([photo], 5, 3)]
        != [v.key for v in make_views([photo], 5, 4)]
    )
    assert len({v.key for v in views}) == len(views) and all(v.points() for v in views)
    assert all(v.image().size == v.photo.size for v in views)


def test_every_annotated_point_comes_before_any_comes_twice(photo):
    [chosen] = make_views([photo])
    points, texts, sources = sample_triplets(chosen, 6, np.random.default_rng(0))
    assert (
        {p.part for _, p in sources[:3]}
        == {p.part for _, p in sources[3:]}
        == {"left_eye", "nose", "tailbase"}
    )
    for (x, y), text, (_, point) in zip(points, texts, sources):
        assert (x, y) == (point.x, point.y) and "dog" in text and "red, smooth spot" in text


def test_styles_are_drawn_by_weight(photo):
    [chosen] = make_views([photo])
    _, texts, _ = sample_triplets(
        chosen, 300, np.random.default_rng(0), {"full": 0.75, "terse": 0.25}
    )
    assert 0.15 < sum(len(text) < 40 for text in texts) / 300 < 0.35


def test_surroundings_lie_beside_all_objects(photo):
    [chosen] = make_views([photo])
    points, texts, sources = sample_triplets(
        chosen, 200, np.random.default_rng(0), surroundings=0.5
    )
    beside = [
        (point, text) for point, text, source in zip(points, texts, sources) if source is None
    ]
    assert 60 < len(beside) < 140
    for (x, y), text in beside:
        assert (x >= 26 or y >= 24) and 0 <= x <= 60 and 0 <= y <= 40 and "dog" not in text


def test_a_photo_filled_by_its_object_has_no_surroundings(photo):
    filled = Photo(
        "a",
        photo.path,
        (60, 40),
        (AnnotatedObject("dog", (0, 0, 60, 40), photo.objects[0].points),),
    )
    assert surrounding_point(filled, np.random.default_rng(0)) is None
    _, _, sources = sample_triplets(
        make_views([filled])[0], 10, np.random.default_rng(0), surroundings=1.0
    )
    assert None not in sources
