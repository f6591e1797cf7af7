"""Words and map that attend to each other, alone and in a localizer whose prompt holds no image."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel

from hf_talking_points import PointDescriptorConfig, PointLocalizerConfig
from hf_talking_points.models.modeling_fusion import (
    FusionAttention,
    FusionLayer,
    eager_attention,
)
from hf_talking_points.models.modeling_talking_points import load_text

TEXTS = ["a wheel", "the tip of the left ear of the cat in the middle", "yellow black"]


@pytest.fixture(params=["bert", "llama"])
def reader(request, make_localizer):
    """A localizer with fusion layers and without image tokens, and its processor."""
    return make_localizer(
        text=request.param, token_strides=[], fusion_layers=2, head="heatmap"
    )


def points_of(reader, image, texts):
    model, processor = reader
    with torch.no_grad():
        return model(**processor(image, texts)).points


def fusion_config(dim, **kwargs):
    return PointLocalizerConfig(head="heatmap", head_dim=dim, fusion_layers=1, **kwargs)


def test_eager_attention_is_the_fused_one():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 32)
    mask = torch.tensor([1, 1, 1, 0, 0]).bool()[None, None, None]
    for chosen in (None, mask):
        fused = scaled_dot_product_attention(query, key, value, attn_mask=chosen)
        torch.testing.assert_close(eager_attention(query, key, value, chosen), fused)


def test_the_attention_is_that_of_the_language_model(reader, random_image):
    model, processor = reader
    inputs = processor(random_image(), TEXTS)
    with torch.no_grad():
        fused = model(**inputs).points
        model.set_attn_implementation("eager")
        eager = model(**inputs).points
        is_eager = model.model.language_model.config._attn_implementation == "eager"
        attention = model.fusion.layers[0].cells_see_words.attention
        model.set_attn_implementation("sdpa")
    assert is_eager and attention is eager_attention
    torch.testing.assert_close(eager, fused)


def test_dropout_leaves_whole_words_as_they_are():
    torch.manual_seed(0)
    attention = FusionAttention(fusion_config(32, fusion_dropout=0.5))
    states = torch.randn(4, 50, 32)
    with torch.no_grad():
        is_changed = attention(states, states) != states
        is_same = ~is_changed.any(-1)
        assert 0.1 < is_same.float().mean() < 0.4  # neither update
        assert is_changed.all(-1).sum() + is_same.sum() == 200
        assert (attention.eval()(states, states) != states).any(-1).all()


def test_what_is_masked_changes_nothing():
    torch.manual_seed(0)
    layer = FusionLayer(fusion_config(64)).eval()
    words, cells = torch.randn(2, 5, 64), torch.randn(2, 9, 64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    with torch.no_grad():
        _, expected = layer(words, cells, mask)
        words[0, 3:] = 100
        _, changed = layer(words, cells, mask)
        _, short = layer(words[:1, :3], cells[:1], None)
    torch.testing.assert_close(changed, expected)
    torch.testing.assert_close(short, expected[:1])


def test_attention_does_not_depend_on_the_order_of_what_it_looks_at():
    torch.manual_seed(0)
    attention = FusionAttention(fusion_config(32)).eval()
    states, source = torch.randn(1, 3, 32), torch.randn(1, 6, 32)
    with torch.no_grad():
        expected = attention(states, source)
        turned = attention(states, source.flip(1))
    torch.testing.assert_close(turned, expected)


def test_a_text_is_found_alone_as_among_others(reader, random_image):
    together = points_of(reader, random_image(), TEXTS)
    alone = [points_of(reader, random_image(), [text]) for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_token_types_change_nothing(reader, random_image):
    model, processor = reader
    tokenizer = processor.tokenizer
    names = tokenizer.model_input_names
    tokenizer.model_input_names = [*names, "token_type_ids"]
    inputs = processor(random_image(), 8 * TEXTS)
    tokenizer.model_input_names = names
    assert "token_type_ids" not in inputs
    if model.config.text_config.model_type == "bert":
        with torch.no_grad():
            expected = model(**inputs).points
            types = torch.zeros_like(inputs["input_ids"])
            found = model(**inputs, token_type_ids=types).points
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_texts_of_several_images(reader, random_image):
    images = [random_image(1), random_image(2, 40, 80)]
    texts = [TEXTS[:1], TEXTS[1:]]
    together = points_of(reader, images, texts)
    apart = [points_of(reader, *pair) for pair in zip(images, texts)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)


def test_an_encoded_image_gives_the_same(reader, random_image):
    model, processor = reader
    inputs = processor(random_image(), TEXTS)
    expected = points_of(reader, random_image(), TEXTS)
    with torch.no_grad():
        encoded = model.get_image_features(inputs.pop("pixel_values"))
        outputs = model(**inputs, mm_encoder_outputs={"image": encoded})
    torch.testing.assert_close(outputs.points, expected)


def test_many_texts_are_read_by_their_lengths(reader, random_image, monkeypatch):
    model, processor = reader
    texts = [
        f"{text} {'the cat ' * (number % 5)}" for number, text in enumerate(7 * TEXTS)
    ]
    lengths = []
    run = type(model.model).run_language_model

    def counted(self, inputs_embeds, *args, **kwargs):
        lengths.append(inputs_embeds.shape[1])
        return run(self, inputs_embeds, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "run_language_model", counted)
    together = points_of(reader, random_image(), texts)
    assert len(lengths) == 2 and lengths[0] < lengths[1]
    alone = [points_of(reader, random_image(), [text]) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_prompt_holds_no_image_and_yet_the_image_matters(reader, random_image):
    model, processor = reader
    assert processor.image_token_id not in processor(random_image(), TEXTS)["input_ids"]
    assert model.config.image_seq_length == 0
    here = points_of(reader, random_image(1), TEXTS)
    there = points_of(reader, random_image(2), TEXTS)
    assert bool(((here - there).abs().amax(1) > 1e-3).all())


def test_every_trained_parameter_moves(reader, random_image):
    model, processor = reader
    model.train()
    before = {
        name: parameter.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    target = torch.tensor([[0.2, 0.3], [0.7, 0.6], [0.5, 0.45]])
    model(**processor(random_image(), TEXTS), target_points=target).loss.backward()
    optimizer.step()
    after = dict(model.named_parameters())
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert unmoved == []


def test_it_is_saved_and_loaded(reader, random_image, tmp_path):
    model, processor = reader
    model.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys"))
    expected = points_of(reader, random_image(), TEXTS)
    assert torch.equal(points_of((loaded, processor), random_image(), TEXTS), expected)


def test_it_learns_where_the_text_says(reader, random_image):
    model, processor = reader
    inputs = processor(random_image(), TEXTS)
    target = torch.tensor([[0.2, 0.3], [0.7, 0.6], [0.5, 0.85]])
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        model(**inputs, target_points=target).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    model.eval()
    found = points_of(reader, random_image(), TEXTS)
    assert float((found - target).norm(dim=1).max()) < 0.1


def test_an_encoder_is_not_read_as_a_causal_model(make_localizer, random_image):
    reader = make_localizer(text="bert", token_strides=[8, 16])
    together = points_of(reader, random_image(), TEXTS)
    alone = [points_of(reader, random_image(), [text]) for text in TEXTS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"fusion_layers": 2, "head": "mlp"},
            "fusion_layers=2 needs a map, which head .mlp. has not",
        ),
        ({"token_strides": [], "head": "heatmap"}, "never meet the image"),
        (
            {"fusion_layers": 1, "head": "heatmap", "standardize_states": True},
            "standardize_states",
        ),
    ],
)
def test_configs_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        PointLocalizerConfig(**fields)


def test_a_descriptor_cannot_go_without_image_tokens():
    with pytest.raises(ValueError, match="token_strides must name at least one"):
        PointDescriptorConfig(token_strides=[])


@pytest.mark.parametrize("text", ["bert", "llama"])
def test_a_language_model_is_loaded_with_the_head_that_it_has(
    make_language_model, tmp_path, text
):
    saved = make_language_model(text)
    saved.save_pretrained(tmp_path)
    assert type(load_text(tmp_path)) is type(saved)


def test_a_descriptor_does_not_write_with_an_encoder(make_descriptor):
    with pytest.raises(ValueError, match="BertModel takes no past_key_values|no head"):
        make_descriptor(text="bert")


def test_a_frozen_language_model_gives_the_same_in_training(
    make_localizer, random_image
):
    model, processor = make_localizer(
        text="bert", token_strides=[], fusion_layers=1, head="heatmap"
    )
    model.train()
    assert model.model.language_model.training
    model.model.language_model.requires_grad_(False)
    model.train()
    assert not model.model.language_model.training
    assert model.fusion.training
    inputs = processor(random_image(), TEXTS)
    assert torch.equal(model(**inputs).points, model(**inputs).points)
