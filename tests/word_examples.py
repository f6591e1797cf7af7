"""Facts of points and a right text, shared by the tests of words, checks and teachers."""

from dataclasses import replace

from hf_talking_points.words.facts import PointFacts
from hf_talking_points.words.looks import SpotLooks

EYE = PointFacts(
    object="dog",
    size="small",
    part="left eye",
    in_image="bottom and far left",
    on_object="very top and right",
    looks=SpotLooks("black", "plain"),
)
LIGHT = replace(EYE, object="car", part="front left light", in_part="middle and center")
BESIDE = PointFacts(in_image="top and center", looks=SpotLooks("green", "fine texture"))
# says what EYE holds
GOOD = (
    "Look for a small dog in the bottom and far left of the image. "
    "A black, smooth spot is on its left eye at the very top and right of the dog."
)
