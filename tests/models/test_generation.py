"""Whatever `generate` is asked for, its tokens are those of one point decoded alone, step by step, without a cache."""

import copy

import pytest
import torch
from transformers import CompileConfig, DynamicCache, StaticCache

POINTS = [(10.0, 12.0), (80.0, 50.0), (48.0, 3.0)]
NEW_TOKENS = 6
GREEDY = {
    "max_new_tokens": NEW_TOKENS,
    "min_new_tokens": NEW_TOKENS,
    "do_sample": False,
}
LIKELIEST = {**GREEDY, "do_sample": True, "top_k": 1}  # sampling without a choice
BEAMS = {**GREEDY, "num_beams": 3}
ALL_OUTPUTS = {
    "return_dict_in_generate": True,
    "output_hidden_states": True,
    "output_attentions": True,
    "output_scores": True,
    "output_logits": True,
}
# options that change how a text is generated, but not which
OPTIONS = {
    "growing cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "chunks of 1": {"prefill_chunk_size": 1},
    "chunks of 7": {"prefill_chunk_size": 7},
    "one chunk": {"prefill_chunk_size": 1000},
    "static cache, chunks of 7": {
        "cache_implementation": "static",
        "prefill_chunk_size": 7,
    },
    "static cache, compile options": {
        "cache_implementation": "static",
        "compile_config": CompileConfig(),
    },
    "logits of the prompt": {"logits_to_keep": 0},
    "some logits of the prompt": {"logits_to_keep": 3},
    "all outputs": ALL_OUTPUTS,
    "all outputs, chunks of 7": {**ALL_OUTPUTS, "prefill_chunk_size": 7},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def decoded_alone(model, inputs):
    """Greedy tokens `(1, NEW_TOKENS)` of a prompt of one row, each from a pass over everything before it."""
    inputs = dict(inputs)
    input_ids = inputs.pop("input_ids")
    del inputs["attention_mask"]
    never = [model.config.text_config.eos_token_id]
    never += model.generation_config.suppress_tokens
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = model(input_ids=input_ids, **inputs, use_cache=False).logits
        likeliest = logits[:, -1].index_fill(1, torch.tensor(never), -torch.inf)
        input_ids = torch.cat([input_ids, likeliest.argmax(-1, keepdim=True)], 1)
    return input_ids[:, -NEW_TOKENS:]


class Prompts:
    """A tiny descriptor and prompts for it: three points, two of them of one photo, with texts of unequal lengths."""

    TEXTS = (
        "cat <image> the <region>",
        "<image> a point on the wheel <region>",
        "a <image>a <region> car",
    )

    def __init__(self, build, photos):
        self.model, self.processor = build
        self.photos = photos
        self.parts = [(photos[0], 0), (photos[0], 1), (photos[1], 2)]

    def alone(self, row, **options):
        photo, point = self.parts[row]
        text = [self.TEXTS[row]]
        return self.processor(photo, text=text, points=[POINTS[point]], **options)

    def together(self, **options):
        points = [POINTS[:2], POINTS[2:]]
        texts = list(self.TEXTS)
        return self.processor(self.photos, text=texts, points=points, **options)

    def embedded(self, inputs, keep_ids=False):
        """`inputs` with the embeddings of their ids, in the place of these or beside them."""
        inputs = dict(inputs)
        embeds = self.model.get_input_embeddings()(inputs["input_ids"]).detach()
        if not keep_ids:
            del inputs["input_ids"]
        return {**inputs, "inputs_embeds": embeds}

    def expected(self):
        rows = [decoded_alone(self.model, self.alone(row)) for row in range(3)]
        return torch.cat(rows)

    def generated(self, inputs, options):
        output = self.model.generate(**inputs, **options)
        sequences = output if torch.is_tensor(output) else output.sequences
        return sequences[:, -NEW_TOKENS:]


@pytest.fixture(scope="module")
def prompts(make_descriptor, random_image):
    return Prompts(make_descriptor(), [random_image(1), random_image(2)])


@pytest.fixture(scope="module")
def expected(prompts):
    return prompts.expected()


@every_option
def test_rows(prompts, expected, options):
    inputs = prompts.together()
    assert torch.equal(prompts.generated(inputs, {**GREEDY, **options}), expected)


@every_option
def test_samples(prompts, expected, options):
    options = {**LIKELIEST, **options, "num_return_sequences": 2}
    samples = prompts.generated(prompts.together(), options)
    assert torch.equal(samples, expected.repeat_interleave(2, 0))


@every_option
def test_beams(prompts, options):
    options = {**BEAMS, **options, "num_return_sequences": 2}
    rows = [
        prompts.generated(prompts.alone(row), BEAMS | {"num_return_sequences": 2})
        for row in range(3)
    ]
    assert torch.equal(prompts.generated(prompts.together(), options), torch.cat(rows))


@pytest.mark.parametrize("keep_ids", [False, True])
@every_option
def test_embeddings_of_the_prompt(prompts, expected, options, keep_ids):
    inputs = prompts.embedded(prompts.together(), keep_ids)
    if "use_cache" in options:
        pytest.skip("generate() caches wherever embeddings are given")
    assert torch.equal(prompts.generated(inputs, {**GREEDY, **options}), expected)


@pytest.mark.parametrize("keep_ids", [False, True])
def test_samples_and_beams_of_embeddings(prompts, expected, keep_ids):
    inputs = prompts.together()
    embedded = prompts.embedded(inputs, keep_ids)
    options = {**LIKELIEST, "num_return_sequences": 2}
    samples = prompts.generated(embedded, options)
    assert torch.equal(samples, expected.repeat_interleave(2, 0))
    beams = prompts.generated(embedded, BEAMS)
    assert torch.equal(beams, prompts.generated(inputs, BEAMS))


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_several_points_in_one_text(prompts, chunk_size):
    photo, other = prompts.photos
    texts = ["<image> <region> or <region>", "the <image> a <region>"]
    alone = [
        prompts.processor(photo, text=texts[:1], points=POINTS[:2]),
        prompts.processor(other, text=texts[1:], points=POINTS[2:]),
    ]
    both = prompts.processor(
        [photo, other], text=texts, points=[POINTS[:2], POINTS[2:]]
    )
    expected = torch.cat([decoded_alone(prompts.model, inputs) for inputs in alone])
    options = {"num_return_sequences": 2, "prefill_chunk_size": chunk_size}
    samples = prompts.generated(both, {**LIKELIEST, **options})
    assert torch.equal(samples, expected.repeat_interleave(2, 0))


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("cache_class", [DynamicCache, StaticCache])
@pytest.mark.parametrize("whole", [False, True])
def test_a_cache_that_holds_the_text_before_the_image(
    prompts, expected, whole, cache_class, chunk_size
):
    inputs = dict(prompts.alone(0))
    is_image = inputs["input_ids"][0] == prompts.processor.image_token_id
    start = int(is_image.int().argmax())
    assert start
    config = prompts.model.config.text_config
    cache = DynamicCache() if cache_class is DynamicCache else StaticCache(config, 100)
    with torch.no_grad():
        prompts.model(inputs["input_ids"][:, :start], past_key_values=cache)
    if not whole:
        inputs["input_ids"] = inputs["input_ids"][:, start:]
    options = {**GREEDY, "prefill_chunk_size": chunk_size, "past_key_values": cache}
    assert torch.equal(prompts.generated(inputs, options), expected[:1])


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("whole", [False, True])
def test_continuing_from_a_cache(prompts, expected, whole, chunk_size):
    inputs = prompts.together()
    first = {**GREEDY, "max_new_tokens": 2, "min_new_tokens": 2}
    begun = prompts.model.generate(**inputs, **first, return_dict_in_generate=True)
    cache = begun.past_key_values
    input_ids = begun.sequences
    new = input_ids.new_ones(len(input_ids), 2)
    rest = {
        "input_ids": input_ids if whole else input_ids[:, cache.get_seq_length() :],
        "attention_mask": torch.cat([inputs["attention_mask"], new], 1),
        "past_key_values": cache,
        "prefill_chunk_size": chunk_size,
    }
    counts = {"max_new_tokens": NEW_TOKENS - 2, "min_new_tokens": NEW_TOKENS - 2}
    tokens = prompts.model.generate(**rest, do_sample=False, **counts)
    assert torch.equal(tokens[:, 2 - NEW_TOKENS :], expected[:, 2:])


def test_encoder_outputs_serve_every_prompt(prompts, expected):
    inputs = dict(prompts.together())
    vision = {name: inputs.pop(name) for name in ("pixel_values", "input_points")}
    encoded = {"image": prompts.model.get_image_features(**vision)}
    for options in (GREEDY, GREEDY | {"prefill_chunk_size": 7}, GREEDY):
        options = {**options, "mm_encoder_outputs": encoded}
        assert torch.equal(prompts.generated(inputs, options), expected)
    samples = {**LIKELIEST, "num_return_sequences": 2, "mm_encoder_outputs": encoded}
    for _ in range(2):
        tokens = prompts.generated(inputs, samples)
        assert torch.equal(tokens, expected.repeat_interleave(2, 0))


@pytest.mark.parametrize("assistant", ["itself", "another", "language model"])
@pytest.mark.parametrize("embedded", [False, True])
def test_assisted_decoding(
    prompts, expected, make_descriptor, make_language_model, assistant, embedded
):
    if assistant == "itself":
        model = copy.deepcopy(prompts.model)
    elif assistant == "another":
        model, _ = make_descriptor(seed=1)
    else:
        model = make_language_model("llama", prompts.processor.tokenizer)
    for row in range(3):
        inputs = prompts.alone(row)
        if embedded:
            inputs = prompts.embedded(inputs, keep_ids=True)
        tokens = prompts.generated(inputs, {**GREEDY, "assistant_model": model})
        assert torch.equal(tokens, expected[row : row + 1])


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_prompt_lookup(prompts, expected, chunk_size):
    options = {"prompt_lookup_num_tokens": 3, "prefill_chunk_size": chunk_size}
    for row in range(3):
        tokens = prompts.generated(prompts.alone(row), {**GREEDY, **options})
        assert torch.equal(tokens, expected[row : row + 1])


def test_a_descriptor_assists_a_language_model(prompts, make_language_model):
    tokenizer = prompts.processor.tokenizer
    language_model = make_language_model("llama", tokenizer).eval()
    inputs = tokenizer("the left ear", return_tensors="pt", return_token_type_ids=False)
    expected = language_model.generate(**inputs, **GREEDY)
    assisted = language_model.generate(
        **inputs, **GREEDY, assistant_model=prompts.model
    )
    assert torch.equal(assisted, expected)


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.tokens = []
        self.ended = False

    def put(self, tokens):
        self.tokens.append(tokens.reshape(1, -1))

    def end(self):
        self.ended = True


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_streamer(prompts, chunk_size):
    streamer = Recorder()
    options = {**GREEDY, "prefill_chunk_size": chunk_size}
    tokens = prompts.model.generate(**prompts.alone(0), **options, streamer=streamer)
    assert torch.equal(torch.cat(streamer.tokens, 1), tokens)
    assert streamer.ended


def test_stop_strings_end_each_row_by_itself(prompts, expected):
    tokenizer = prompts.processor.tokenizer
    stop = tokenizer.decode(expected[0, 2]).strip()
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    options |= {"stop_strings": [stop], "tokenizer": tokenizer}
    prompts_tokens = prompts.together()["input_ids"].shape[1]
    together = prompts.model.generate(**prompts.together(), **options)
    for row in range(3):
        inputs = prompts.alone(row)
        alone = prompts.model.generate(**inputs, **options)
        new = alone[0, inputs["input_ids"].shape[1] :]
        assert torch.equal(together[row, prompts_tokens:][: len(new)], new)


def test_quantized_cache(prompts):
    pytest.importorskip("optimum.quanto")
    config = {"backend": "quanto", "q_group_size": 8, "residual_length": 4}
    options = {"cache_implementation": "quantized", "cache_config": config}
    rows = [
        prompts.generated(prompts.alone(row), {**GREEDY, **options}) for row in range(3)
    ]
    assert torch.equal(
        prompts.generated(prompts.together(), {**GREEDY, **options}), torch.cat(rows)
    )


@pytest.mark.parametrize("window", [8, 12])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefill_chunk_size": 7},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "prefill_chunk_size": 5},
    ],
)
def test_sliding_windows(make_descriptor, random_image, window, options):
    windows = {
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": 1,
    }
    photos = [random_image(1), random_image(2)]
    prompts = Prompts(make_descriptor(text="qwen", text_kwargs=windows), photos)
    assert "sliding_attention" in prompts.model.config.text_config.layer_types
    inputs = prompts.together()
    assert torch.equal(
        prompts.generated(inputs, {**GREEDY, **options}), prompts.expected()
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cache_implementation": "paged"}, "continuous batching"),
        ({"token_healing": True}, "token_healing"),
        ({"assistant_early_exit": 1}, "assistant_early_exit"),
    ],
)
def test_what_would_lose_the_image_is_an_error(prompts, options, message):
    options = {**options, "tokenizer": prompts.processor.tokenizer}
    with pytest.raises(ValueError, match=message):
        prompts.model.generate(**prompts.alone(0), **GREEDY, **options)
