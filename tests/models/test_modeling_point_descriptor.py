import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F

from hf_talking_points import PointDescriptorForConditionalGeneration
from hf_talking_points.models.modeling_point_descriptor import gaussian_attention_mask

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]
POINTS = [(10.0, 12.0), (80.0, 50.0), (48.0, 3.0)]
PROMPTS = [
    "<image>Please describe region1 <region>.",
    "<image>the cat <region>",
    "<image>a point on the front wheel <region> of the car",
]
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
LORA = LoraConfig(
    r=4, target_modules=r".*language_model.*\.(q|k|v|o)_proj", init_lora_weights=False
)


def teacher_forced(processor, images, points, texts, padding_side="right"):
    """Inputs and labels; every token after the region is a label."""
    inputs = processor(images, text=texts, points=points, padding_side=padding_side)
    after = (inputs["input_ids"] == processor.region_token_id).cumsum(1).bool()
    inputs["labels"] = inputs["input_ids"].masked_fill(
        ~after | ~inputs["attention_mask"].bool(), -100
    )
    return inputs


def answers(count):
    words = [
        "the left ear of the cat",
        "a wheel",
        "red green blue yellow",
        "the beak, a dark spot on the lower left",
    ]
    return [f"<image>describe <region>. {words[i % len(words)]}" for i in range(count)]


def run_of(model, inputs):
    """Loss and gradients by name."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def assert_same_gradients(one, other, rtol=1e-4):
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in other.values())
    for name, value in other.items():
        assert float((one[name] - value).norm()) <= rtol * float(value.norm()) + 2e-6 * scale, name


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
    st.integers(1, 64),
    st.integers(1, 64),
    st.floats(1e-6, 2),
    st.floats(0.01, 0.99),
)
def test_gaussian_mask_opens_the_cells_above_the_threshold(points, height, width, sigma, threshold):
    points = torch.tensor([points])
    open_cells = ~gaussian_attention_mask(points, height, width, sigma, threshold).view(
        1, -1, height, width
    )
    y, x = torch.meshgrid(
        (torch.arange(height).double() + 0.5) / height,
        (torch.arange(width).double() + 0.5) / width,
        indexing="ij",
    )
    distance = (x - points[..., :1, None].double()) ** 2 + (y - points[..., 1:, None].double()) ** 2
    value = torch.exp(-distance / (2 * sigma**2))
    clear = (value - threshold).abs() > 1e-4  # float32 decides the rest
    nearest = distance == distance.amin((-2, -1), keepdim=True)
    assert torch.equal(
        (open_cells & ~nearest)[clear & ~nearest], (value >= threshold)[clear & ~nearest]
    )
    least = torch.where(open_cells, distance, torch.inf).amin((-2, -1))
    torch.testing.assert_close(least, distance.amin((-2, -1)), atol=1e-6, rtol=0)


def test_gaussian_mask_has_the_same_reach_on_every_level():
    point = torch.tensor([[[0.5, 0.5]]])
    shares = [
        float((~gaussian_attention_mask(point, side, side, 0.1, 0.5)).float().mean())
        for side in (32, 64, 128)
    ]
    radius = (2 * 0.1**2 * torch.tensor(2.0).log()) ** 0.5
    assert shares == pytest.approx([float(torch.pi * radius**2)] * 3, rel=0.1)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_and_generate(make_descriptor, random_image, backbone, text):
    model, processor = make_descriptor(backbone, text)
    inputs = teacher_forced(processor, random_image(), POINTS, answers(3))
    out = model(**inputs)
    assert out.logits.shape == (3, inputs["input_ids"].shape[1], len(processor.tokenizer))
    assert out.point_features.shape == (3, 64) and out.loss.isfinite()
    prompt = processor(random_image(), points=POINTS)
    generated = model.generate(**prompt, **GREEDY)
    assert generated.shape == (3, prompt["input_ids"].shape[1] + 6)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_batch_equals_single(make_descriptor, random_image, text):
    model, processor = make_descriptor(text=text)
    photos = [random_image(1), random_image(2, 40, 80), random_image(3, 64, 64)]
    points = [[(10, 12)], [(30, 70)], [(5, 60)]]
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    batch = model.generate(**processor(photos, text=PROMPTS, points=points), **options)
    for row in range(3):
        single = model.generate(
            **processor(photos[row], text=PROMPTS[row], points=points[row]), **options
        )
        assert torch.equal(batch.sequences[row, -6:], single.sequences[0, -6:])
        for a, b in zip(batch.logits, single.logits):
            torch.testing.assert_close(a[row], b[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("backbone", ["convnext", "efficientnet_lite"])
def test_rows_of_one_image_equal_separate_rows(
    make_descriptor, random_image, backbone, text, padding_side
):
    model, processor = make_descriptor(backbone, text)
    model.model.backbone.requires_grad_(False)
    photos = [random_image(1), random_image(2, 40, 80)]
    points = [POINTS, [(3, 4), (20, 70), (39, 79)]]
    shared = teacher_forced(processor, photos, points, answers(6), padding_side)
    separate = dict(
        shared,
        pixel_values=shared["pixel_values"].repeat_interleave(3, 0),
        input_points=shared["input_points"].flatten(0, 1)[:, None],
    )
    valid = shared["attention_mask"].bool()
    a, b = model(**shared, use_cache=False).logits, model(**separate, use_cache=False).logits
    torch.testing.assert_close(a[valid], b[valid], atol=1e-5, rtol=1e-5)
    (loss_a, gradients_a), (loss_b, gradients_b) = run_of(model, shared), run_of(model, separate)
    torch.testing.assert_close(loss_a, loss_b)
    assert_same_gradients(gradients_a, gradients_b)


def test_prefix_of_one_image_runs_once(make_descriptor, random_image):
    model, processor = make_descriptor()
    lengths = []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    inputs = processor(random_image(), points=POINTS)
    model(**inputs)
    length = inputs["input_ids"].shape[1]
    assert lengths[0][0] == 1 and lengths[0][1] < 3 * length - 2 * processor.image_seq_length


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_cached_equals_uncached_generation(make_descriptor, random_image, text):
    model, processor = make_descriptor(text=text)
    inputs = processor([random_image(1), random_image(2)], points=[POINTS[:2], POINTS[1:]])
    assert torch.equal(
        model.generate(**inputs, **GREEDY, use_cache=True),
        model.generate(**inputs, **GREEDY, use_cache=False),
    )


def test_many_points_equal_one_by_one_with_one_vision_call(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    calls = []
    model.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    together = model.generate(**inputs, **options)
    assert len(calls) == 1
    for row, point in enumerate(POINTS):
        alone = model.generate(**processor(random_image(), points=[point]), **options)
        assert torch.equal(together.sequences[row], alone.sequences[0])
        for a, b in zip(together.logits, alone.logits):
            torch.testing.assert_close(a[row], b[0], atol=1e-5, rtol=1e-5)


def test_images_with_unequal_numbers_of_points(make_descriptor, random_image):
    model, processor = make_descriptor()
    photos, points = [random_image(1), random_image(2)], [POINTS, POINTS[:1]]
    inputs = processor(photos, points=points)
    together = model(**inputs).logits
    apart = torch.cat(
        [model(**processor(photo, points=p)).logits for photo, p in zip(photos, points)]
    )
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    for options in (GREEDY, {**GREEDY, "num_beams": 2}):
        sequences = torch.cat(
            [
                model.generate(**processor(photo, points=p), **options)
                for photo, p in zip(photos, points)
            ]
        )
        assert torch.equal(model.generate(**inputs, **options), sequences)


def test_encoder_outputs_serve_again(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor([random_image(1), random_image(2)], points=[POINTS, POINTS[:1]])
    encoded = {"image": model.get_image_features(inputs["pixel_values"], inputs["input_points"])}
    text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    beams = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    first, second = (model.generate(**text, mm_encoder_outputs=encoded, **beams) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(first, model.generate(**inputs, **beams))


def test_several_points_in_one_text(make_descriptor, random_image):
    model, processor = make_descriptor()
    texts = ["<image>region1 <region> or <region>", "<image>region1 <region>"]
    photos, points = [random_image(1), random_image(2)], [POINTS[:2], POINTS[2:]]
    inputs, options = processor(photos, text=texts, points=points), {**GREEDY, "num_beams": 2}
    together, beams = model(**inputs).logits, model.generate(**inputs, **options)
    for row in range(2):
        single = processor(photos[row], text=texts[row], points=points[row])
        alone = model(**single).logits[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-5, rtol=1e-5)
        assert torch.equal(beams[row, -6:], model.generate(**single, **options)[0, -6:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_flipping_the_point_changes_the_logits(make_descriptor, random_image, backbone):
    model, processor = make_descriptor(backbone)
    with torch.no_grad():
        logits = [
            model(**processor(random_image(), points=[(x, 20.0)])).logits[0, -1]
            for x in (15.0, 81.0)
        ]
    assert float((logits[0] - logits[1]).abs().max()) > 1e-2


def test_beams_and_returned_sequences_keep_their_rows(make_descriptor, random_image):
    model, processor = make_descriptor()
    photos, points = [random_image(1), random_image(2)], [POINTS[:2], POINTS[1:]]
    inputs = processor(photos, points=points)
    greedy = model.generate(**inputs, **GREEDY)
    sampled = model.generate(
        **inputs, **{**GREEDY, "do_sample": True, "top_k": 1}, num_return_sequences=2
    )
    assert torch.equal(sampled, greedy.repeat_interleave(2, 0))
    beams = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    rows = [
        model.generate(**processor(photo, points=[p]), **beams)
        for photo, pair in zip(photos, points)
        for p in pair
    ]
    assert torch.equal(model.generate(**inputs, **beams), torch.cat(rows))


def test_samples_of_one_point_are_prefilled_once(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs, rows = processor([random_image(1)], points=[POINTS[:2]]), []
    hook = model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, out: rows.append(len(kwargs["inputs_embeds"])),
        with_kwargs=True,
    )
    model.generate(**inputs, **{**GREEDY, "do_sample": True}, num_return_sequences=3)
    hook.remove()
    assert rows[0] == 2 and set(rows[1:]) == {6}


def test_point_masks_run_and_differ(make_descriptor, random_image):
    features = {}
    for point_mask in ("gaussian", "predicted", "none"):
        model, processor = make_descriptor(point_mask=point_mask)
        inputs = processor([random_image(1), random_image(2)], points=[POINTS, POINTS[:1]])
        out = model.get_image_features(inputs["pixel_values"], inputs["input_points"])
        features[point_mask] = out.point_features
        assert (out.point_mask_logits is not None) == (point_mask == "predicted")
        if point_mask == "predicted":
            assert [tuple(logits.shape) for logits in out.point_mask_logits] == [(4, 16, 16)] * 5
        model.generate(**inputs, **GREEDY)
    assert len({tuple(value.flatten().tolist()) for value in features.values()}) == 3


def test_predicted_mask_that_is_empty_opens_everything(make_descriptor):
    features = []
    for point_mask in ("predicted", "none"):
        model, _ = make_descriptor(point_mask=point_mask)
        predictor = model.model.vision_tower.transformer_module.decoder.mask_predictor
        predictor.register_forward_hook(lambda module, args, out: (out[0], torch.ones_like(out[1])))
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        features.append(
            model.get_image_features(pixels, torch.tensor([[[0.2, 0.7]]])).point_features
        )
    torch.testing.assert_close(*features)


def test_point_encoding_is_that_of_a_small_box(make_descriptor):
    """(y, x, height, width), as many sines and cosines of each, with periods that grow from 1 to 10000."""
    model, _ = make_descriptor()
    encoder, seen = model.model.point_encoder, []
    encoder.position_projection.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(torch.tensor([[[0.3, 0.8]]]))
    box = model.config.point_box_size / model.config.image_size
    periods = 10000 ** (2 * (torch.arange(16) // 2) / 16)
    angles = 2 * torch.pi * torch.tensor([0.8, 0.3, box, box])[:, None] / periods
    expected = torch.where(torch.arange(16) % 2 == 0, angles.sin(), angles.cos())
    torch.testing.assert_close(seen[0].flatten(), expected.flatten())


@pytest.mark.parametrize("point_mask", ["gaussian", "none"])
def test_gaussian_mask_keeps_far_cells_out(make_descriptor, point_mask):
    model, _ = make_descriptor("efficientnet_lite", point_mask=point_mask, mask_sigma=0.05)
    torch.manual_seed(1)
    maps = [
        torch.randn(1, channels, side, side) for channels, side in ((40, 8), (112, 4), (320, 2))
    ]
    point = torch.tensor([[[0.1, 0.1]]])

    def features(*cells):
        """With the given pair of cells of the finest map swapped: the statistics of the normalisation stay as they are."""
        finest = maps[0].clone()
        for (a, b), (c, d) in (cells, cells[::-1]) if cells else ():
            finest[..., a, b] = maps[0][..., c, d]
        return model.get_image_features(
            feature_maps=[finest, *maps[1:]], input_points=point
        ).point_features

    torch.testing.assert_close(features(), features((0, 0), (0, 0)), atol=0, rtol=0)
    far = float((features() - features((7, 7), (3, 6))).detach().abs().max())
    near = float((features() - features((0, 0), (7, 7))).detach().abs().max())
    assert near > 1e-3
    assert far < 1e-5 if point_mask == "gaussian" else far > 1e-3


def test_points_keep_their_precision_in_half_precision(make_descriptor):
    model, _ = make_descriptor()
    model.bfloat16()
    points = torch.tensor(
        [[[0.9, 0.3], [0.9 + 0.5 / 64 / 16, 0.3]]]
    )  # less than the step of bfloat16 at 0.9
    seen = []
    model.model.point_encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.get_image_features(torch.zeros(1, 3, 64, 64), points)
    torch.testing.assert_close(seen[0], points, atol=0, rtol=0)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_bfloat16_runs(make_descriptor, random_image, text):
    model, processor = make_descriptor(text=text)
    model.bfloat16()
    inputs = teacher_forced(processor, random_image(), POINTS, answers(3))
    out = model(**inputs)
    out.loss.backward()
    assert out.logits.dtype == torch.bfloat16 and out.loss.isfinite()
    assert model.generate(**processor(random_image(), points=POINTS), **GREEDY).shape[0] == 3


def test_feature_maps_and_encoder_outputs_equal_pixels(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    logits = model(**inputs).logits
    maps = model.model.backbone(inputs["pixel_values"]).feature_maps
    assert torch.equal(
        model(**text, feature_maps=maps, input_points=inputs["input_points"]).logits, logits
    )
    encoded = {"image": model.get_image_features(inputs["pixel_values"], inputs["input_points"])}
    assert torch.equal(model(**text, mm_encoder_outputs=encoded).logits, logits)
    assert torch.equal(
        model.generate(**text, mm_encoder_outputs=encoded, **GREEDY),
        model.generate(**inputs, **GREEDY),
    )


def test_placeholders_are_not_generated(make_descriptor, random_image):
    model, processor = make_descriptor()
    tokens = torch.tensor([processor.image_token_id, processor.region_token_id])
    model.lm_head.register_forward_hook(lambda module, args, out: out.index_fill(-1, tokens, 1e4))
    inputs = processor(random_image(), points=POINTS)
    start = inputs["input_ids"].shape[1]
    assert not torch.isin(model.generate(**inputs, **GREEDY)[:, start:], tokens).any()
    model.generation_config.suppress_tokens = None
    assert torch.isin(model.generate(**inputs, **GREEDY)[:, start:], tokens).all()


def mask_loss(out):
    return sum(
        F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        for logits in out.point_mask_logits
    )


def train_steps(model, inputs, steps=3):
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0
    )
    for _ in range(steps):
        out = model(**inputs)
        loss = out.loss if out.point_mask_logits is None else out.loss + mask_loss(out)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    "fields",
    [{}, {"point_mask": "predicted"}, {"point_mask": "none"}, {"use_perception_prior": True}],
    ids=str,
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_trainable_parameter_moves_and_frozen_ones_stay(
    make_descriptor, random_image, backbone, fields
):
    model, processor = make_descriptor(backbone, **fields)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = teacher_forced(
        processor, [random_image(1), random_image(2)], [POINTS, POINTS], answers(6)
    )
    train_steps(model.train(), inputs)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


@pytest.mark.parametrize("freeze", ["freeze_vision", "freeze_backbone"])
def test_frozen_parts_stay(make_descriptor, random_image, freeze):
    model, processor = make_descriptor()
    getattr(model, freeze)()
    before = copy.deepcopy(model.state_dict())
    train_steps(model.train(), teacher_forced(processor, random_image(), POINTS, answers(3)))
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    frozen = (
        "model.vision_tower.pixel_level_module.encoder."
        if freeze == "freeze_backbone"
        else "model.vision_tower."
    )
    assert moved == {
        name
        for name, value in model.named_parameters(remove_duplicate=False)
        if value.requires_grad
    }
    assert not any(name.startswith(frozen) for name in moved) and any(
        "language_model" in name for name in moved
    )
    if freeze == "freeze_vision":
        assert all("language_model" in name or name == "lm_head.weight" for name in moved)
    else:
        assert any("transformer_module" in name for name in moved) and any(
            "image_projector" in name for name in moved
        )


def test_reload_freezes_what_no_loss_reaches(make_descriptor, tmp_path):
    model, _ = make_descriptor()
    model.save_pretrained(tmp_path)
    loaded = PointDescriptorForConditionalGeneration.from_pretrained(tmp_path)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert 0 < len(trainable) < len(list(model.parameters()))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saving_and_loading_is_exact(make_descriptor, tmp_path, dtype, tied):
    model, _ = make_descriptor(text_kwargs={"tie_word_embeddings": tied})
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    model.to(dtype).save_pretrained(tmp_path)
    loaded, info = PointDescriptorForConditionalGeneration.from_pretrained(
        tmp_path, dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    assert loaded.dtype == dtype and loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert value.dtype == loaded.state_dict()[name].dtype and torch.equal(
            value, loaded.state_dict()[name]
        ), name


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_lora_saves_loads_and_merges(make_descriptor, random_image, tmp_path, text):
    model, processor = make_descriptor("swin", text)
    inputs = processor(random_image(), points=POINTS)
    plain = model(**inputs).logits
    adapted = get_peft_model(copy.deepcopy(model), LORA).eval()
    names = [name for name, _ in adapted.named_parameters() if "lora_" in name]
    assert len(names) == 2 * 2 * 4 and all(".language_model.layers." in name for name in names)
    logits = adapted(**inputs).logits
    assert float((logits - plain).detach().abs().max()) > 1e-3
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        loaded.merge_and_unload()(**inputs).logits, logits, atol=1e-5, rtol=1e-5
    )
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(**inputs).logits, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("backbone", ["swin", "convnext"])
def test_gradient_checkpointing_changes_nothing(make_descriptor, random_image, backbone, lora):
    model, processor = make_descriptor(backbone)
    if lora:
        model = get_peft_model(model, LORA)
    inputs = teacher_forced(processor, random_image(), POINTS, answers(3))
    loss, gradients = run_of(model.train(), inputs)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    loss_again, gradients_again = run_of(model, inputs)
    torch.testing.assert_close(loss, loss_again)
    assert_same_gradients(gradients_again, gradients)


def test_encoder_outputs_beside_points_are_an_error(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    encoded = {
        "image": model.get_image_features(inputs.pop("pixel_values"), inputs["input_points"])
    }
    with pytest.raises(ValueError, match="input_points"):
        model.generate(**inputs, mm_encoder_outputs=encoded, **GREEDY)


def test_wrong_number_of_placeholders_is_an_error(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    with pytest.raises(ValueError, match="3 region placeholders but there are 2 region features"):
        model(**{**inputs, "input_points": inputs["input_points"][:, :2]})
    with pytest.raises(ValueError, match="15 image placeholders but there are 16 image features"):
        model(**{k: v[:1, 1:] if k in ("input_ids", "attention_mask") else v[:, :1] for k, v in inputs.items() if k != "pixel_values"},
              pixel_values=inputs["pixel_values"])  # fmt: skip
    with pytest.raises(ValueError, match="no points were given"):
        model(**{k: v for k, v in inputs.items() if k != "input_points"})


def test_images_must_share_the_rows(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    with pytest.raises(ValueError, match="3 text rows cannot be shared evenly by 2 images"):
        inputs = {k: v for k, v in inputs.items() if k != "input_points"}
        model(**{**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})
