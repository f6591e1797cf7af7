"""Checkpoints as describers and localizers, and how options name them."""

import json

import numpy as np
import pytest

from hf_talking_points.evaluation.describers import (
    CheckpointDescriber,
    CheckpointLocalizer,
    load_describer,
    load_localizer,
)
from hf_talking_points.evaluation.written_descriptions import WrittenDescriptions


@pytest.fixture(scope="module")
def localizer_folder(make_localizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-localizer"
    for part in make_localizer(head="heatmap"):
        part.save_pretrained(folder)
    return str(folder)


def test_texts_that_a_localizer_cannot_take_are_misses(localizer_folder, random_image):
    locate = load_localizer(localizer_folder)
    assert isinstance(locate, CheckpointLocalizer) and locate.name == "tiny-localizer"
    texts = ["the nose", "the nose " * 400, "a <SEG> b", "", "the ear"]
    found = locate(random_image(), texts)
    assert np.isnan(found).all(1).tolist() == [False, True, True, True, False]
    taken = locate(random_image(), ["the nose", "the ear"])
    np.testing.assert_allclose(found[[0, 4]], taken, atol=1e-3)
    assert np.isnan(locate(random_image(), ["", "<SEG>"])).all()


def test_the_fingerprint_follows_the_weights(
    localizer_folder, make_localizer, tmp_path
):
    for part in make_localizer(head="heatmap", seed=1):
        part.save_pretrained(tmp_path / "tiny-localizer")
    other = CheckpointLocalizer(str(tmp_path / "tiny-localizer"))
    same = CheckpointLocalizer(localizer_folder)
    assert same.fingerprint == CheckpointLocalizer(localizer_folder).fingerprint
    assert same.name == other.name and same.fingerprint != other.fingerprint


def test_describers_by_their_names(tmp_path, localizer_folder):
    file = tmp_path / "people.jsonl"
    file.write_text(json.dumps({"image": "a.png", "point": [1, 2], "description": "x"}))
    written = load_describer(f"jsonl:{file}")
    assert isinstance(written, WrittenDescriptions) and written.name == "people"
    described = load_describer(f"point-descriptor:{localizer_folder}")
    assert isinstance(described, CheckpointDescriber)


@pytest.mark.parametrize("spec", ["point-descriptor:", "oracle", "gpt:4", "", "jsonl"])
def test_unknown_sources_are_errors(spec):
    with pytest.raises(
        ValueError, match="expected ground-truth, point-descriptor:CHECKPOINT"
    ):
        load_describer(spec)


@pytest.mark.parametrize("spec", ["vlm:0-1000", "vlm:"])
def test_unknown_localizers_are_errors(spec):
    with pytest.raises(
        ValueError, match="expected a checkpoint, or vlm:CONVENTION:MODEL"
    ):
        load_localizer(spec)
