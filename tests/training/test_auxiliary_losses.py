"""Losses beside the one on the text."""

import numpy as np
import pytest
import torch

from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.triplets import View
from hf_talking_points.training.auxiliary_losses import AuxiliaryHeads, box_mask_loss

DOG = AnnotatedObject("dog", (10, 20, 50, 60))
SIZE = (100, 80)


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return AuxiliaryHeads(8, ["nose", "tail"], ["cat", "dog"])


def test_targets_of_a_point(heads):
    targets = heads.targets((DOG, PartPoint("tail", 20, 40)), SIZE)
    np.testing.assert_allclose(targets, [1, 1, 0.25, 0.5, 0.3, 0.5, 0.4, 0.5])


@pytest.mark.parametrize(
    ("source", "part", "category"),
    [
        (None, -100, 2),
        ((None, PartPoint("nose", 3, 4)), 0, -100),
        ((None, PartPoint(None, 3, 4)), -100, -100),
    ],
)
def test_targets_of_a_point_on_no_object(heads, source, part, category):
    targets = heads.targets(source, SIZE)
    assert targets[:2] == [part, category]
    assert np.isnan(targets[2:]).all()


def test_names_that_were_not_seen_in_training_are_left_out(heads):
    unseen = AnnotatedObject("horse", DOG.box)
    targets = heads.targets((unseen, PartPoint("mane", 20, 40)), SIZE)
    np.testing.assert_allclose(targets, [-100, -100, 0.25, 0.5, 0.3, 0.5, 0.4, 0.5])


def test_the_loss_is_finite_whatever_is_unknown(heads):
    sources = [None, (None, PartPoint(None, 1, 2)), (DOG, PartPoint("nose", 20, 30))]
    for chosen in ([0], [1], [2], [0, 1], [0, 1, 2]):
        targets = torch.tensor(
            [heads.targets(sources[index], SIZE) for index in chosen]
        )
        features = torch.randn(len(chosen), 8, requires_grad=True)
        loss = heads(features, targets)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(features.grad).all()


def test_the_loss_falls_to_nothing_where_all_is_read_right(heads):
    sources = [(DOG, PartPoint("nose", 20, 30)), (DOG, PartPoint("tail", 48, 22)), None]
    targets = torch.tensor([heads.targets(source, SIZE) for source in sources])
    features = torch.randn(3, 8)
    optimizer = torch.optim.Adam(heads.parameters(), 0.02)
    for _ in range(200):
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
