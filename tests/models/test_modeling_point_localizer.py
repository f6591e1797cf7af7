import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from hf_talking_points import PointLocalizerForKeypointDetection
from hf_talking_points.models.configuration_talking_points import LOCALIZER_HEADS
from hf_talking_points.models.modeling_point_localizer import (
    StateNorm,
    local_soft_argmax,
)

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]
TEXTS = [
    "the tip of the left ear",
    "a wheel",
    "the center of the beak of the bird on the lower left, a dark spot",
]
WORDS = ["red", "green", "blue", "yellow", "white", "black", "wheel", "cat"]
TARGETS = torch.tensor([[0.2, 0.3], [0.7, 0.6], [0.5, 0.45]])
LORA = LoraConfig(
    r=4, target_modules=r".*language_model.*\.(q|k|v|o)_proj", init_lora_weights=False
)


def assert_same(outputs, expected, rows=slice(None)):
    assert outputs.keys() == expected.keys()
    for name in outputs:
        torch.testing.assert_close(
            outputs[name][rows], expected[name], atol=1e-5, rtol=1e-5
        )


def trainable_parameters(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def trainable_names(model):
    return {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def train_steps(model, inputs, steps=3):
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=1e-3, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()


def gradients_of(model, inputs):
    """Gradients of the loss by name."""
    model.zero_grad()
    model(**inputs).loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.clone()
    return gradients


def random_targets(seed=3):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(len(WORDS), 2, generator=generator)


@pytest.fixture
def two_photos(random_image):
    return [random_image(1), random_image(2, 40, 80)]


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_outputs(make_localizer, random_image, head, backbone, text):
    model, processor = make_localizer(backbone, text, head=head)
    with torch.no_grad():
        outputs = model(**processor(random_image(), TEXTS), target_points=TARGETS)
    points = outputs.points
    assert points.shape == outputs.regressed_points.shape == (3, 2)
    assert outputs.loss.isfinite()
    assert bool(((points >= 0) & (points <= 1)).all())
    if head == "mlp":
        assert outputs.confidence is None and outputs.heatmaps is None
        assert torch.equal(points, outputs.regressed_points)
        torch.testing.assert_close(outputs.loss, (points - TARGETS).pow(2).mean())
    else:
        side = 64 // model.config.vision_config.feature_strides[0]
        assert outputs.heatmaps.shape == (3, side, side)
        torch.testing.assert_close(outputs.heatmaps.sum((1, 2)), torch.ones(3))
        assert bool(((outputs.confidence > 0) & (outputs.confidence <= 1)).all())


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_the_loss_is_the_first_of_a_tuple(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    inputs = processor(random_image(), TEXTS)
    with torch.no_grad():
        outputs = model(**inputs, target_points=TARGETS)
        loss, points, *_ = model(**inputs, target_points=TARGETS, return_dict=False)
    assert torch.equal(loss, outputs.loss)
    assert torch.equal(points, outputs.points)


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_texts_without_a_place_are_left_out_of_the_loss(
    make_localizer, random_image, head
):
    model, processor = make_localizer(head=head)
    targets = TARGETS.clone()
    targets[1] = torch.nan
    inputs = processor(random_image(), TEXTS)
    loss = model(**inputs, target_points=targets).loss
    gradients = torch.autograd.grad(loss, model.text_to_vision[0].weight)
    others = processor(random_image(), TEXTS[::2])
    without = model(**others, target_points=TARGETS[::2]).loss
    torch.testing.assert_close(loss, without)
    assert torch.isfinite(gradients[0]).all()
    nowhere = torch.full_like(TARGETS, torch.nan)
    assert model(**inputs, target_points=nowhere).loss.item() == 0


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_texts_of_one_image_equal_separate_texts(
    make_localizer, two_photos, head, text, padding_side
):
    model, processor = make_localizer(text=text, head=head)
    texts = [TEXTS, TEXTS[::-1]]
    images_of_calls = []

    def count_images(module, args, output):
        images_of_calls.append(len(args[0]))

    model.model.backbone.register_forward_hook(count_images)
    with torch.no_grad():
        together = model(**processor(two_photos, texts, padding_side=padding_side))
        assert images_of_calls == [2]
        row = 0
        for photo, texts_of_photo in zip(two_photos, texts):
            for description in texts_of_photo:
                alone = model(**processor(photo, description))
                assert_same(together, alone, slice(row, row + 1))
                row += 1


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_batch_equals_single(
    make_localizer, two_photos, random_image, head, padding_side
):
    model, processor = make_localizer(head=head)
    photos = [*two_photos, random_image(3)]
    with torch.no_grad():
        batch = model(**processor(photos, TEXTS, padding_side=padding_side))
        for row, (photo, text) in enumerate(zip(photos, TEXTS)):
            assert_same(batch, model(**processor(photo, text)), slice(row, row + 1))


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_images_with_unequal_numbers_of_texts(make_localizer, two_photos, head):
    model, processor = make_localizer(head=head)
    texts = [TEXTS, TEXTS[:1]]
    with torch.no_grad():
        together = model(**processor(two_photos, texts)).points
        apart = [model(**processor(*pair)).points for pair in zip(two_photos, texts)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
@pytest.mark.parametrize(
    "image_index", [[0, 0, 1, 1], [0, 1, 1], [1, 1, 0, 0], [0, 1, 0], [1]]
)
def test_rows_of_images_in_any_order(make_localizer, two_photos, head, image_index):
    model, processor = make_localizer(head=head)
    texts = (TEXTS + TEXTS)[: len(image_index)]
    photos = [two_photos[index] for index in image_index]
    inputs = processor(photos, texts)
    pixel_values = processor(two_photos, TEXTS[:2])["pixel_values"]
    indexed = {
        **inputs,
        "pixel_values": pixel_values,
        "image_index": torch.tensor(image_index),
    }
    with torch.no_grad():
        assert_same(model(**inputs), model(**indexed))


def test_an_image_index_of_other_rows_is_an_error(make_localizer, random_image):
    model, processor = make_localizer()
    inputs = {**processor(random_image(), TEXTS), "image_index": torch.tensor([0, 0])}
    with pytest.raises(ValueError, match="images of 2 rows, but there are 3 rows"):
        model(**inputs)


def test_prompt_of_one_image_runs_once(make_localizer, random_image):
    model, processor = make_localizer()
    shapes = []

    def keep_shape(module, args, kwargs):
        shapes.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    model.model.language_model.register_forward_pre_hook(keep_shape, with_kwargs=True)
    inputs = processor(random_image(), TEXTS)
    model(**inputs)
    lengths_of_texts = inputs["attention_mask"].sum(1)
    assert len(lengths_of_texts.unique()) > 1  # also where the texts differ in length
    rows, length = shapes[0]
    assert rows == 1
    assert length < 3 * inputs["input_ids"].shape[1] - 2 * processor.image_seq_length


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_shared_gradients_equal_separate_ones(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    inputs = {**processor(random_image(), TEXTS), "target_points": TARGETS}
    one_image = {**inputs, "image_index": torch.tensor([0, 0, 0])}
    image_per_row = {
        **inputs,
        "pixel_values": inputs["pixel_values"].repeat(3, 1, 1, 1),
        "image_index": torch.tensor([0, 1, 2]),
    }
    shared = gradients_of(model, one_image)
    separate = gradients_of(model, image_per_row)
    largest = max(float(gradient.norm()) for gradient in separate.values())
    for name, gradient in separate.items():
        difference = float((shared[name] - gradient).norm())
        assert difference <= 1e-4 * float(gradient.norm()) + 1e-6 * largest, name


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_text_and_image_change_the_point(make_localizer, two_photos, head):
    model, processor = make_localizer(head=head)
    with torch.no_grad():
        points = model(**processor(two_photos, [TEXTS[:2], TEXTS[:2]])).points
    first, of_another_text, in_another_image, _ = points
    assert float((first - of_another_text).abs().max()) > 1e-3
    assert float((first - in_another_image).abs().max()) > 1e-3


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_feature_maps_and_encoder_outputs_equal_pixels(
    make_localizer, random_image, head
):
    model, processor = make_localizer(head=head)
    inputs = processor(random_image(), TEXTS)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model(**inputs)
        maps = model.model.backbone(inputs["pixel_values"]).feature_maps
        assert_same(expected, model(**text, feature_maps=maps))
        encoded = {"image": model.get_image_features(inputs["pixel_values"])}
        assert_same(expected, model(**text, mm_encoder_outputs=encoded))
    with pytest.raises(ValueError, match="either pixel_values or feature_maps"):
        model(**inputs, feature_maps=maps)
    with pytest.raises(ValueError, match="either pixel_values or feature_maps"):
        model(**text)


@pytest.mark.parametrize("center", [(0.31, 0.72), (0.5, 0.5), (0.85, 0.2)])
@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_local_soft_argmax_finds_the_center_of_a_gaussian(center, spread):
    height, width = 24, 32
    size = torch.tensor([width, height])
    center = torch.tensor(center)
    y, x = torch.meshgrid(
        torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij"
    )
    center_x, center_y = center * size
    distance = (x - center_x) ** 2 + (y - center_y) ** 2
    heatmap = torch.softmax(-distance.flatten() / (2 * spread**2), 0)
    points, confidence = local_soft_argmax(heatmap.view(1, height, width), window=2.5)
    assert bool(((points[0] - center).abs() * size < 0.25).all())
    assert 0 < float(confidence) <= 1


def test_local_soft_argmax_ignores_a_far_second_peak_but_loses_confidence():
    heatmap = torch.zeros(2, 16, 16)
    heatmap[0, 3, 4] = 0.6
    heatmap[0, 12, 13] = 0.4
    heatmap[1, 3, 4] = 1.0
    points, confidence = local_soft_argmax(heatmap, window=1.0)
    peak = [4.5 / 16, 3.5 / 16]
    torch.testing.assert_close(points, torch.tensor([peak, peak]))
    torch.testing.assert_close(confidence, torch.tensor([0.6, 1.0]))


@pytest.mark.parametrize("replacement", ["keypoint", "<SEG><SEG>"])
def test_exactly_one_seg_token_is_needed(make_localizer, random_image, replacement):
    model, processor = make_localizer()
    prompt = processor.render("a")
    inputs = processor.tokenize([prompt, prompt.replace("<SEG>", replacement)])
    pixel_values = processor.pixel_values([random_image()])
    with pytest.raises(ValueError, match=r"exactly one <SEG> token .* got \[1, [02]\]"):
        model(**inputs, pixel_values=pixel_values)


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "mlp"},
        {"head": "heatmap"},
        {"head": "heatmap", "use_perception_prior": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_trainable_parameter_moves_and_frozen_ones_stay(
    make_localizer, two_photos, backbone, fields
):
    model, processor = make_localizer(backbone, token_strides=(16, 32), **fields)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = processor(two_photos, [TEXTS, TEXTS])
    train_steps(model.train(), {**inputs, "target_points": TARGETS.repeat(2, 1)})
    for name, value in model.named_parameters():
        moved = not torch.equal(value, before[name])
        assert moved == value.requires_grad, name


@pytest.mark.parametrize("freeze", ["freeze_vision", "freeze_backbone"])
@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_frozen_parts_stay(make_localizer, random_image, head, freeze):
    model, processor = make_localizer(token_strides=(16, 32), head=head)
    getattr(model, freeze)()
    before = copy.deepcopy(model.state_dict())
    train_steps(
        model.train(), {**processor(random_image(), TEXTS), "target_points": TARGETS}
    )
    after = model.state_dict()
    moved = {
        name for name, value in after.items() if not torch.equal(value, before[name])
    }
    assert moved == trainable_names(model)

    def moves(part):
        return any(name.startswith(part) for name in moved)

    assert not moves("model.vision_tower.pixel_level_module.encoder")
    assert moves("model.language_model")
    assert moves("point_head")
    assert moves("model.map_keys") == (head == "heatmap")
    assert moves("model.image_projector") == (freeze == "freeze_backbone")


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saving_and_loading_is_exact(make_localizer, tmp_path, dtype, head):
    model, _ = make_localizer(head=head)
    model.to(dtype).save_pretrained(tmp_path)
    loaded, info = PointLocalizerForKeypointDetection.from_pretrained(
        tmp_path, dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert weights[name].dtype == value.dtype, name
        assert torch.equal(weights[name], value), name
    assert trainable_names(loaded) == trainable_names(model)


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_bfloat16_runs(make_localizer, random_image, head):
    model, processor = make_localizer(head=head)
    outputs = model.bfloat16()(
        **processor(random_image(), TEXTS), target_points=TARGETS
    )
    outputs.loss.backward()
    assert outputs.points.dtype == torch.float32
    assert outputs.loss.isfinite()


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_lora_saves_loads_and_merges(make_localizer, random_image, tmp_path, head):
    model, processor = make_localizer("swin", head=head)
    inputs = processor(random_image(), TEXTS)
    adapted = get_peft_model(copy.deepcopy(model), LORA).eval()
    with torch.no_grad():
        plain = model(**inputs)
        outputs = adapted(**inputs)
        assert float((outputs.points - plain.points).abs().max()) > 1e-4
        adapted.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
        assert_same(loaded(**inputs), outputs)
        assert_same(loaded.merge_and_unload()(**inputs), outputs)
    for name, _ in adapted.named_parameters():
        assert "lora_" not in name or ".language_model." in name


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_gradient_checkpointing_changes_nothing(make_localizer, random_image, head):
    model, processor = make_localizer("swin", head=head)
    inputs = {**processor(random_image(), TEXTS), "target_points": TARGETS}
    model.train()
    plain = gradients_of(model, inputs)
    model.gradient_checkpointing_enable()
    checkpointed = gradients_of(model, inputs)
    assert checkpointed.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def train_on_features(model, inputs, targets):
    """Trains on the backbone's maps, which take the place of the pixels in `inputs`."""
    with torch.no_grad():
        inputs["feature_maps"] = model.model.backbone(
            inputs.pop("pixel_values")
        ).feature_maps
    model.freeze_backbone()
    model.train()
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(**inputs, target_points=targets).loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_overfits_texts_of_one_image(make_localizer, random_image, head):
    # the Gaussian of the target is about as wide as a cell
    model, processor = make_localizer(
        token_strides=(16, 32), head=head, heatmap_sigma=0.06
    )
    targets = random_targets()
    inputs = dict(processor(random_image(), WORDS))
    train_on_features(model, inputs, targets)
    with torch.no_grad():
        outputs = model(**inputs)
    for points in (outputs.points, outputs.regressed_points):
        assert float((points - targets).norm(dim=-1).max()) < 0.05


@pytest.mark.parametrize("standardize", [False, True])
def test_standardized_states_are_read_where_they_hardly_differ(
    make_localizer, random_image, standardize
):
    model, processor = make_localizer(
        token_strides=(16, 32), standardize_states=standardize
    )
    targets = random_targets()
    language_model = model.model.language_model.requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    common = 2 * torch.randn(language_model.config.hidden_size, generator=generator)

    def make_alike(module, args, output):
        # what the texts have in common is 100 times what differs between them, as in a pretrained language model
        return common + 0.02 * output

    language_model.norm.register_forward_hook(make_alike)
    inputs = dict(processor(random_image(), WORDS))
    train_on_features(model, inputs, targets)
    texts = ("input_ids", "attention_mask", "image_index")
    first_row = {name: inputs[name][:1] for name in texts}
    with torch.no_grad():
        outputs = model(**inputs)
        alone = model(**{**inputs, **first_row})
    torch.testing.assert_close(alone.points, outputs.points[:1])
    mean_distance = float((outputs.points - targets).norm(dim=-1).mean())
    assert (mean_distance < 0.05) == standardize


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
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.eval()
    with torch.no_grad():
        outputs = adapted(**inputs)
        loaded = PeftModel.from_pretrained(
            copy.deepcopy(model), tmp_path / "adapter"
        ).eval()
        assert_same(loaded(**inputs), outputs)
        merged = loaded.merge_and_unload()
        assert_same(merged(**inputs), outputs)
        merged.save_pretrained(tmp_path / "merged")
        reloaded = PointLocalizerForKeypointDetection.from_pretrained(
            tmp_path / "merged"
        )
        assert_same(reloaded(**inputs), outputs)


@pytest.mark.parametrize("head", LOCALIZER_HEADS)
def test_standardized_states_train_on_a_single_row(make_localizer, random_image, head):
    model, processor = make_localizer(head=head, standardize_states=True)
    inputs = processor(random_image(), TEXTS[:1])
    loss = model.train()(**inputs, target_points=TARGETS[:1]).loss
    loss.backward()
    assert loss.isfinite()
    gradients = [w.grad for w in trainable_parameters(model)]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_running_statistics_become_those_of_the_states(rows):
    torch.manual_seed(0)
    norm = StateNorm(8)
    center = torch.linspace(-50, 50, 8)
    for _ in range(400):
        assert norm(center + 0.1 * torch.randn(rows, 8)).isfinite().all()
    standardized = norm.eval()(center + 0.1 * torch.randn(2000, 8))
    assert standardized.mean(0).abs().max() < 1.5 / rows**0.5
    assert 0.4 < standardized.std(0).min() and standardized.std(0).max() < 2.5


def test_a_state_that_hardly_differs_is_told_apart_after_one_batch():
    torch.manual_seed(0)
    norm = StateNorm(8)
    states = 30 + 0.5 * torch.randn(64, 8)
    norm(states)
    assert norm.eval()(states).mean(0).abs().max() < 1e-4


def test_statistics_of_batch_norm_are_read_on():
    torch.manual_seed(0)
    batch_norm = torch.nn.BatchNorm1d(8, affine=False)
    for _ in range(5):
        batch_norm(3 + 2 * torch.randn(16, 8))
    norm = StateNorm(8)
    norm.load_state_dict(batch_norm.state_dict())
    states = torch.randn(4, 8)
    torch.testing.assert_close(norm.eval()(states), batch_norm.eval()(states))


def test_a_prior_width_without_dimension_is_loaded(make_localizer, tmp_path):
    model, _ = make_localizer(head="heatmap")
    name = "heatmap_head.log_prior_width"
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert weights[name].shape == (1,)
    weights[name] = torch.tensor(0.25)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = PointLocalizerForKeypointDetection.from_pretrained(tmp_path)
    assert loaded.heatmap_head.log_prior_width.tolist() == [0.25]


def test_parameters_have_dimensions(make_localizer):
    for head in LOCALIZER_HEADS:
        model, _ = make_localizer(head=head, standardize_states=True)
        assert all(weight.ndim for weight in model.parameters())
