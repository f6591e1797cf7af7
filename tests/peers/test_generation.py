"""Generation."""

import pytest
import torch
from peer_models import DESCRIPTOR, POINTS, load, load_processor, saved
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)
from transformers.generation import (
    MaxLengthCriteria,
    SuppressTokensLogitsProcessor,
)
from transformers.utils import is_hqq_available, is_optimum_quanto_available

pytestmark = pytest.mark.slow
NEW = {"max_new_tokens": 8, "min_new_tokens": 8}
GREEDY = {**NEW, "do_sample": False}
SEARCHES = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "beams, several returned": {"num_beams": 4, "num_return_sequences": 3},
    "beams with `length_penalty` and `early_stopping`": {
        "num_beams": 3,
        "length_penalty": 0.5,
        "early_stopping": True,
    },
    "`repetition_penalty`": {"repetition_penalty": 1.5},
    "`no_repeat_ngram_size`": {"no_repeat_ngram_size": 2},
    "`encoder_repetition_penalty`": {"encoder_repetition_penalty": 1.2},
    "`bad_words_ids`": {"bad_words_ids": [[5], [6, 7]]},
    "`suppress_tokens`": {"suppress_tokens": [5, 6, 7]},
    "`begin_suppress_tokens`": {"begin_suppress_tokens": [5, 6]},
    "`forced_eos_token_id`": {"forced_eos_token_id": 2},
    "`exponential_decay_length_penalty`": {
        "exponential_decay_length_penalty": (2, 1.1)
    },
    "`sequence_bias`": {"sequence_bias": [[[9], 5.0]]},
    "`guidance_scale`": {"guidance_scale": 1.5},
    "`renormalize_logits`": {"renormalize_logits": True},
    "`prompt_lookup_num_tokens`": {"prompt_lookup_num_tokens": 2},
}
SAMPLINGS = {
    "`temperature`": {"temperature": 0.7},
    "`top_k`": {"top_k": 5},
    "`top_p`": {"top_p": 0.8},
    "`min_p`": {"min_p": 0.05},
    "`typical_p`": {"typical_p": 0.8},
    "`epsilon_cutoff`": {"epsilon_cutoff": 0.001},
    "`eta_cutoff`": {"eta_cutoff": 0.001},
    "`num_return_sequences`": {"num_return_sequences": 3},
    "beams": {"num_beams": 2},
}
CACHES = {
    "dynamic": {},
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "offloaded": {"cache_implementation": "offloaded"},
    "offloaded_static": {"cache_implementation": "offloaded_static"},
}
ELSEWHERE = {  # asked of a function on the Hub since transformers 5
    "contrastive search": {"penalty_alpha": 0.6, "top_k": 4},
    "group beam search": {"num_beams": 4, "num_beam_groups": 2},
    "constrained beam search": {"num_beams": 2, "force_words_ids": [[7]]},
    "DoLa": {"dola_layers": "low"},
}


@pytest.fixture(scope="module")
def described(make_descriptor):
    """A descriptor and its processor."""
    return make_descriptor()


@pytest.fixture
def model(described):
    return described[0]


@pytest.fixture
def processor(described):
    return described[1]


@pytest.fixture
def inputs(processor, random_image):
    return processor(images=random_image(), points=POINTS)


def single_rows(processor, image):
    """The inputs of each point alone."""
    return [processor(images=image, points=[point]) for point in POINTS]


def generated(model, inputs, **options):
    """The new tokens."""
    sequences = model.generate(**inputs, **options)
    if "input_ids" in inputs:
        return sequences[:, inputs["input_ids"].shape[1] :]
    return sequences


def padded(rows, length, value):
    shape = (len(rows), length - rows.shape[1])
    return torch.cat([rows, rows.new_full(shape, value)], 1)


def assert_same_tokens(found, expected, pad=0):
    """Rows that end earlier are padded."""
    length = max(found.shape[1], expected.shape[1])
    assert torch.equal(padded(found, length, pad), padded(expected, length, pad))


@pytest.mark.parametrize("search", SEARCHES)
def test_search(search, model, processor, inputs, random_image, refused):
    """{search}: several points of one image as each alone."""
    options = {**GREEDY, **SEARCHES[search]}
    if search == "`prompt_lookup_num_tokens`":
        with refused(ValueError, "batch_size = 1"):
            generated(model, inputs, **options)
        return
    found = generated(model, inputs, **options)
    count = options.get("num_return_sequences", 1)
    assert len(found) == len(POINTS) * count
    for row, alone in enumerate(single_rows(processor, random_image())):
        expected = generated(model, alone, **options)
        assert_same_tokens(found[row * count : (row + 1) * count], expected)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sampling(sampling, model, inputs):
    """Sampling, {sampling}: a seed gives the same, and no placeholder is ever drawn."""
    options = {**NEW, "do_sample": True, **SAMPLINGS[sampling]}
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(generated(model, inputs, **options))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(drawn[0]) == len(POINTS) * options.get("num_return_sequences", 1)
    placeholders = [model.config.image_token_id, model.config.region_token_id]
    assert not torch.isin(torch.cat(drawn), torch.tensor(placeholders)).any()


def test_samples_of_one_point_are_those_of_repeated_rows(
    model, processor, random_image
):
    """Samples of one point (`num_return_sequences`) are drawn as for a prompt repeated as often."""
    options = {**NEW, "do_sample": True}
    inputs = processor(images=random_image(), points=POINTS[:1])
    torch.manual_seed(0)
    found = generated(model, inputs, num_return_sequences=3, **options)
    repeated = processor(images=random_image(), points=POINTS[:1] * 3)
    torch.manual_seed(0)
    assert torch.equal(found, generated(model, repeated, **options))


@pytest.mark.parametrize("cache", CACHES)
def test_cache(cache, model, inputs):
    """Cache: {cache}."""
    if "offloaded" in cache and not torch.accelerator.is_available():
        pytest.skip("moves the cache between an accelerator and memory")
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, **GREEDY, **CACHES[cache])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("backend", ["quanto", "hqq"])
def test_quantized_cache(backend, model, inputs):
    """Cache: quantized by {backend}."""
    available = {"quanto": is_optimum_quanto_available, "hqq": is_hqq_available}
    if not available[backend]():
        pytest.skip(f"{backend} is not installed")
    options = {"backend": backend, "q_group_size": 16}
    found = generated(
        model,
        inputs,
        **GREEDY,
        cache_implementation="quantized",
        cache_config=options,
    )
    assert found.shape == (len(POINTS), 8)


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_chunked_prefill(size, model, inputs):
    """`prefill_chunk_size={size}`."""
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, **GREEDY, prefill_chunk_size=size)
    assert torch.equal(found, expected)


def test_continuing(model, inputs):
    """Going on from a cache and the tokens so far."""
    expected = model.generate(**inputs, **GREEDY)
    half = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    first = model.generate(**inputs, **half, return_dict_in_generate=True)
    longer = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
    found = model.generate(
        input_ids=first.sequences,
        attention_mask=longer,
        past_key_values=first.past_key_values,
        **half,
    )
    assert torch.equal(found, expected)


def test_own_cache(model, inputs):
    """A cache object of one's own (`past_key_values=DynamicCache()`)."""
    expected = generated(model, inputs, **GREEDY)
    cache = DynamicCache(config=model.config.get_text_config())
    found = generated(model, inputs, **GREEDY, past_key_values=cache)
    assert torch.equal(found, expected)
    assert cache.get_seq_length() > inputs["input_ids"].shape[1]


def test_steps_with_and_without_cache(model, inputs):
    """Logits of steps with a cache are those of whole forward passes."""
    output = model.generate(
        **inputs, **GREEDY, return_dict_in_generate=True, output_logits=True
    )
    length = inputs["input_ids"].shape[1]
    mask = torch.ones_like(output.sequences)
    mask[:, :length] = inputs["attention_mask"]
    whole = {**inputs, "input_ids": output.sequences, "attention_mask": mask}
    with torch.no_grad():
        expected = model(**whole).logits[:, length - 1 : -1]
    found = torch.stack(output.logits, 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_scores(model, inputs):
    """`return_dict_in_generate` with scores and logits, and `compute_transition_scores`."""
    options = {"output_scores": True, "output_logits": True}
    output = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, **options)
    assert len(output.scores) == len(output.logits) == 8
    assert len(output.scores[0]) == len(POINTS)
    scores = model.compute_transition_scores(
        output.sequences, output.scores, normalize_logits=True
    )
    assert scores.shape == (len(POINTS), 8) and (scores <= 0).all()


def test_beam_scores(model, inputs):
    """Scores and indices of beams."""
    output = model.generate(
        **inputs,
        **GREEDY,
        num_beams=3,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = model.compute_transition_scores(
        output.sequences, output.scores, output.beam_indices
    )
    assert output.sequences_scores.shape == (len(POINTS),)
    assert scores.shape == (len(POINTS), 8)


@pytest.mark.parametrize("search", ["greedy", "beams", "sampling"])
def test_states_and_attentions(search, model, inputs):
    """Hidden states and attentions of each step: {search}."""
    model.set_attn_implementation("eager")
    kinds = {"greedy": {}, "beams": {"num_beams": 2}, "sampling": {"do_sample": True}}
    output = model.generate(
        **inputs,
        **{**GREEDY, **kinds[search]},
        return_dict_in_generate=True,
        output_hidden_states=True,
        output_attentions=True,
    )
    rows = len(POINTS) * (2 if search == "beams" else 1)
    length = inputs["input_ids"].shape[1]
    layers = model.config.get_text_config().num_hidden_layers
    assert len(output.hidden_states) == len(output.attentions) == 8
    for step, states in enumerate(output.hidden_states):
        assert len(states) == layers + 1
        assert states[-1].shape[:2] == (rows, 1 if step else length)
    for attentions in output.attentions:
        assert len(attentions) == layers
        assert len(attentions[0]) == rows
    model.set_attn_implementation("sdpa")


def test_embeddings_instead_of_ids(model, inputs):
    """`inputs_embeds` beside an image."""
    expected = generated(model, inputs, **GREEDY)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    found = generated(model, inputs, inputs_embeds=embeds, **GREEDY)
    assert torch.equal(found, expected)


def test_embeddings_and_ids(model, inputs):
    """`inputs_embeds` and `input_ids` beside an image: the sequences hold the prompt."""
    expected = model.generate(**inputs, **GREEDY)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    found = model.generate(**inputs, inputs_embeds=embeds, **GREEDY)
    assert torch.equal(found, expected)


def test_encoded_image(model, inputs):
    """`mm_encoder_outputs` of `get_image_features`, used twice."""
    expected = generated(model, inputs, **GREEDY)
    pixels = inputs.pop("pixel_values")
    image = model.get_image_features(pixels, inputs.pop("input_points"))
    for _ in range(2):
        found = generated(model, inputs, **GREEDY, mm_encoder_outputs={"image": image})
        assert torch.equal(found, expected)


@pytest.mark.parametrize("extra", [1, 12])
def test_left_padding(extra, model, processor, random_image, inputs):
    """Left padding by {extra}."""
    expected = generated(model, inputs, **GREEDY)
    length = inputs["input_ids"].shape[1] + extra
    options = {"padding": "max_length", "max_length": length}
    found = processor(images=random_image(), points=POINTS, **options)
    assert torch.equal(generated(model, found, **GREEDY), expected)


def test_batch_of_images(model, processor, random_image):
    """Images of different sizes with different numbers of points, as each alone."""
    images = [random_image(0), random_image(1, 50, 90), random_image(2, 120, 40)]
    points = [POINTS[:1], POINTS, POINTS[:2]]
    inputs = processor(images=images, points=points)
    found = generated(model, inputs, **GREEDY)
    expected = []
    for image, of_image in zip(images, points):
        alone = processor(images=image, points=of_image)
        expected.append(generated(model, alone, **GREEDY))
    assert torch.equal(found, torch.cat(expected))


def test_own_processors_and_criteria(model, inputs):
    """`logits_processor` and `stopping_criteria` of one's own."""
    likely = generated(model, inputs, **GREEDY).unique().tolist()
    processors = LogitsProcessorList(
        [SuppressTokensLogitsProcessor(likely, device="cpu")]
    )
    length = inputs["input_ids"].shape[1] + 3
    criteria = StoppingCriteriaList([MaxLengthCriteria(length)])
    found = generated(
        model,
        inputs,
        **GREEDY,
        logits_processor=processors,
        stopping_criteria=criteria,
    )
    assert found.shape == (len(POINTS), 3)
    assert not torch.isin(found, torch.tensor(likely)).any()


def test_stop_strings(model, processor, inputs):
    """`stop_strings`."""
    texts = processor.batch_decode(generated(model, inputs, **GREEDY))
    stop = texts[0].strip()[:2]
    found = generated(
        model,
        inputs,
        max_new_tokens=8,
        do_sample=False,
        stop_strings=[stop],
        tokenizer=processor.tokenizer,
    )
    assert stop in processor.decode(found[0])


def test_allowed_tokens(model, inputs):
    """`prefix_allowed_tokens_fn`."""
    found = generated(
        model, inputs, **GREEDY, prefix_allowed_tokens_fn=lambda row, ids: [10, 11, 12]
    )
    assert torch.isin(found, torch.tensor([10, 11, 12])).all()


def test_max_time(model, inputs):
    """`max_time`."""
    found = generated(model, inputs, max_new_tokens=200, do_sample=False, max_time=0.01)
    assert found.shape[1] < 200


@pytest.mark.parametrize("streamer", ["TextStreamer", "TextIteratorStreamer"])
def test_streamer(streamer, model, processor, random_image, capsys):
    """`{streamer}`, one row."""
    inputs = processor(images=random_image(), points=POINTS[:1])
    classes = {
        "TextStreamer": TextStreamer,
        "TextIteratorStreamer": TextIteratorStreamer,
    }
    streaming = classes[streamer](processor.tokenizer, skip_prompt=True)
    found = generated(model, inputs, **GREEDY, streamer=streaming)
    text = processor.decode(found[0])
    if streamer == "TextStreamer":
        shown = capsys.readouterr().out
    else:
        shown = "".join(streaming)
    assert shown.strip() == text.strip()


def test_streamer_of_several_rows(model, processor, inputs, refused):
    """A streamer of several rows."""
    with refused(ValueError, "batch size 1"):
        generated(model, inputs, **GREEDY, streamer=TextStreamer(processor.tokenizer))


def test_prompt_lookup(model, processor, random_image):
    """Prompt lookup (`prompt_lookup_num_tokens`), one row."""
    inputs = processor(images=random_image(), points=POINTS[:1])
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, **GREEDY, prompt_lookup_num_tokens=2)
    assert_same_tokens(found, expected)


@pytest.mark.parametrize("assistant", ["itself", "a smaller descriptor"])
def test_assisted(assistant, model, processor, random_image, make_descriptor):
    """Assisted generation, one row, by {assistant}."""
    helper = model
    if assistant != "itself":
        helper, _ = make_descriptor(seed=3, text_kwargs={"num_hidden_layers": 1})
    inputs = processor(images=random_image(), points=POINTS[:1])
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, **GREEDY, assistant_model=helper)
    assert_same_tokens(found, expected)


def test_assisted_by_text_model(model, processor, random_image, make_language_model):
    """Assisted generation, one row, by a language model alone."""
    torch.manual_seed(0)
    helper = make_language_model("llama", processor.tokenizer).eval()
    inputs = processor(images=random_image(), points=POINTS[:1])
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, **GREEDY, assistant_model=helper)
    assert_same_tokens(found, expected)


def test_early_exit(model, processor, random_image, refused):
    """`assistant_early_exit`, which transformers has for models of text alone."""
    inputs = processor(images=random_image(), points=POINTS[:1])
    with refused((AttributeError, ValueError), "num_hidden_layers|early_exit"):
        generated(model, inputs, **GREEDY, assistant_early_exit=1)


@pytest.mark.parametrize("search", ELSEWHERE)
def test_left_transformers(search, model, processor, inputs, refused):
    """{search}, which transformers 5 no longer has itself."""
    with refused(Exception, "custom_generate|transformers-community"):
        generated(
            model,
            inputs,
            **GREEDY,
            **ELSEWHERE[search],
            tokenizer=processor.tokenizer,
        )


def test_custom_generate(model, inputs):
    """`custom_generate`: a decoding loop of one's own."""

    def first_step(model, input_ids, logits_processor, **kwargs):
        config = kwargs.pop("generation_config")
        for name in ("stopping_criteria", "streamer", "synced_gpus"):
            kwargs.pop(name, None)
        outputs = model._prefill(input_ids, config, kwargs)
        token = outputs.logits[:, -1].argmax(-1, keepdim=True)
        return torch.cat([input_ids, token], 1)

    expected = generated(model, inputs, max_new_tokens=1, do_sample=False)
    found = generated(model, inputs, custom_generate=first_step, do_sample=False)
    assert torch.equal(found, expected)


def test_generation_config(model, inputs):
    """A `GenerationConfig` object instead of arguments: placeholders stay suppressed."""
    expected = generated(model, inputs, **GREEDY)
    found = generated(model, inputs, generation_config=GenerationConfig(**GREEDY))
    assert torch.equal(found, expected)


def test_training_mode(model, inputs):
    """In training mode, with gradient checkpointing (as trainers that sample)."""
    expected = generated(model, inputs, **GREEDY)
    model.gradient_checkpointing_enable()
    model.train()
    found = generated(model, inputs, **GREEDY, use_cache=False)
    model.gradient_checkpointing_disable()
    model.eval()
    assert torch.equal(found, expected)


def test_unused_arguments(model, inputs, refused):
    """An argument that nothing takes."""
    with refused(ValueError, "nonsense"):
        generated(model, inputs, **GREEDY, nonsense=1)


def test_no_point(model, inputs, refused):
    """A picture without its points."""
    del inputs["input_points"]
    with refused(ValueError, "input_points"):
        generated(model, inputs, **GREEDY)


def test_text_alone(model, processor):
    """Text without a picture, as the language model alone."""
    inputs = processor.tokenizer(["the left ear"], return_tensors="pt")
    found = model.generate(**inputs, **GREEDY)
    assert found.shape[1] == inputs["input_ids"].shape[1] + 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, processor, make_descriptor, inputs, tmp_path):
    """In {dtype}."""
    model, _ = make_descriptor()
    half = load(DESCRIPTOR, saved(model, processor, tmp_path), dtype=dtype)
    found = generated(half, inputs, **GREEDY)
    assert found.shape == (len(POINTS), 8)


def test_continuous_batching(model, processor):
    """`generate_batch` (continuous batching) of texts alone: it takes no pictures."""
    prompts = [[20, 21, 22], [30, 31, 32, 33, 34]]
    config = GenerationConfig(**GREEDY, eos_token_id=2)
    outputs = model.generate_batch(prompts, generation_config=config)
    found = [request.generated_tokens for request in outputs.values()]
    expected = []
    for prompt in prompts:
        rows = generated(model, {"input_ids": torch.tensor([prompt])}, **GREEDY)
        expected += rows.tolist()
    assert sorted(found) == sorted(expected)


def test_embedded_pair(random_image):
    """The embedded descriptor: several points and chunked prefill as each alone."""
    from hf_talking_points import MINI_DESCRIPTOR

    model = load(DESCRIPTOR, MINI_DESCRIPTOR)
    processor = load_processor(MINI_DESCRIPTOR)
    image = random_image()
    options = {"max_new_tokens": 12, "do_sample": False}
    inputs = processor(images=image, points=POINTS)
    found = generated(model, inputs, **options)
    chunked = generated(model, inputs, **options, prefill_chunk_size=50)
    assert_same_tokens(chunked, found)
    for row, alone in enumerate(single_rows(processor, image)):
        expected = generated(model, alone, **options)
        assert_same_tokens(found[row : row + 1], expected)
