"""Batches of the models."""

import numpy as np
import pytest
import torch
from supervised_runs import draw_photos

from hf_talking_points import PointDescriptorProcessor
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.models.coordinates import pixels_to_canvas
from hf_talking_points.training.auxiliary_losses import AuxiliaryHeads
from hf_talking_points.training.collators import DescriptorCollator, LocalizerCollator
from hf_talking_points.training.triplet_dataset import TripletSampler, triplet_dataset


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


TURNS = (
    "{%- for m in messages -%}{{- '[' + m['role'] + ']\n' -}}"
    "{%- if m['role'] == 'assistant' -%}BEFORE{%- endif -%}{{- m['content'] -}}"
    "{%- if m['role'] == 'assistant' -%}AFTER{%- else -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '[assistant]\n' -}}PROMPT{%- endif -%}"
)
THOUGHTS = "{{- '<think>\n\n</think>\n\n' -}}"
CHANNEL = "{{- '<channel>final ' -}}"
EOS = "{{- eos_token -}}"


def chat_template(before="", after=EOS, prompt=""):
    """A chat template with something before and after an answer, and at the end of the prompt."""
    parts = {"BEFORE": before, "AFTER": after, "PROMPT": prompt}
    template = TURNS
    for name, part in parts.items():
        template = template.replace(name, part)
    return template


@pytest.mark.parametrize(
    "template, end",
    [
        (None, "<eos>"),
        (chat_template(), "<eos>"),
        (chat_template(after=EOS + "{{- '\n' -}}"), "<eos>"),
        (chat_template(after="{{- '[end]\n' -}}"), "[end]\n<eos>"),
        (chat_template(after=""), "<eos>"),
        (chat_template(before=THOUGHTS), "<eos>"),
        (chat_template(before=THOUGHTS, prompt=THOUGHTS), "<eos>"),
        (chat_template(before=CHANNEL), "<eos>"),
        (chat_template(prompt="{{- 'answer: ' -}}"), "<eos>"),
    ],
    ids=[
        "plain",
        "roles",
        "line after the turn",
        "another end",
        "no end",
        "thoughts in the turn",
        "thoughts in both",
        "channel",
        "space before the answer",
    ],
)
def test_learned_is_what_follows_the_prompt_of_a_generation(
    make_tokenizer, template, end
):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    processor = PointDescriptorProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=4
    )
    texts = ["the tip of the left ear", "a dark spot"]
    encoded = DescriptorCollator(processor).encode_texts(texts)
    prompt = processor.tokenize([processor.render(style="short")])["input_ids"][0]
    for text, ids, labels in zip(texts, encoded["input_ids"], encoded["labels"]):
        learned = labels != -100
        assert tokenizer.decode(ids[learned]) == text + end
        assert ids[: len(prompt)].tolist() == prompt.tolist()
        assert int(learned.nonzero()[0]) == len(prompt)
        assert torch.equal(labels[learned], ids[learned])


def test_the_prompt_asks_for_the_style_of_the_description(make_descriptor):
    _, processor = make_descriptor()
    texts = ["red " * 30, "a dark spot"]
    encoded = DescriptorCollator(processor).encode_texts(texts)
    rows = zip(encoded["input_ids"], encoded["attention_mask"], ["rich", "short"])
    for text, (ids, mask, style) in zip(texts, rows):
        whole = processor.render(text, style=style)
        expected = processor.tokenize([whole])["input_ids"][0]
        assert ids[mask.bool()].tolist() == expected.tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    learned = encoded["labels"] != -100
    assert not learned[encoded["attention_mask"] == 0].any()
    assert torch.equal(encoded["labels"][learned], encoded["input_ids"][learned])


def test_a_description_over_the_context_is_an_error(make_descriptor):
    _, processor = make_descriptor()
    fits = processor.tokenizer.model_max_length - 30
    with pytest.raises(ValueError, match="text 1 has .* tokens with its prompt"):
        DescriptorCollator(processor).encode_texts(["red", "red " * fits])


def test_targets_and_boxes_stand_beside_their_points(make_descriptor, views):
    _, processor = make_descriptor()
    sampler = TripletSampler(processor, 3, surroundings=0.5, with_looks=True)
    dataset = sampler.dataset(views)
    rows = [dataset[number] for number in range(4)]
    heads = AuxiliaryHeads.for_views(8, views)
    batch = DescriptorCollator(processor, heads, boxes=True)(rows)
    sources = [(row, source) for row in rows for source in row["sources"]]
    colors = torch.cat([row["colors"] for row in rows]).tolist()
    patterns = [pattern for row in rows for pattern in row["patterns"]]
    pixels = [pixel for row in rows for pixel in row["pixels"]]
    assert any(source is None for _, source in sources)
    assert len(batch["point_targets"]) == len(batch["object_boxes"]) == len(sources)
    for target, box, color, pattern, pixel, (row, source) in zip(
        batch["point_targets"],
        batch["object_boxes"],
        colors,
        patterns,
        pixels,
        sources,
        strict=True,
    ):
        expected = heads.targets(source, row["size"], color, pattern, pixel)
        np.testing.assert_allclose(target, expected, rtol=1e-6)
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


def test_texts_come_in_the_length_that_is_asked_for(make_descriptor, views):
    _, processor = make_descriptor()
    dataset = triplet_dataset(views[:2], processor, points_per_image=3)
    rows = [dataset[0], dataset[1]]
    whole = DescriptorCollator(processor)(rows)
    length = whole["labels"].shape[1]
    texts = ("input_ids", "attention_mask", "labels")
    cut = DescriptorCollator(processor, max_length=length - 3)(rows)
    padded = DescriptorCollator(processor, pad_to_multiple_of=64)(rows)
    filling = (processor.tokenizer.pad_token_id, 0, -100)
    for name, value in zip(texts, filling):
        assert torch.equal(cut[name], whole[name][:, :-3])
        assert padded[name].shape[1] % 64 == 0
        assert torch.equal(padded[name][:, :length], whole[name])
        assert (padded[name][:, length:] == value).all()
    prompt_length = int((whole["labels"] == -100).all(0).sum())
    with pytest.raises(ValueError, match=f"max_length={prompt_length} leaves nothing"):
        DescriptorCollator(processor, max_length=prompt_length)
