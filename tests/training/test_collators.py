"""Batches of the models."""

import numpy as np
import pytest
import torch
from supervised_runs import draw_photos

from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.models.coordinates import pixels_to_canvas
from hf_talking_points.training.auxiliary_losses import AuxiliaryHeads
from hf_talking_points.training.collators import DescriptorCollator, LocalizerCollator
from hf_talking_points.training.triplet_dataset import triplet_dataset


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(
        read_objects(draw_photos(tmp_path_factory.mktemp("data") / "photos"))
    )


def test_labels_cover_the_descriptions_alone(make_descriptor, views):
    _, processor = make_descriptor()
    dataset = triplet_dataset(views[:2], processor, points_per_image=3)
    rows = [dataset[0], dataset[1]]
    batch = DescriptorCollator(processor)(rows)
    texts = [*rows[0]["descriptions"], *rows[1]["descriptions"]]
    assert batch["input_points"].shape == (2, 3, 2)
    assert len(batch["labels"]) == 6
    for label, text in zip(batch["labels"], texts, strict=True):
        assert (
            processor.tokenizer.decode(label[label >= 0])
            == text + processor.tokenizer.eos_token
        )


def test_targets_and_boxes_stand_beside_their_points(make_descriptor, views):
    _, processor = make_descriptor()
    dataset = triplet_dataset(views, processor, points_per_image=3, surroundings=0.5)
    rows = [dataset[number] for number in range(4)]
    heads = AuxiliaryHeads.for_views(8, views)
    batch = DescriptorCollator(processor, heads, boxes=True)(rows)
    sources = [(row, source) for row in rows for source in row["sources"]]
    assert any(source is None for _, source in sources)
    assert len(batch["point_targets"]) == len(batch["object_boxes"]) == len(sources)
    for target, box, (row, source) in zip(
        batch["point_targets"], batch["object_boxes"], sources, strict=True
    ):
        np.testing.assert_allclose(
            target, heads.targets(source, row["size"]), rtol=1e-6
        )
        if source is None:
            assert box.isnan().all()
            continue
        x1, y1, x2, y2 = source[0].box
        corners = torch.tensor([[x1, y1], [x2, y2]], dtype=torch.float32)
        expected = pixels_to_canvas(
            corners, *row["size"], processor.image_size
        ).flatten()
        torch.testing.assert_close(box, expected)


def test_a_localizers_batch_keeps_points_of_a_photo_together(make_localizer, views):
    _, processor = make_localizer()
    dataset = triplet_dataset(views, processor, points_per_image=3)
    batch = LocalizerCollator(processor)([dataset[0], dataset[1]])
    assert batch["pixel_values"].shape[0] == 2
    assert batch["input_ids"].shape[0] == 6
    assert batch["target_points"].shape == batch["scale"].shape == (2, 3, 2)
    torch.testing.assert_close(batch["target_points"][1], dataset[1]["points"])
    # 64 x 48 photos on a square canvas: a canvas unit is the whole width, and 4/3 of the height
    torch.testing.assert_close(batch["scale"][0, 0], torch.tensor([1.0, 4 / 3]))
