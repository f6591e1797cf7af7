import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F

from hf_talking_points import PointDescriptorForConditionalGeneration
from hf_talking_points.models.modeling_point_descriptor import (
    SPOT_SIDE,
    PointDescriptorImageOutput,
    gaussian_attention_mask,
    spot_samples,
)

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]
POINTS = [(10.0, 12.0), (80.0, 50.0), (48.0, 3.0)]
PROMPTS = [
    "<image>Please describe region1 <region>.",
    "<image>the cat <region>",
    "<image>a point on the front wheel <region> of the car",
]
ANSWERS = [
    "the left ear of the cat",
    "a wheel",
    "red green blue yellow",
    "the beak, a dark spot on the lower left",
]
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
WITH_LOGITS = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
LORA = LoraConfig(
    r=4, target_modules=r".*language_model.*\.(q|k|v|o)_proj", init_lora_weights=False
)


def answered_prompts(count):
    return [
        f"<image>describe <region>. {ANSWERS[row % len(ANSWERS)]}"
        for row in range(count)
    ]


def teacher_forced(processor, images, points, texts, padding_side="right"):
    """Inputs and labels; every token after the region is a label."""
    inputs = processor(images, text=texts, points=points, padding_side=padding_side)
    from_region_on = (inputs["input_ids"] == processor.region_token_id).cumsum(1).bool()
    labeled = from_region_on & inputs["attention_mask"].bool()
    inputs["labels"] = inputs["input_ids"].masked_fill(~labeled, -100)
    return inputs


def text_alone(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def without(inputs, name):
    return {other: value for other, value in inputs.items() if other != name}


def trainable_names(model, **kwargs):
    parameters = model.named_parameters(**kwargs)
    return {name for name, parameter in parameters if parameter.requires_grad}


def loss_and_gradients(model, inputs):
    """Loss, and gradients by name."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.clone()
    return loss.detach(), gradients


def assert_same_gradients(gradients, expected, rtol=1e-4):
    assert gradients.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((gradients[name] - gradient).norm())
        assert difference <= rtol * float(gradient.norm()) + 4e-6 * largest, name


def assert_close(values, expected):
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)


def assert_row_is(generated, row, single):
    """A row of what `generate` returns, with logits, is what it returns for that row alone."""
    assert torch.equal(generated.sequences[row, -6:], single.sequences[0, -6:])
    for logits, single_logits in zip(generated.logits, single.logits, strict=True):
        assert_close(logits[row], single_logits[0])


@pytest.fixture
def two_photos(random_image):
    return [random_image(1), random_image(2)]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
    st.integers(1, 64),
    st.integers(1, 64),
    st.floats(1e-6, 2),
    st.floats(0.01, 0.99),
)
def test_gaussian_mask_opens_the_cells_above_the_threshold(
    points, height, width, sigma, threshold
):
    points = torch.tensor([points])
    blocked = gaussian_attention_mask(points, height, width, sigma, threshold)
    open_cells = ~blocked.view(1, -1, height, width)
    y = (torch.arange(height).double() + 0.5) / height
    x = (torch.arange(width).double() + 0.5) / width
    point_x = points[..., 0, None, None].double()
    point_y = points[..., 1, None, None].double()
    distance = (x - point_x) ** 2 + (y[:, None] - point_y) ** 2
    value = torch.exp(-distance / (2 * sigma**2))
    clear = (value - threshold).abs() > 1e-4  # float32 decides the rest
    nearest_distance = distance.amin((-2, -1), keepdim=True)
    compared = clear & (distance != nearest_distance)
    assert torch.equal(open_cells[compared], (value >= threshold)[compared])
    nearest_open = torch.where(open_cells, distance, torch.inf).amin(
        (-2, -1), keepdim=True
    )
    torch.testing.assert_close(nearest_open, nearest_distance, atol=1e-6, rtol=0)


def test_gaussian_mask_has_the_same_reach_on_every_level():
    point = torch.tensor([[[0.5, 0.5]]])
    shares = []
    for side in (32, 64, 128):
        blocked = gaussian_attention_mask(point, side, side, 0.1, 0.5)
        shares.append(float((~blocked).float().mean()))
    squared_radius = 2 * 0.1**2 * torch.tensor(2.0).log()
    area = float(torch.pi * squared_radius)
    assert shares == pytest.approx([area] * 3, rel=0.1)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_forward_and_generate(make_descriptor, random_image, backbone, text):
    model, processor = make_descriptor(backbone, text)
    inputs = teacher_forced(processor, random_image(), POINTS, answered_prompts(3))
    outputs = model(**inputs)
    length = inputs["input_ids"].shape[1]
    assert outputs.logits.shape == (3, length, len(processor.tokenizer))
    assert outputs.point_features.shape == (3, 64)
    assert outputs.loss.isfinite()
    prompt = processor(random_image(), points=POINTS)
    generated = model.generate(**prompt, **GREEDY)
    assert generated.shape == (3, prompt["input_ids"].shape[1] + 6)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_batch_equals_single(make_descriptor, random_image, text):
    model, processor = make_descriptor(text=text)
    photos = [random_image(1), random_image(2, 40, 80), random_image(3, 64, 64)]
    points = [[(10, 12)], [(30, 70)], [(5, 60)]]
    batch = model.generate(
        **processor(photos, text=PROMPTS, points=points), **WITH_LOGITS
    )
    for row in range(3):
        inputs = processor(photos[row], text=PROMPTS[row], points=points[row])
        assert_row_is(batch, row, model.generate(**inputs, **WITH_LOGITS))


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
    shared = teacher_forced(
        processor, photos, points, answered_prompts(6), padding_side
    )
    separate = {
        **shared,
        "pixel_values": shared["pixel_values"].repeat_interleave(3, 0),
        "input_points": shared["input_points"].flatten(0, 1)[:, None],
    }
    real = shared["attention_mask"].bool()
    logits = model(**shared, use_cache=False).logits
    separate_logits = model(**separate, use_cache=False).logits
    assert_close(logits[real], separate_logits[real])
    loss, gradients = loss_and_gradients(model, shared)
    separate_loss, separate_gradients = loss_and_gradients(model, separate)
    torch.testing.assert_close(loss, separate_loss)
    assert_same_gradients(gradients, separate_gradients)


def test_prefix_of_one_image_runs_once(make_descriptor, random_image):
    model, processor = make_descriptor()
    shapes = []

    def keep_shape(module, args, kwargs):
        shapes.append(kwargs["inputs_embeds"].shape[:2])

    model.model.language_model.register_forward_pre_hook(keep_shape, with_kwargs=True)
    inputs = processor(random_image(), points=POINTS)
    model(**inputs)
    rows, length = shapes[0]
    assert rows == 1
    assert length < 3 * inputs["input_ids"].shape[1] - 2 * processor.image_seq_length


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_cached_equals_uncached_generation(make_descriptor, two_photos, text):
    model, processor = make_descriptor(text=text)
    inputs = processor(two_photos, points=[POINTS[:2], POINTS[1:]])
    cached = model.generate(**inputs, **GREEDY, use_cache=True)
    uncached = model.generate(**inputs, **GREEDY, use_cache=False)
    assert torch.equal(cached, uncached)


def test_many_points_equal_one_by_one_with_one_vision_call(
    make_descriptor, random_image
):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    calls = []
    model.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    together = model.generate(**inputs, **WITH_LOGITS)
    assert len(calls) == 1
    for row, point in enumerate(POINTS):
        alone = processor(random_image(), points=[point])
        assert_row_is(together, row, model.generate(**alone, **WITH_LOGITS))


def test_images_with_unequal_numbers_of_points(make_descriptor, two_photos):
    model, processor = make_descriptor()
    points = [POINTS, POINTS[:1]]
    inputs = processor(two_photos, points=points)
    inputs_apart = [processor(*pair) for pair in zip(two_photos, [None] * 2, points)]
    logits_apart = [model(**alone).logits for alone in inputs_apart]
    assert_close(model(**inputs).logits, torch.cat(logits_apart))
    for options in (GREEDY, {**GREEDY, "num_beams": 2}):
        apart = [model.generate(**alone, **options) for alone in inputs_apart]
        assert torch.equal(model.generate(**inputs, **options), torch.cat(apart))


@pytest.mark.parametrize(
    "point_counts, points_of_rows, images_of_rows",
    [
        ([2, 2], [1, 1, 1, 1], [0, 0, 1, 1]),
        ([3, 1], [1, 1, 1, 1], [0, 0, 0, 1]),
        ([1, 3], [1, 1, 2], [0, 1, 1]),
        ([2, 2], [2, 2], [0, 1]),
        ([2, 0], [1, 1], [0, 0]),
        ([0, 2], [1, 1], [1, 1]),
        ([0, 1], [0, 1], [0, 1]),
        ([0, 0], [0, 0, 0, 0], [0, 0, 1, 1]),
        (None, [1, 1, 1, 1], [0, 0, 1, 1]),
    ],
)
def test_image_of_row(make_descriptor, point_counts, points_of_rows, images_of_rows):
    model, _ = make_descriptor()
    if point_counts is not None:
        point_counts = torch.tensor(point_counts)
    image = PointDescriptorImageOutput(
        pooler_output=torch.zeros(2, 4, 8), point_counts=point_counts
    )
    regions = torch.arange(5) < torch.tensor(points_of_rows)[:, None]
    assert model.model.image_of_row(image, regions).tolist() == images_of_rows


def test_encoder_outputs_serve_again(make_descriptor, two_photos):
    model, processor = make_descriptor()
    inputs = processor(two_photos, points=[POINTS, POINTS[:1]])
    encoded = {
        "image": model.get_image_features(
            inputs["pixel_values"], inputs["input_points"]
        )
    }
    options = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    expected = model.generate(**inputs, **options)
    for _ in range(2):
        again = model.generate(
            **text_alone(inputs), mm_encoder_outputs=encoded, **options
        )
        assert torch.equal(again, expected)


def test_several_points_in_one_text(make_descriptor, two_photos):
    model, processor = make_descriptor()
    texts = ["<image>region1 <region> or <region>", "<image>region1 <region>"]
    points = [POINTS[:2], POINTS[2:]]
    inputs = processor(two_photos, text=texts, points=points)
    options = {**GREEDY, "num_beams": 2}
    logits = model(**inputs).logits
    beams = model.generate(**inputs, **options)
    for row in range(2):
        single = processor(two_photos[row], text=texts[row], points=points[row])
        single_logits = model(**single).logits[0]
        assert_close(logits[row, -len(single_logits) :], single_logits)
        single_beams = model.generate(**single, **options)
        assert torch.equal(beams[row, -6:], single_beams[0, -6:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_flipping_the_point_changes_the_logits(make_descriptor, random_image, backbone):
    model, processor = make_descriptor(backbone)
    with torch.no_grad():
        left = model(**processor(random_image(), points=[(15.0, 20.0)])).logits[0, -1]
        right = model(**processor(random_image(), points=[(81.0, 20.0)])).logits[0, -1]
    assert float((left - right).abs().max()) > 1e-2


def test_samples_of_the_likeliest_token_are_the_greedy_rows(
    make_descriptor, two_photos
):
    model, processor = make_descriptor()
    inputs = processor(two_photos, points=[POINTS[:2], POINTS[1:]])
    greedy = model.generate(**inputs, **GREEDY)
    options = {**GREEDY, "do_sample": True, "top_k": 1, "num_return_sequences": 2}
    assert torch.equal(
        model.generate(**inputs, **options), greedy.repeat_interleave(2, 0)
    )


def test_beams_keep_their_rows(make_descriptor, two_photos):
    model, processor = make_descriptor()
    points = [POINTS[:2], POINTS[1:]]
    inputs = processor(two_photos, points=points)
    options = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    rows = []
    for photo, points_of_photo in zip(two_photos, points):
        for point in points_of_photo:
            rows.append(model.generate(**processor(photo, points=[point]), **options))
    assert torch.equal(model.generate(**inputs, **options), torch.cat(rows))


@pytest.fixture
def rows_of_passes(make_descriptor, random_image):
    """A function: options of `generate` for two points -> number of rows in each pass of the language model."""
    model, processor = make_descriptor()
    inputs = processor([random_image(1)], points=[POINTS[:2]])

    def count(**options):
        rows = []

        def count_rows(module, args, kwargs, output):
            rows.append(len(kwargs["inputs_embeds"]))

        hook = model.model.language_model.register_forward_hook(
            count_rows, with_kwargs=True
        )
        model.generate(**inputs, **{**GREEDY, **options})
        hook.remove()
        return rows

    return count


def test_samples_of_one_point_are_prefilled_once(rows_of_passes):
    prefilled, *generated = rows_of_passes(do_sample=True, num_return_sequences=3)
    assert prefilled == 2
    assert set(generated) == {6}


@pytest.mark.parametrize("output", ["output_hidden_states", "output_attentions"])
def test_states_are_those_of_every_sample(rows_of_passes, output):
    options = {output: True, "return_dict_in_generate": True}
    rows = rows_of_passes(do_sample=True, num_return_sequences=3, **options)
    assert set(rows) == {6}


def test_point_masks_run_and_differ(make_descriptor, two_photos):
    features = set()
    for point_mask in ("gaussian", "predicted", "none"):
        model, processor = make_descriptor(point_mask=point_mask)
        inputs = processor(two_photos, points=[POINTS, POINTS[:1]])
        outputs = model.get_image_features(
            inputs["pixel_values"], inputs["input_points"]
        )
        features.add(tuple(outputs.point_features.flatten().tolist()))
        if point_mask == "predicted":
            shapes = [tuple(logits.shape) for logits in outputs.point_mask_logits]
            assert shapes == [(4, 16, 16)] * 5
        else:
            assert outputs.point_mask_logits is None
        model.generate(**inputs, **GREEDY)
    assert len(features) == 3


def test_predicted_mask_that_is_empty_opens_everything(make_descriptor):
    def block_everything(module, args, output):
        logits, blocked = output
        return logits, torch.ones_like(blocked)

    features = []
    for point_mask in ("predicted", "none"):
        model, _ = make_descriptor(point_mask=point_mask)
        predictor = model.model.vision_tower.transformer_module.decoder.mask_predictor
        predictor.register_forward_hook(block_everything)
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        outputs = model.get_image_features(pixels, torch.tensor([[[0.2, 0.7]]]))
        features.append(outputs.point_features)
    torch.testing.assert_close(*features)


def test_point_encoding_is_that_of_a_small_box(make_descriptor):
    """(y, x, height, width), as many sines and cosines of each, with periods that grow from 1 to 10000."""
    model, _ = make_descriptor()
    encoder = model.model.point_encoder
    encodings = []
    encoder.position_projection.register_forward_pre_hook(
        lambda module, args: encodings.append(args[0])
    )
    encoder(torch.tensor([[[0.3, 0.8]]]))
    side = model.config.point_box_size / model.config.image_size
    box = torch.tensor([0.8, 0.3, side, side])
    index = torch.arange(16)
    periods = 10000 ** (2 * (index // 2) / 16)
    angles = 2 * torch.pi * box[:, None] / periods
    expected = torch.where(index % 2 == 0, angles.sin(), angles.cos())
    torch.testing.assert_close(encodings[0].flatten(), expected.flatten())


@pytest.mark.parametrize("detail_level", [False, True])
@pytest.mark.parametrize("point_mask", ["gaussian", "none"])
def test_gaussian_mask_keeps_far_cells_out(make_descriptor, point_mask, detail_level):
    shapes = [(40, 8), (112, 4), (320, 2)]
    backbone = "efficientnet_lite"
    if detail_level:
        shapes = [(3, 32), *shapes]
        backbone = "efficientnet_lite_and_pixels"
    model, _ = make_descriptor(
        backbone, point_mask=point_mask, mask_sigma=0.05, detail_level=detail_level
    )
    torch.manual_seed(1)
    maps = [torch.randn(1, channels, side, side) for channels, side in shapes]
    point = torch.tensor([[[0.1, 0.1]]])

    def features(finest):
        feature_maps = [finest, *maps[1:]]
        outputs = model.get_image_features(
            feature_maps=feature_maps, input_points=point
        )
        return outputs.point_features

    def change_of_swap(first, second):
        """Of the features, when two cells of the finest map are swapped: its statistics stay as they are."""
        swapped = maps[0].clone()
        swapped[..., first[0], first[1]] = maps[0][..., second[0], second[1]]
        swapped[..., second[0], second[1]] = maps[0][..., first[0], first[1]]
        return float((features(swapped) - features(maps[0])).detach().abs().max())

    assert change_of_swap((0, 0), (0, 0)) == 0
    at_point = (3, 3) if detail_level else (0, 0)
    assert change_of_swap(at_point, (7, 7)) > 1e-3
    far = change_of_swap((7, 7), (3, 7))
    assert far < 1e-6 if point_mask == "gaussian" else far > 1e-5


def test_the_detail_level_has_a_gaussian_of_its_own(make_descriptor):
    point = torch.tensor([[[0.1, 0.1]]])
    shapes = [(3, 32), (40, 8), (112, 4), (320, 2)]
    torch.manual_seed(1)
    maps = [torch.randn(1, channels, side, side) for channels, side in shapes]
    swapped = maps[0].clone()
    # at the point's right, 0.12 away, and behind what is sampled at it
    near, far = (..., slice(2, 4), slice(6, 8)), (..., slice(14, 16), slice(14, 16))
    swapped[near], swapped[far] = maps[0][far], maps[0][near]
    changes = []
    for sigma in (0.02, 0.2):
        model, _ = make_descriptor(
            "efficientnet_lite_and_pixels",
            mask_sigma=0.02,
            detail_level=True,
            detail_sigma=sigma,
        )
        features = []
        for finest in (maps[0], swapped):
            image = model.get_image_features(
                feature_maps=[finest, *maps[1:]], input_points=point
            )
            features.append(image.point_features)
        changes.append(float((features[0] - features[1]).detach().abs().max()))
    assert changes[0] < 1e-5 < 1e-3 < changes[1]


def test_samples_of_a_spot_are_those_of_the_cells_around_it():
    feature_map = torch.arange(2 * 6 * 8.0).view(1, 2, 6, 8)
    row, column = 3, 4
    center = torch.tensor([[[(column + 0.5) / 8, (row + 0.5) / 6]]])
    half = SPOT_SIDE // 2
    cells = feature_map[0, :, row - half : row + half + 1]
    cells = cells[..., column - half : column + half + 1]
    samples = spot_samples(feature_map, center)
    assert samples.shape == (1, 1, 2 * SPOT_SIDE**2)
    expected = cells.transpose(1, 2).flatten()  # across, then down
    torch.testing.assert_close(samples[0, 0], expected)
    between = spot_samples(feature_map, center + torch.tensor([0.25 / 8, 0]))
    torch.testing.assert_close(between, samples + 0.25)


def test_samples_beyond_the_canvas_are_those_of_its_edge():
    feature_map = torch.randn(1, 1, 5, 5)
    corner = spot_samples(feature_map, torch.tensor([[[0.1, 0.1]]]))
    around = corner.view(SPOT_SIDE, SPOT_SIDE)
    half = SPOT_SIDE // 2
    torch.testing.assert_close(
        around[: half + 1, : half + 1],
        feature_map[0, 0, 0, 0].expand(half + 1, half + 1),
    )


def test_without_a_detail_level_the_finest_map_is_not_read(make_descriptor):
    model, _ = make_descriptor("efficientnet_lite_and_pixels")
    torch.manual_seed(1)
    shapes = [(3, 32), (40, 8), (112, 4), (320, 2)]
    finest, *maps = [torch.randn(1, channels, side, side) for channels, side in shapes]
    points = torch.tensor([[[0.1, 0.1]]])
    features = [
        model.get_image_features(
            feature_maps=[pixels, *maps], input_points=points
        ).point_features
        for pixels in (finest, -finest)
    ]
    assert torch.equal(*features)


def test_points_keep_their_precision_in_half_precision(make_descriptor):
    model, _ = make_descriptor()
    model.bfloat16()
    step = 0.5 / 64 / 16  # less than the step of bfloat16 at 0.9
    points = torch.tensor([[[0.9, 0.3], [0.9 + step, 0.3]]])
    encoded = []
    model.model.point_encoder.register_forward_pre_hook(
        lambda module, args: encoded.append(args[0])
    )
    model.get_image_features(torch.zeros(1, 3, 64, 64), points)
    assert torch.equal(encoded[0], points)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_bfloat16_runs(make_descriptor, random_image, text):
    model, processor = make_descriptor(text=text)
    model.bfloat16()
    outputs = model(
        **teacher_forced(processor, random_image(), POINTS, answered_prompts(3))
    )
    outputs.loss.backward()
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.isfinite()
    generated = model.generate(**processor(random_image(), points=POINTS), **GREEDY)
    assert len(generated) == 3


def test_feature_maps_and_encoder_outputs_equal_pixels(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    text, points = text_alone(inputs), inputs["input_points"]
    logits = model(**inputs).logits
    maps = model.model.backbone(inputs["pixel_values"]).feature_maps
    assert torch.equal(
        model(**text, feature_maps=maps, input_points=points).logits, logits
    )
    encoded = {"image": model.get_image_features(inputs["pixel_values"], points)}
    assert torch.equal(model(**text, mm_encoder_outputs=encoded).logits, logits)
    generated = model.generate(**text, mm_encoder_outputs=encoded, **GREEDY)
    assert torch.equal(generated, model.generate(**inputs, **GREEDY))


def test_placeholders_are_not_generated(make_descriptor, random_image):
    model, processor = make_descriptor()
    placeholders = torch.tensor([processor.image_token_id, processor.region_token_id])
    model.lm_head.register_forward_hook(
        lambda module, args, output: output.index_fill(-1, placeholders, 1e4)
    )
    inputs = processor(random_image(), points=POINTS)
    start = inputs["input_ids"].shape[1]
    answers = model.generate(**inputs, **GREEDY)[:, start:]
    assert not torch.isin(answers, placeholders).any()
    model.generation_config.suppress_tokens = None
    answers = model.generate(**inputs, **GREEDY)[:, start:]
    assert torch.isin(answers, placeholders).all()


def loss_of_masks(outputs):
    loss = 0
    for logits in outputs.point_mask_logits or ():
        loss = loss + F.binary_cross_entropy_with_logits(
            logits, torch.ones_like(logits)
        )
    return loss


def train_steps(model, inputs, steps=3):
    trainable = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0)
    for _ in range(steps):
        outputs = model(**inputs)
        loss = outputs.loss + loss_of_masks(outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"point_mask": "predicted"},
        {"point_mask": "none"},
        {"use_perception_prior": True},
        {"detail_level": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("backbone", [*BACKBONES, "efficientnet_lite_and_pixels"])
def test_every_trainable_parameter_moves_and_frozen_ones_stay(
    make_descriptor, two_photos, backbone, fields
):
    model, processor = make_descriptor(backbone, **fields)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = teacher_forced(
        processor, two_photos, [POINTS, POINTS], answered_prompts(6)
    )
    train_steps(model.train(), inputs)
    for name, value in model.named_parameters():
        moved = not torch.equal(value, before[name])
        assert moved == value.requires_grad, name


@pytest.mark.parametrize("freeze", ["freeze_vision", "freeze_backbone"])
def test_frozen_parts_stay(make_descriptor, random_image, freeze):
    model, processor = make_descriptor()
    getattr(model, freeze)()
    before = copy.deepcopy(model.state_dict())
    inputs = teacher_forced(processor, random_image(), POINTS, answered_prompts(3))
    train_steps(model.train(), inputs)
    after = model.state_dict()
    moved = {
        name for name, value in after.items() if not torch.equal(value, before[name])
    }
    assert moved == trainable_names(model, remove_duplicate=False)

    def moves(part):
        return any(part in name for name in moved)

    assert moves("language_model")
    assert not moves("model.vision_tower.pixel_level_module.encoder.")
    if freeze == "freeze_vision":
        for name in moved:
            assert "language_model" in name or name == "lm_head.weight"
    else:
        assert moves("transformer_module") and moves("image_projector")


def test_reload_freezes_what_no_loss_reaches(make_descriptor, tmp_path):
    model, _ = make_descriptor()
    model.save_pretrained(tmp_path)
    loaded = PointDescriptorForConditionalGeneration.from_pretrained(tmp_path)
    trainable = trainable_names(model)
    assert trainable_names(loaded) == trainable
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
    assert loaded.dtype == dtype
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert weights[name].dtype == value.dtype, name
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_lora_saves_loads_and_merges(make_descriptor, random_image, tmp_path, text):
    model, processor = make_descriptor("swin", text)
    inputs = processor(random_image(), points=POINTS)
    plain = model(**inputs).logits
    adapted = get_peft_model(copy.deepcopy(model), LORA).eval()
    names = [name for name, _ in adapted.named_parameters() if "lora_" in name]
    layers, projections, matrices = 2, 4, 2
    assert len(names) == layers * projections * matrices
    assert all(".language_model.layers." in name for name in names)
    logits = adapted(**inputs).logits
    assert float((logits - plain).detach().abs().max()) > 1e-3
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    assert_close(loaded(**inputs).logits, logits)
    assert_close(loaded.merge_and_unload()(**inputs).logits, logits)
    with adapted.disable_adapter():
        assert_close(adapted(**inputs).logits, plain)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("backbone", ["swin", "convnext"])
def test_gradient_checkpointing_changes_nothing(
    make_descriptor, random_image, backbone, lora
):
    model, processor = make_descriptor(backbone)
    if lora:
        model = get_peft_model(model, LORA)
    inputs = teacher_forced(processor, random_image(), POINTS, answered_prompts(3))
    loss, gradients = loss_and_gradients(model.train(), inputs)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    checkpointed_loss, checkpointed_gradients = loss_and_gradients(model, inputs)
    torch.testing.assert_close(loss, checkpointed_loss)
    assert_same_gradients(checkpointed_gradients, gradients)


def test_encoder_outputs_beside_points_are_an_error(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(random_image(), points=POINTS)
    encoded = {
        "image": model.get_image_features(
            inputs["pixel_values"], inputs["input_points"]
        )
    }
    with pytest.raises(ValueError, match="input_points"):
        model.generate(
            **without(inputs, "pixel_values"), mm_encoder_outputs=encoded, **GREEDY
        )


def test_wrong_number_of_placeholders_is_an_error(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = dict(processor(random_image(), points=POINTS))
    with pytest.raises(
        ValueError, match="3 region placeholders but there are 2 region features"
    ):
        model(**{**inputs, "input_points": inputs["input_points"][:, :2]})
    with pytest.raises(ValueError, match="no points were given"):
        model(**without(inputs, "input_points"))
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        model(**without(inputs, "input_ids"))
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name][:1, 1:]  # without its first image placeholder
    inputs["input_points"] = inputs["input_points"][:, :1]
    with pytest.raises(
        ValueError, match="15 image placeholders but there are 16 image features"
    ):
        model(**inputs)


def test_images_must_share_the_rows(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = without(processor(random_image(), points=POINTS), "input_points")
    inputs["pixel_values"] = inputs["pixel_values"].repeat(2, 1, 1, 1)
    with pytest.raises(
        ValueError, match="3 text rows cannot be shared evenly by 2 images"
    ):
        model(**inputs)
