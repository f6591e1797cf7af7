import sys

import pytest
import torch
from example_scripts import load_example
from supervised_runs import draw_photos
from transformers import AutoModelForKeypointDetection

from hf_talking_points.training.calibration import (
    calibrate,
    expected_calibration_error,
    fitted_head,
    is_found,
    of_other_photos,
)

WORDS = ["red", "green", "blue", "yellow", "white", "black", "wheel", "cat"]


def batch_of(processor, image, targets):
    inputs = dict(processor(image, WORDS))
    return {**inputs, "target_points": targets[None], "scale": torch.ones(1, 1, 2)}


def test_the_fitted_head_gives_the_shares_of_hits():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4000, 4, generator=generator)
    shares = torch.rand(4000, generator=generator)
    truth = (2 * vectors[:, 0] + shares.logit(eps=1e-4) - 1).sigmoid()
    is_hit = torch.rand(4000, generator=generator) < truth
    head = fitted_head(vectors, shares, is_hit, torch.ones(4000))
    with torch.no_grad():
        confidence = head(vectors, shares)
    assert expected_calibration_error(confidence, is_hit) < 0.06
    assert expected_calibration_error(shares, is_hit) > 0.1
    assert float((confidence - truth).abs().mean()) < 0.1


def test_an_answer_that_counts_twice_is_as_two_answers():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 4, generator=generator)
    shares = torch.rand(60, generator=generator)
    is_hit = torch.rand(60, generator=generator) < 0.5
    weights = torch.ones(60)
    weights[:20] = 2
    weighted = fitted_head(vectors, shares, is_hit, weights)
    rows = torch.cat([torch.arange(60), torch.arange(20)])
    # the inputs are standardized over all rows, which differ
    doubled = fitted_head(vectors[rows], shares[rows], is_hit[rows], torch.ones(80))
    with torch.no_grad():
        torch.testing.assert_close(
            weighted(vectors, shares), doubled(vectors, shares), atol=0.02, rtol=0
        )


def test_the_error_of_a_liar_and_of_an_honest_one():
    is_hit = torch.tensor([True, False, True, False])
    assert expected_calibration_error(torch.full((4,), 0.5), is_hit) == 0
    assert expected_calibration_error(torch.ones(4), is_hit) == pytest.approx(0.5)


def test_a_calibrated_model_says_so_and_is_saved_whole(
    make_localizer, random_image, tmp_path
):
    model, processor = make_localizer(head="heatmap")
    image = random_image()
    with torch.no_grad():
        before = model(**processor(image, WORDS))
    targets = before.points.clone()
    targets[4:] = 1 - targets[4:]  # half of them are missed
    is_hit = (before.points - targets).norm(dim=1) < 0.1
    calibrate(model, [batch_of(processor, image, targets)])
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        after = loaded(**processor(image, WORDS))
    assert loaded.config.calibrated_confidence
    assert torch.equal(after.points, before.points)
    assert float(after.confidence[is_hit].mean()) > float(
        after.confidence[~is_hit].mean()
    )
    # once more, from the same answers
    calibrate(model, [batch_of(processor, image, targets)])
    with torch.no_grad():
        again = model(**processor(image, WORDS)).confidence
    torch.testing.assert_close(again, after.confidence)


def test_texts_of_other_photos_have_no_point():
    points = torch.rand(3, 2, 2)
    batch = {
        "input_ids": torch.arange(6)[:, None],
        "attention_mask": torch.ones(6, 1),
        "pixel_values": torch.rand(3, 3, 8, 8),
        "target_points": points,
        "scale": torch.ones(3, 1, 2),
    }
    moved = of_other_photos(batch)
    assert moved["input_ids"].flatten().tolist() == [4, 5, 0, 1, 2, 3]
    assert moved["pixel_values"] is batch["pixel_values"]
    assert not is_found(
        points.flatten(0, 1), moved["target_points"], batch["scale"]
    ).any()
    assert is_found(points.flatten(0, 1), points, batch["scale"]).all()
    # of two texts of a photo the second alone
    moved = of_other_photos(batch, 1)
    assert moved["input_ids"].flatten().tolist() == [0, 5, 2, 1, 4, 3]
    assert torch.equal(moved["target_points"][:, 0], points[:, 0])
    assert moved["target_points"][:, 1].isnan().all()


def test_a_photo_alone_keeps_its_texts():
    batch = {"input_ids": torch.ones(2, 3), "target_points": torch.rand(1, 2, 2)}
    assert of_other_photos(batch) is batch


def test_what_has_no_map_or_no_answers(make_localizer):
    model, _ = make_localizer(head="mlp")
    with pytest.raises(ValueError, match="head 'mlp' has not"):
        calibrate(model, [])
    model, _ = make_localizer(head="heatmap")
    with pytest.raises(ValueError, match="batches is empty"):
        calibrate(model, [])


def test_the_example_writes_a_calibrated_localizer(
    make_localizer, tmp_path, monkeypatch, capsys
):
    model, processor = make_localizer(head="heatmap")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "localizer")
    photos = draw_photos(tmp_path / "photos")
    output = tmp_path / "calibrated"
    command = f"calibrate --model_name_or_path {tmp_path}/localizer --data_dir {photos} --output_dir {output}"
    monkeypatch.setattr(
        sys, "argv", [*command.split(), "--eval_styles", "full", "terse"]
    )
    load_example("calibrate_localizer").main()
    calibrated = AutoModelForKeypointDetection.from_pretrained(output)
    assert calibrated.config.calibrated_confidence
    printed = capsys.readouterr().out
    assert "| full |" in printed and "| terse |" in printed
