"""Which completions share an image and a point, and how they are kept together."""

import pytest
import torch

from hf_talking_points.training.rollouts import (
    Sample,
    image_inputs,
    images_to_encode,
    keep_groups_together,
    rows_per_encoding,
    stacked_points,
)


def make_batch(numbers, samples):
    return {
        "ids": torch.tensor(numbers),
        "count": torch.tensor(6),
        "none": None,
        "samples": [samples[number] for number in numbers],
    }


def test_groups_stay_together():
    samples = [object(), object(), object()]
    batches = [make_batch([2, 0, 1], samples), make_batch([0, 2, 1], samples)]
    first, second = keep_groups_together(batches)
    assert first["ids"].tolist() == [2, 2, 0]
    assert second["ids"].tolist() == [0, 1, 1]
    assert [samples.index(sample) for sample in first["samples"]] == [2, 2, 0]
    assert [samples.index(sample) for sample in second["samples"]] == [0, 1, 1]
    assert second["count"] == 6
    assert first["none"] is None


@pytest.mark.parametrize(
    "numbers, rows",
    [
        ([0, 0, 0, 1, 1, 1], 3),
        ([0, 0, 1, 1, 1, 1], 2),
        ([0, 0, 1, 1, 1], 1),
        ([0, 1, 0], 1),
    ],
)
def test_an_encoding_goes_into_as_many_rows_as_all_runs_allow(numbers, rows):
    samples = [Sample(torch.zeros(1, 2)), Sample(torch.ones(1, 2))]
    assert rows_per_encoding([samples[number] for number in numbers]) == rows


def test_rows_of_one_sample_share_its_pixels():
    samples = []
    for number in range(2):
        points = torch.full((1, 2), float(number))
        samples.append(
            Sample(points, pixel_values=torch.full((3, 4, 4), float(number)))
        )
    rows = [samples[0], samples[0], samples[1], samples[1]]

    shared = image_inputs(rows, share=True)
    assert shared["pixel_values"].shape == (2, 3, 4, 4)
    assert shared["input_points"].tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]

    plain = image_inputs(rows, share=False)
    assert plain["pixel_values"][:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert plain["input_points"].shape == (4, 1, 2)


def test_what_is_encoded_replaces_the_pixels():
    sample = Sample(torch.zeros(1, 2), pixel_values=torch.zeros(3, 4, 4))
    sample.store_encoding(torch.zeros(5, 8), torch.ones(1, 8))
    assert sample.pixel_values is None
    image = image_inputs([sample, sample], share=True)["mm_encoder_outputs"]["image"]
    assert [tokens.shape for tokens in image.pooler_output] == [(5, 8)]
    assert image.point_embeds.shape == (2, 8)


def test_points_of_several_images_are_filled_up():
    samples = [Sample(torch.tensor([[float(number), 1.0]])) for number in range(3)]
    points = stacked_points([samples[:2], samples[2:]])
    assert points[:, :, 1].nan_to_num(-1).tolist() == [[1, 1], [1, -1]]
    assert points[:, 0, 0].tolist() == [0, 2]


def test_equal_images_are_encoded_once(random_image):
    images = [random_image(0), random_image(1), random_image(0)]
    distinct, image_of_row = images_to_encode(images, share=True)
    assert (len(distinct), image_of_row) == (2, [0, 1, 0])
    single, image_of_row = images_to_encode(images, share=False)
    assert (len(single), image_of_row) == (3, [0, 1, 2])
