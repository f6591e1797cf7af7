"""What the pixels around a point look like, in words."""

import pytest

from hf_talking_points.words.looks import COLORS, nearest_colors

PROTOTYPES = [(name, rgb) for name, some in COLORS.items() for rgb in some]


@pytest.mark.parametrize(("name", "rgb"), PROTOTYPES)
def test_each_prototype_has_its_own_name(name, rgb):
    [nearest] = nearest_colors(rgb, count=1)
    assert nearest == name
