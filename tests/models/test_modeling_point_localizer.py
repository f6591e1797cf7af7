import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from hf_talking_points import PointLocalizerForKeypointDetection
from hf_talking_points.models.modeling_point_localizer import local_soft_argmax

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]
HEADS = ["mlp", "heatmap"]
TEXTS = [
    "the tip of the left ear",
    "a wheel",
    "the centre of the beak of the bird on the lower left, a dark spot",
]
TARGETS = torch.tensor([[0.2, 0.3], [0.7, 0.6], [0.5, 0.45]])
LORA = LoraConfig(
    r=4, target_modules=r".*language_model.*\.(q|k|v|o)_proj", init_lora_weights=False
)


def assert_same(one, other, rows=slice(None)):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name][rows], other[name], atol=1e-5, rtol=1e-5)


def train_steps(model, inputs, steps=3):
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0
    )
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_outputs(make_localizer, random_image, head, backbone, text):
    model, processor = make_localizer(backbone, text, head=head)
    with torch.no_grad():
        out = model(**processor(random_image(), TEXTS), target_points=TARGETS)
    assert out.points.shape == out.regressed_points.shape == (3, 2) and out.loss.isfinite()
    assert bool(((out.points >= 0) & (out.points <= 1)).all())
    if head == "mlp":
        assert out.confidence is None and out.heatmaps is None
        assert torch.equal(out.points, out.regressed_points)
        torch.testing.assert_close(out.loss, (out.points - TARGETS).pow(2).mean())
    else:
        side = 64 // model.config.vision_config.feature_strides[0]
        assert out.heatmaps.shape == (3, side, side)
        torch.testing.assert_close(out.heatmaps.sum((1, 2)), torch.ones(3))
        assert bool(((out.confidence > 0) & (out.confidence <= 1)).all())


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("head", HEADS)
def test_texts_of_one_image_equal_separate_texts(
    make_localizer, random_image, head, text, padding_side
):
    model, processor = make_localizer(text=text, head=head)
    photos = [random_image(1), random_image(2, 40, 80)]
    calls = []
    model.model.backbone.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    with torch.no_grad():
        together = model(**processor(photos, [TEXTS, TEXTS[::-1]], padding_side=padding_side))
        assert calls == [2]
        for row, (photo, description) in enumerate(
            [(photos[0], t) for t in TEXTS] + [(photos[1], t) for t in TEXTS[::-1]]
        ):
            assert_same(together, model(**processor(photo, description)), slice(row, row + 1))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("head", HEADS)
def test_batch_equals_single(make_localizer, random_image, head, padding_side):
    model, processor = make_localizer(head=head)
    photos = [random_image(1), random_image(2, 40, 80), random_image(3)]
    with torch.no_grad():
        batch = model(**processor(photos, TEXTS, padding_side=padding_side))
        for row in range(3):
            assert_same(batch, model(**processor(photos[row], TEXTS[row])), slice(row, row + 1))


@pytest.mark.parametrize("head", HEADS)
def test_images_with_unequal_numbers_of_texts(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    photos, texts = [random_image(1), random_image(2)], [TEXTS, TEXTS[:1]]
    with torch.no_grad():
        together = model(**processor(photos, texts)).points
        apart = torch.cat([model(**processor(photo, t)).points for photo, t in zip(photos, texts)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_prompt_of_one_image_runs_once(make_localizer, random_image):
    model, processor = make_localizer()
    lengths = []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(tuple(kwargs["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    inputs = processor(random_image(), TEXTS)
    model(**inputs)
    length = inputs["input_ids"].shape[1]
    assert (
        len(set(inputs["attention_mask"].sum(1).tolist())) > 1
    )  # also where the texts differ in length
    assert lengths[0][0] == 1 and lengths[0][1] < 3 * length - 2 * processor.image_seq_length


@pytest.mark.parametrize("head", HEADS)
def test_shared_gradients_equal_separate_ones(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    gradients = []
    inputs = dict(processor(random_image(), TEXTS))
    for pixel_values in (inputs["pixel_values"], inputs["pixel_values"].repeat(3, 1, 1, 1)):
        model.zero_grad()
        inputs |= {"pixel_values": pixel_values, "image_index": torch.arange(3) % len(pixel_values)}
        model(**inputs, target_points=TARGETS).loss.backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    scale = max(float(value.norm()) for value in gradients[1].values())
    for name, value in gradients[1].items():
        assert (
            float((gradients[0][name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6 * scale
        ), name


@pytest.mark.parametrize("head", HEADS)
def test_text_and_image_change_the_point(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    with torch.no_grad():
        points = model(
            **processor([random_image(1), random_image(2)], [TEXTS[:2], TEXTS[:2]])
        ).points
    assert float((points[0] - points[1]).abs().max()) > 1e-3
    assert float((points[0] - points[2]).abs().max()) > 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_feature_maps_and_encoder_outputs_equal_pixels(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    inputs = processor(random_image(), TEXTS)
    text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model(**inputs)
        maps = model.model.backbone(inputs["pixel_values"]).feature_maps
        assert_same(expected, model(**text, feature_maps=maps))
        assert_same(
            expected,
            model(
                **text,
                mm_encoder_outputs={"image": model.get_image_features(inputs["pixel_values"])},
            ),
        )
    with pytest.raises(ValueError, match="either pixel_values or feature_maps"):
        model(**inputs, feature_maps=maps)


@pytest.mark.parametrize("centre", [(0.31, 0.72), (0.5, 0.5), (0.85, 0.2)])
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_local_soft_argmax_finds_the_centre_of_a_gaussian(centre, spread):
    height, width = 24, 32
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    distance = (x - centre[0] * width) ** 2 + (y - centre[1] * height) ** 2
    heatmap = torch.softmax(-distance.flatten() / (2 * spread**2), 0).view(1, height, width)
    points, confidence = local_soft_argmax(heatmap, window=2.5)
    assert bool(
        ((points[0] - torch.tensor(centre)).abs() * torch.tensor([width, height]) < 0.25).all()
    )
    assert 0 < float(confidence) <= 1


def test_local_soft_argmax_ignores_a_far_second_peak_but_loses_confidence():
    heatmap = torch.zeros(2, 16, 16)
    heatmap[:, 3, 4] = 0.6
    heatmap[0, 12, 13], heatmap[1, 3, 4] = 0.4, 1.0
    points, confidence = local_soft_argmax(heatmap, window=1.0)
    torch.testing.assert_close(points, torch.tensor([[4.5 / 16, 3.5 / 16]] * 2))
    torch.testing.assert_close(confidence, torch.tensor([0.6, 1.0]))


@pytest.mark.parametrize("replacement", ["keypoint", "<SEG><SEG>"])
def test_exactly_one_seg_token_is_needed(make_localizer, random_image, replacement):
    model, processor = make_localizer()
    inputs = processor.tokenize(
        [processor.render("a"), processor.render("a").replace("<SEG>", replacement)]
    )
    pixel_values = processor.pixel_values([random_image()])
    with pytest.raises(ValueError, match=r"exactly one <SEG> token .* got \[1, [02]\]"):
        model(**inputs, pixel_values=pixel_values)


@pytest.mark.parametrize(
    "fields",
    [{"head": "mlp"}, {"head": "heatmap"}, {"head": "heatmap", "use_perception_prior": True}],
    ids=str,
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_trainable_parameter_moves_and_frozen_ones_stay(
    make_localizer, random_image, backbone, fields
):
    model, processor = make_localizer(backbone, token_strides=(16, 32), **fields)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = processor([random_image(1), random_image(2)], [TEXTS, TEXTS])
    train_steps(model.train(), {**inputs, "target_points": TARGETS.repeat(2, 1)})
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


@pytest.mark.parametrize("freeze", ["freeze_vision", "freeze_backbone"])
@pytest.mark.parametrize("head", HEADS)
def test_frozen_parts_stay(make_localizer, random_image, head, freeze):
    model, processor = make_localizer(token_strides=(16, 32), head=head)
    getattr(model, freeze)()
    before = copy.deepcopy(model.state_dict())
    train_steps(model.train(), {**processor(random_image(), TEXTS), "target_points": TARGETS})
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any(
        name.startswith("model.vision_tower.pixel_level_module.encoder") for name in moved
    )
    assert any(name.startswith("model.image_projector") for name in moved) == (
        freeze == "freeze_backbone"
    )
    assert any(name.startswith("model.language_model") for name in moved) and any(
        name.startswith("point_head") for name in moved
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saving_and_loading_is_exact(make_localizer, tmp_path, dtype, head):
    model, _ = make_localizer(head=head)
    model.to(dtype).save_pretrained(tmp_path)
    loaded, info = PointLocalizerForKeypointDetection.from_pretrained(
        tmp_path, dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert value.dtype == loaded.state_dict()[name].dtype and torch.equal(
            value, loaded.state_dict()[name]
        ), name
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in loaded.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_runs(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    out = model.bfloat16()(**processor(random_image(), TEXTS), target_points=TARGETS)
    out.loss.backward()
    assert out.points.dtype == torch.float32 and out.loss.isfinite()


@pytest.mark.parametrize("head", HEADS)
def test_lora_saves_loads_and_merges(make_localizer, random_image, tmp_path, head):
    model, processor = make_localizer("swin", head=head)
    inputs = processor(random_image(), TEXTS)
    with torch.no_grad():
        plain = model(**inputs)
        adapted = get_peft_model(copy.deepcopy(model), LORA).eval()
        out = adapted(**inputs)
        assert float((out.points - plain.points).abs().max()) > 1e-4
        adapted.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
        assert_same(loaded(**inputs), out)
        assert_same(loaded.merge_and_unload()(**inputs), out)
    assert all(
        ".language_model." in name for name, _ in adapted.named_parameters() if "lora_" in name
    )


@pytest.mark.parametrize("head", HEADS)
def test_gradient_checkpointing_changes_nothing(make_localizer, random_image, head):
    model, processor = make_localizer("swin", head=head)
    inputs = {**processor(random_image(), TEXTS), "target_points": TARGETS}
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        model(**inputs).loss.backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name])


def train_on_features(model, inputs, targets):
    with torch.no_grad():
        inputs["feature_maps"] = model.model.backbone(inputs.pop("pixel_values")).feature_maps
    model.freeze_backbone()
    optimizer = torch.optim.AdamW(
        [p for p in model.train().parameters() if p.requires_grad], lr=3e-3
    )
    for _ in range(150):
        optimizer.zero_grad()
        model(**inputs, target_points=targets).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("head", HEADS)
def test_overfits_texts_of_one_image(make_localizer, random_image, head):
    model, processor = make_localizer(
        token_strides=(16, 32), head=head, heatmap_sigma=0.06
    )  # about the width of a cell
    words = "red green blue yellow white black wheel cat".split()
    targets = 0.1 + 0.8 * torch.rand(8, 2, generator=torch.Generator().manual_seed(3))
    inputs = dict(processor(random_image(), words))
    train_on_features(model, inputs, targets)
    with torch.no_grad():
        out = model.eval()(**inputs)
    assert float((out.points - targets).norm(dim=-1).max()) < 0.05
    assert float((out.regressed_points - targets).norm(dim=-1).max()) < 0.05


@pytest.mark.parametrize("standardize", [False, True])
def test_standardized_states_are_read_where_they_hardly_differ(
    make_localizer, random_image, standardize
):
    model, processor = make_localizer(token_strides=(16, 32), standardize_states=standardize)
    words = "red green blue yellow white black wheel cat".split()
    targets = 0.1 + 0.8 * torch.rand(8, 2, generator=torch.Generator().manual_seed(3))
    language_model = model.model.language_model.requires_grad_(False)
    common = 2 * torch.randn(
        language_model.config.hidden_size, generator=torch.Generator().manual_seed(4)
    )
    # what the texts have in common is 30 times what differs between them, as in a pretrained language model
    language_model.norm.register_forward_hook(lambda module, args, out: common + 0.06 * out)
    inputs = dict(processor(random_image(), words))
    train_on_features(model, inputs, targets)
    with torch.no_grad():
        out = model.eval()(**inputs)
        alone = model(
            **{
                **inputs,
                "input_ids": inputs["input_ids"][:1],
                "attention_mask": inputs["attention_mask"][:1],
            }
        )
    torch.testing.assert_close(alone.points, out.points[:1])
    assert (float((out.points - targets).norm(dim=-1).mean()) < 0.05) == standardize


def test_standardized_states_survive_lora(make_localizer, random_image, tmp_path):
    model, processor = make_localizer(standardize_states=True)
    inputs = processor(random_image(), TEXTS)
    lora = LoraConfig(
        r=4,
        target_modules=LORA.target_modules,
        modules_to_save=["state_norm", "text_to_vision", "point_head"],
    )
    adapted = get_peft_model(copy.deepcopy(model), lora)
    train_steps(adapted.train(), {**inputs, "target_points": TARGETS})
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        out = adapted.eval()(**inputs)
        loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
        assert_same(loaded(**inputs), out)
        merged = loaded.merge_and_unload()
        assert_same(merged(**inputs), out)
        merged.save_pretrained(tmp_path / "merged")
        assert_same(
            PointLocalizerForKeypointDetection.from_pretrained(tmp_path / "merged")(**inputs), out
        )
