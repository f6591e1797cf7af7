"""Losses beside the one on the text."""

import numpy as np
import pytest
import torch

from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.triplets import View
from hf_talking_points.training.auxiliary_losses import (
    IGNORED,
    STEPS,
    AuxiliaryHeads,
    box_mask_loss,
    known_boxes,
    known_targets,
    steps_of,
)
from hf_talking_points.words.looks import COLOR_NAMES, PATTERNS, ranked_colors

DOG = AnnotatedObject("dog", (10, 20, 50, 60))
SIZE = (100, 80)
COLOR = [60.0, -10.0, 25.0]  # CIELAB
SCALED = [1.2, -0.2, 0.5]
PATTERN = PATTERNS[2]
COLOR_NAME = COLOR_NAMES.index(ranked_colors(np.array([COLOR]), 1)[0][0])
PIXEL = (20, 40)
PLACE = (0.2, 0.5)  # the same in parts of the photo
NAN = float("nan")


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return AuxiliaryHeads(8, ["nose", "tail"], ["cat", "dog"])


def test_targets_of_a_point(heads):
    tail = PartPoint("tail", 20, 40, box=(10, 20, 20, 60))
    targets = heads.targets((DOG, tail), SIZE, COLOR, PATTERN, PIXEL)
    names = [COLOR_NAME, 2, 1, 1]
    places = [*PLACE, 0.25, 0.5, 0.3, 0.5, 1.0, 0.5]
    np.testing.assert_allclose(targets, [*SCALED, *names, *places, 0.4, 0.5])


@pytest.mark.parametrize(
    ("source", "part", "category"),
    [
        (None, -100, 2),
        ((None, PartPoint("nose", 3, 4)), 0, -100),
        ((None, PartPoint(None, 3, 4)), -100, -100),
    ],
)
def test_targets_of_a_point_on_no_object(heads, source, part, category):
    targets = heads.targets(source, SIZE, COLOR, PATTERN, PIXEL)
    assert targets[3:9] == [COLOR_NAME, 2, part, category, *PLACE]
    assert np.isnan(targets[9:]).all()


def test_names_that_were_not_seen_in_training_are_left_out(heads):
    unseen = AnnotatedObject("horse", DOG.box)
    source = (unseen, PartPoint("mane", 20, 40))
    targets = heads.targets(source, SIZE, COLOR, PATTERN, PIXEL)
    names = [COLOR_NAME, 2, -100, -100]
    places = [*PLACE, 0.25, 0.5, 0.3, 0.5, NAN, NAN]
    np.testing.assert_allclose(targets, [*SCALED, *names, *places, 0.4, 0.5])


def test_shares_are_counted_in_steps():
    shares = torch.tensor([[0.0, 0.099, 0.1, 0.95], [1.0, 1.2, -0.3, NAN]])
    last = STEPS - 1
    assert steps_of(shares).tolist() == [[0, 0, 1, last], [last, last, 0, IGNORED]]


def test_the_loss_is_finite_whatever_is_unknown(heads):
    sources = [None, (None, PartPoint(None, 1, 2)), (DOG, PartPoint("nose", 20, 30))]
    for chosen in ([0], [1], [2], [0, 1], [0, 1, 2]):
        targets = torch.tensor(
            [
                heads.targets(sources[index], SIZE, COLOR, PATTERN, PIXEL)
                for index in chosen
            ]
        )
        features = torch.randn(len(chosen), 8, requires_grad=True)
        loss = heads(features, targets)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(features.grad).all()


def test_the_loss_falls_to_nothing_where_all_is_read_right(heads):
    sources = [(DOG, PartPoint("nose", 20, 30)), (DOG, PartPoint("tail", 48, 22)), None]
    targets = torch.tensor(
        [heads.targets(source, SIZE, COLOR, PATTERN, PIXEL) for source in sources]
    )
    features = torch.randn(3, 8)
    optimizer = torch.optim.Adam(heads.parameters(), 0.02)
    for _ in range(500):
        optimizer.zero_grad()
        loss = heads(features, targets)
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_heads_know_the_names_of_the_photos():
    named = AnnotatedObject(
        "dog", DOG.box, (PartPoint("tail", 20, 40), PartPoint(None, 21, 41))
    )
    photo = Photo("a", None, SIZE, (named,), points=(PartPoint("rim", 1, 2),))
    heads = AuxiliaryHeads.for_views(8, [View(photo, photo)])
    assert heads.parts == {"rim": 0, "tail": 1}
    assert heads.categories == {"dog": 0}


def test_box_mask_loss_wants_the_inside_of_the_box():
    nan = float("nan")
    boxes = torch.tensor([[0.25, 0.0, 0.75, 0.5], [nan, nan, nan, nan]])
    inside = torch.full((2, 8, 8), -20.0)
    inside[:, :4, 2:6] = 20.0
    assert box_mask_loss([inside], boxes) < 1e-3
    assert box_mask_loss([-inside], boxes) > 1
    assert box_mask_loss([inside[1:]], boxes[1:]) == 0
    both = box_mask_loss([inside, -inside], boxes)
    mean = (box_mask_loss([inside], boxes) + box_mask_loss([-inside], boxes)) / 2
    torch.testing.assert_close(both, mean)


@pytest.mark.parametrize("sizes", [(6,), (3, 3), (1, 2, 3), (1, 1, 1, 1, 1, 1)])
def test_the_losses_of_pieces_add_up_to_that_of_the_whole(heads, sizes):
    """Also where a piece knows nothing of what the losses ask for."""
    nose = (DOG, PartPoint("nose", 20, 30))
    tail = (DOG, PartPoint("tail", 48, 22))
    sources = [nose, None, (None, PartPoint("tail", 3, 4)), tail, nose, None]
    targets = torch.tensor(
        [heads.targets(source, SIZE, COLOR, PATTERN, PIXEL) for source in sources]
    )
    nan = float("nan")
    boxes = torch.tensor([[0.25, 0.0, 0.75, 0.5], [nan] * 4]).repeat(3, 1)
    features = torch.randn(6, 8)
    mask_logits = [torch.randn(6, 8, 8), torch.randn(6, 8, 8)]
    known = known_targets(targets)
    count = known_boxes(boxes)
    # of 6 points in the photo, 3 on an object with its center
    assert known.tolist() == [6, 4, 5, 3, 6 * 2 + 3 * 4]
    assert count == 3
    pieces = torch.arange(6).split(sizes)
    heads_losses = [heads(features[rows], targets[rows], known) for rows in pieces]
    mask_losses = []
    for rows in pieces:
        logits = [layer[rows] for layer in mask_logits]
        mask_losses.append(box_mask_loss(logits, boxes[rows], count))
    torch.testing.assert_close(sum(heads_losses), heads(features, targets))
    torch.testing.assert_close(sum(mask_losses), box_mask_loss(mask_logits, boxes))


def test_every_weight_of_the_heads_has_a_gradient_whatever_is_unknown(heads):
    targets = torch.tensor(
        [heads.targets((None, PartPoint(None, 3, 4)), SIZE, COLOR, PATTERN, PIXEL)]
    )
    heads(torch.randn(1, 8), targets).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
