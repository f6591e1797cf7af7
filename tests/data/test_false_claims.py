"""What a text says that annotation or pixels contradict, as rows hold it."""

import numpy as np
import pytest

from hf_talking_points.data.false_claims import false_claim_rows, false_shares
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.words.facts import Scene


@pytest.fixture
def scene():
    """A red photo with a dog, whose nose is annotated."""
    nose = PartPoint("nose", 30.0, 20.0)
    dog = AnnotatedObject("dog", (5.0, 5.0, 60.0, 45.0), (nose,))
    pixels = np.full((48, 64, 3), (200, 20, 20), np.uint8)
    return Scene(Photo("a", "a", (64, 48), (dog,)), pixels)


def test_what_is_contradicted_is_told_with_its_kind(scene):
    [dog] = scene.photo.objects
    [nose] = dog.points
    assert false_claim_rows("The dog's nose.", scene, dog, nose) == []
    assert false_claim_rows("", scene, dog, nose) == []
    [claim] = false_claim_rows("The cat's nose.", scene, dog, nose)
    assert claim["kind"] == "object" and "cat" in claim["phrase"]
    assert [
        claim["kind"] for claim in false_claim_rows("A blue spot.", scene, dog, nose)
    ] == ["color"]


def test_shares_of_kinds():
    color = {"kind": "color", "phrase": "blue"}
    shares = false_shares([[color, color], [], [color], []])
    assert shares["color"] == 50
    assert sum(shares.values()) == 50
