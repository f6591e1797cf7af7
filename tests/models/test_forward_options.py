"""What a forward pass of transformers can be asked for, of both models: outputs, caches, embeddings, graphs."""

import copy
import dataclasses
import logging

import pytest
import torch
import transformers
from torch.export import Dim
from torch.utils import _pytree as pytree
from transformers import AttentionInterface, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

POINTS = [(20, 30), (70, 10), (5, 5)]
TEXTS = ["the left ear", "the front wheel of the car", "the left ear of a cat"]
MAIN_RESULT = {"descriptor": "logits", "localizer": "points"}


@pytest.fixture(params=["descriptor", "localizer"])
def kind(request):
    return request.param


@pytest.fixture
def make(request, kind):
    """`make(**options)` -> (model, `inputs_of(images, counts)`, which takes a number of points or texts per image)."""

    def build(**options):
        model, processor = request.getfixturevalue(f"make_{kind}")(**options)

        def inputs_of(images, counts):
            if kind == "descriptor":
                given = {"points": [POINTS[:count] for count in counts]}
            else:
                given = {"text": [TEXTS[:count] for count in counts]}
            return dict(processor(images=images, **given))

        return model, inputs_of

    return build


@pytest.fixture
def two_photos(random_image):
    return [random_image(1), random_image(2)]


@pytest.fixture
def warnings_of_transformers():
    """Messages that the loggers of both packages wrote."""
    messages = []

    class Keep(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    handler = Keep()
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.warning_once.cache_clear()
    logging.getLogger().addHandler(handler)
    yield messages
    logging.getLogger().removeHandler(handler)
    transformers.logging.set_verbosity(verbosity)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def computed_positions(model, inputs):
    """-> (what the model gives, number of positions that its language model computes)."""
    computed = []

    def count(module, args, kwargs):
        computed.append(kwargs["inputs_embeds"].shape[:2].numel())

    hook = model.model.language_model.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        output = model(**inputs)
    hook.remove()
    return output, sum(computed)


@pytest.mark.parametrize("option", ["output_hidden_states", "output_attentions"])
def test_states_of_layers_stand_with_their_rows(make, kind, two_photos, option):
    model, inputs_of = make()
    model.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        together = model(**inputs_of(two_photos, [3, 1]), **{option: True})
        first = model(**inputs_of(two_photos[:1], [3]), **{option: True})
        plain = model(**inputs_of(two_photos, [3, 1]))
    field = option.removeprefix("output_")
    layers = model.config.text_config.num_hidden_layers
    states, states_of_first = getattr(together, field), getattr(first, field)
    assert len(states) == layers + (option == "output_hidden_states")
    assert all(len(state) == 4 for state in states)
    mask = inputs_of(two_photos, [3, 1])["attention_mask"][:3].bool()
    if option == "output_hidden_states":
        assert_close(states[-1][:3][mask], states_of_first[-1][mask])
    assert_close(together[0], plain[0])
    assert getattr(plain, field) is None


def test_options_of_the_config_count_too(make, kind, random_image):
    model, inputs_of = make()
    inputs = inputs_of([random_image()], [2])
    with torch.no_grad():
        expected = model(**inputs)
        model.config.return_dict = False
        as_tuple = model(**inputs)
        model.config.return_dict = True
        model.config.text_config.output_hidden_states = True
        states = model(**inputs).hidden_states
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(expected.to_tuple())
    assert_close(as_tuple[0], expected[0])
    assert isinstance(model(**inputs, return_dict=False), tuple)
    assert len(states) == model.config.text_config.num_hidden_layers + 1


@pytest.mark.parametrize("use_cache", [None, True])
def test_a_cache_of_rows_that_share_a_prefix(make_descriptor, two_photos, use_cache):
    model, processor = make_descriptor()
    inputs = processor(two_photos, points=[POINTS, POINTS[:1]])
    options = {} if use_cache is None else {"use_cache": use_cache}
    first, positions = computed_positions(model, {**inputs, **options})
    assert positions < inputs["input_ids"].numel()
    more = torch.tensor([[7, 9], [8, 3], [4, 4], [5, 6]])
    ids = torch.cat([inputs["input_ids"], more], 1)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        whole = model(**{**inputs, "input_ids": ids, "attention_mask": mask})
        cache = first.past_key_values
        rest = model(input_ids=more, attention_mask=mask, past_key_values=cache)
    assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits)
    assert model(**inputs, use_cache=False).past_key_values is None


@pytest.mark.parametrize("number", [1, 3])
def test_embeddings_in_place_of_ids(make, kind, random_image, number):
    model, inputs_of = make()
    inputs = inputs_of([random_image()], [number])
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    expected, positions = computed_positions(model, inputs)
    inputs.pop("input_ids")
    found, positions_found = computed_positions(
        model, {**inputs, "inputs_embeds": embeds}
    )
    assert_close(found[MAIN_RESULT[kind]], expected[MAIN_RESULT[kind]])
    assert positions_found == positions
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds"):
        model(**inputs)


def test_embeddings_keep_their_own_gradients(make, kind, random_image):
    model, inputs_of = make()
    inputs = inputs_of([random_image()], [3])
    embeds = model.get_input_embeddings()(inputs.pop("input_ids")).detach()

    def gradient(rows):
        text = {"attention_mask": inputs["attention_mask"][rows]}
        image = {"pixel_values": inputs["pixel_values"]}
        if kind == "descriptor":
            image["input_points"] = inputs["input_points"][:, rows]
        given = embeds[rows].clone().requires_grad_()
        model(**image, **text, inputs_embeds=given)[MAIN_RESULT[kind]].sum().backward()
        return given.grad

    apart = [gradient(slice(row, row + 1)) for row in range(3)]
    assert_close(gradient(slice(3)), torch.cat(apart))


def test_noise_on_embeddings_is_not_shared(make, kind, random_image):
    model, inputs_of = make()
    inputs = inputs_of([random_image()], [3])

    def add_noise(module, args, output):
        return output + 0.1 * torch.randn_like(output)

    model.get_input_embeddings().register_forward_hook(add_noise)
    _, positions = computed_positions(model, inputs)
    # the image tokens, with which the prompts begin, have no noise
    shared = 2 * model.config.image_seq_length
    assert positions == int(inputs["attention_mask"].sum()) - shared


def test_attention_of_others_shares_the_prefix(
    make, kind, random_image, warnings_of_transformers
):
    AttentionInterface.register("of_another", sdpa_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register("of_another", sdpa_mask)
    model, inputs_of = make()
    inputs = inputs_of([random_image()], [3])
    expected, positions = computed_positions(model, inputs)
    model.set_attn_implementation({"text_config": "of_another"})
    found, positions_found = computed_positions(model, inputs)
    assert positions_found == positions < inputs["input_ids"].numel()
    assert_close(found[0], expected[0])
    assert not any("whole" in message for message in warnings_of_transformers)


@pytest.mark.parametrize("reason", ["without_masks", "sliding_attention"])
def test_prefix_sharing_is_not_lost_in_silence(
    make, kind, random_image, warnings_of_transformers, reason
):
    AttentionInterface.register("without_masks", sdpa_attention_forward)
    options = {}
    if reason == "sliding_attention":
        options = {
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["full_attention", "sliding_attention"],
        }
    model, inputs_of = make(text="qwen", text_kwargs=options)
    if reason == "without_masks":
        model.set_attn_implementation({"text_config": "without_masks"})
    inputs = inputs_of([random_image()], [3])
    implementation = model.config.text_config._attn_implementation
    _, positions = computed_positions(model, inputs)
    assert positions == inputs["input_ids"].numel()
    said = [message for message in warnings_of_transformers if "whole" in message]
    assert len(said) == 1
    assert reason in said[0] and implementation in said[0]


def test_outputs_are_taken_apart_and_made_again(make, kind, two_photos):
    model, inputs_of = make()
    inputs = inputs_of(two_photos, [2, 1])
    given = [inputs["pixel_values"]]
    if kind == "descriptor":
        given.append(inputs["input_points"])
    with torch.no_grad():
        outputs = [model.get_image_features(*given), model(**inputs)]
    for output in outputs:
        names = list(output.keys())
        assert len(output.to_tuple()) == len(names)
        fields = [field.name for field in dataclasses.fields(output)]
        assert names == [name for name in fields if getattr(output, name) is not None]
        for again in (
            type(output)(**output),
            pytree.tree_map(lambda leaf: leaf, output),
            copy.deepcopy(output),
        ):
            assert type(again) is type(output) and list(again) == names
            assert torch.equal(again[0], output[0])


def test_order_of_the_outputs(make_descriptor, make_localizer, random_image):
    asked = {"output_hidden_states": True, "output_attentions": True}
    descriptor, processor = make_descriptor()
    descriptor.set_attn_implementation({"text_config": "eager"})
    inputs = processor(random_image(), points=POINTS)
    output = descriptor(**inputs, labels=inputs["input_ids"], **asked)
    expected = ["loss", "logits", "past_key_values", "hidden_states", "attentions"]
    assert list(output)[:5] == expected
    localizer, processor = make_localizer(head="heatmap")
    localizer.set_attn_implementation({"text_config": "eager"})
    inputs = processor(random_image(), TEXTS)
    output = localizer(**inputs, target_points=torch.rand(3, 2), **asked)
    expected = ["loss", "points", "confidence", "heatmaps", "regressed_points"]
    assert list(output) == [*expected, "hidden_states", "attentions"]


class Call(torch.nn.Module):
    """A call of a model by names, whose result is one tensor."""

    def __init__(self, model, result, names):
        super().__init__()
        self.model, self.result, self.names = model, result, names

    def forward(self, *inputs):
        options = {} if self.result == "points" else {"use_cache": False}
        return self.model(**dict(zip(self.names, inputs)), **options)[self.result]


@pytest.mark.slow
def test_exported_for_any_number_of_images_rows_and_tokens(make, kind, two_photos):
    model, inputs_of = make()
    inputs = inputs_of(two_photos, [1, 3])
    rows, length, images = Dim("rows"), Dim("length"), Dim("images")
    sizes = {
        "input_ids": {0: rows, 1: length},
        "attention_mask": {0: rows, 1: length},
        "pixel_values": {0: images},
        "input_points": {0: images, 1: Dim("points")},
        "image_index": {0: rows},
    }
    call = Call(model, MAIN_RESULT[kind], list(inputs))
    shapes = (tuple(sizes[name] for name in inputs),)
    with torch.no_grad():
        program = torch.export.export(
            call, tuple(inputs.values()), dynamic_shapes=shapes, strict=False
        )
        exported = program.module()
        for photos, counts in [
            (two_photos, [1, 3]),
            (two_photos[1:], [1]),
            ([*two_photos, two_photos[0]], [2, 1, 2]),
        ]:
            values = inputs_of(photos, counts).values()
            assert_close(exported(*values), call(*values))
        if kind == "descriptor":
            wrong = inputs_of(two_photos, [1, 3])
            wrong["input_points"] = wrong["input_points"][:, :1]
            with pytest.raises(RuntimeError):
                exported(*wrong.values())


@pytest.mark.slow
def test_compiled_as_a_whole(make_localizer, two_photos):
    model, processor = make_localizer()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for text in ([TEXTS[:1], TEXTS[:1]], [TEXTS[:1], TEXTS]):
            inputs = processor(images=two_photos, text=text)
            assert_close(compiled(**inputs).points, model(**inputs).points)


@pytest.mark.slow
def test_compiled_steps_with_a_static_cache(make_descriptor, two_photos):
    model, processor = make_descriptor()
    assert model._can_compile_fullgraph
    inputs = dict(processor(two_photos, points=[POINTS, POINTS[:1]]))
    rows, length = inputs["input_ids"].shape
    steps = 3

    def logits_of_steps(step):
        cache = StaticCache(model.config.text_config, max_cache_len=length + steps)
        mask = torch.zeros(rows, length + steps, dtype=torch.long)
        mask[:, :length] = 1
        with torch.no_grad():
            output = model(**{**inputs, "attention_mask": mask}, past_key_values=cache)
            logits = [output.logits[:, -1:]]
            for position in range(length, length + steps):
                mask[:, position] = 1
                output = step(
                    input_ids=logits[-1].argmax(-1),
                    attention_mask=mask,
                    position_ids=torch.full((rows, 1), position),
                    past_key_values=cache,
                )
                logits.append(output.logits)
        return torch.cat(logits, 1)

    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(logits_of_steps(compiled), logits_of_steps(model))
