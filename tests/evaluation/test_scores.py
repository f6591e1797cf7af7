"""The numbers of systems: misses, photos by their content, subsets, comparisons."""

import numpy as np
import pytest
from conftest import noise_image
from dog_photos import names_in_split, write_dogs

from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.evaluation.scores import (
    agreement,
    claim_scores,
    claims_of_systems,
    compare_with_reference,
    image_ids,
    points_table,
    scores,
)


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_dogs(folder, names_in_split("test", 12))
    return make_views(list(read_objects(folder)))


@pytest.fixture(scope="module")
def points(views):
    return points_table(views)


@pytest.fixture
def photo(tmp_path):
    """Makes a photo with one point, of an id and of pixels that follow from a seed."""

    def make(image_id, seed):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        noise_image(seed, 40, 30).save(path)
        owner = AnnotatedObject(
            "dog", (0.0, 0.0, 40.0, 30.0), (PartPoint("nose", 5.0, 6.0),)
        )
        return Photo(image_id, str(path), (40, 30), (owner,), "test")

    return make


def test_true_points_score_100(points):
    numbers, distances = scores(points[["x", "y"]].to_numpy(), points)
    assert numbers["mpck"] == numbers["pck@0.02"] == numbers["box_pck@0.1"] == 100
    assert numbers["misses"] == 0
    assert (distances == 0).all()


def test_what_was_not_found_counts_as_the_farthest_corner(points):
    found = np.full((len(points), 2), np.nan)
    numbers, distances = scores(found, points)
    assert numbers["misses"] == len(points)
    assert numbers["mpck"] == 0
    assert (distances >= 0.5**0.5).all()
    assert 1 < distances.max() <= 2**0.5


def test_points_that_share_object_and_part_are_ambiguous(points):
    twice = points.groupby("image_id").part.transform("size") > 3
    assert (points.unambiguous == ~twice).all()
    assert twice.any() and not twice.all()
    numbers, _ = scores(points[["x", "y"]].to_numpy(), points)
    stratum = numbers["strata"]["unambiguous by object and part"]
    assert stratum["n"] == int((~twice).sum())


def test_subsets_that_have_no_point_are_left_out(points):
    strata = scores(points[["x", "y"]].to_numpy(), points)[0]["strata"]
    assert "SIFT points" not in strata
    assert "crowded images (3 objects or more)" not in strata


def test_a_photo_is_its_content(photo):
    same_name = [photo("1.png", 0), photo("1.png", 1), photo("2.png", 2)]
    first, second, third = image_ids(make_views(same_name))
    assert first == "1.png" and third == "2.png"
    assert second.startswith("1.png (") and second != first
    assert points_table(make_views(same_name)).image_id.nunique() == 3


def test_copies_of_a_photo_are_one_photo(photo):
    copies = [
        photo("1.png", 0),
        photo("red/1.png", 0),
        photo("1.png", 0),
        photo("2.png", 1),
    ]
    assert image_ids(make_views(copies)) == ["1.png", "1.png", "1.png", "2.png"]


def test_intervals_are_those_of_different_photos(photo):
    points = points_table(
        make_views([photo("1.png", 0), photo("1.png", 1), photo("1.png", 2)])
    )
    found = np.array(points[["x", "y"]], dtype=float)
    found[0] += 20
    low, high = scores(found, points)[0]["ci95"]["mpck"]
    assert low < high  # NaN for a single photo


def test_points_on_no_object(photo):
    bare = photo("1.png", 0)
    bare = Photo(
        "1.png", bare.path, bare.size, (), "test", points=(PartPoint(None, 5.0, 6.0),)
    )
    points = points_table(make_views([bare, photo("2.png", 1)]))
    numbers, distances = scores(points[["x", "y"]].to_numpy(), points)
    assert numbers["box_n"] == 1 and len(distances) == 2
    assert points.unambiguous.tolist() == [False, True]
    assert points.object.isna().tolist() == [True, False]


def test_false_claims_are_counted_by_text_and_kind():
    color = {"kind": "color", "phrase": "blue"}
    part = {"kind": "part", "phrase": "the tail"}
    texts = ["a", "b", "", "d"]
    claims = [[color, color, part], [], [], [color]]
    numbers = claim_scores(texts, claims, ["1.png", "1.png", "2.png", "3.png"])
    assert numbers["n"] == 3
    assert numbers["share"] == pytest.approx(200 / 3)
    assert numbers["kinds"]["color"] == pytest.approx(200 / 3)
    assert numbers["kinds"]["part"] == pytest.approx(100 / 3)
    assert numbers["kinds"]["object"] == 0
    low, high = numbers["ci95"]
    assert low <= numbers["share"] <= high
    assert claim_scores(["", ""], [[], []], ["1.png", "2.png"]) is None


def test_texts_are_held_against_the_annotation_of_their_point(views):
    right, wrong = [], []
    for view in views:
        for _, point in view.points():
            right.append(f"The {point.part} of the dog.")
            wrong.append("The door of a car.")
    claims = claims_of_systems(views, {"right": right, "wrong": wrong})
    assert not any(claims["right"])
    assert all(claims["wrong"])


def rows_of(first, second):
    """Rows of a report in which two localizers give systems these mPCKs."""
    rows = []
    for localizer, values in (("one", first), ("two", second)):
        for number, value in enumerate(values):
            row = {
                "system": str(number),
                "localizer": localizer,
                "mpck": value,
                "control": False,
            }
            rows.append(row)
    return rows


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ([1, 2, 3], [10, 20, 30], 1),
        ([1, 2, 3], [30, 20, 10], -1),
        ([1, 2], [10, 20], None),
        ([1, 2, 3], [], None),
    ],
)
def test_agreement_of_rankings(first, second, expected):
    assert agreement(rows_of(first, second)) == (expected and pytest.approx(expected))


def test_systems_are_compared_through_the_same_localizer(points):
    samples = {}
    rows = []
    for system, localizer, distance in (
        ("truth", "one", 0.0),
        ("text", "one", 0.15),
        ("truth", "two", 0.15),
        ("text", "two", 0.15),
        ("center", "-", 0.3),
    ):
        samples[system, localizer] = points.assign(distance=distance)
        rows.append({"system": system, "localizer": localizer})
    compare_with_reference(rows, samples, "truth", "one")
    assert ["versus" in row for row in rows] == [False, True, False, True, True]
    assert [row["versus"]["difference"] for row in rows if "versus" in row] == [
        -50,
        0,
        -100,
    ]


def test_nothing_is_compared_without_the_reference(points):
    rows = [{"system": "text", "localizer": "one"}]
    compare_with_reference(
        rows, {("text", "one"): points.assign(distance=0.0)}, "truth", "one"
    )
    assert rows == [{"system": "text", "localizer": "one"}]
