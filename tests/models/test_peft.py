"""Adapters of PEFT that add tokens or tell rows apart: rows together give what each gives alone."""

import pytest
import torch
from peft import (
    CartridgeConfig,
    CPTConfig,
    LoraConfig,
    MultitaskPromptTuningConfig,
    PolyConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)

POINTS = [(10.0, 12.0), (80.0, 50.0), (48.0, 3.0)]
TEXTS = ["the left ear", "a wheel of the car", "the beak"]
PROJECTIONS = r".*language_model.*\.(q|k|v|o)_proj"
TASKS = {"descriptor": "CAUSAL_LM", "localizer": "FEATURE_EXTRACTION"}
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
VIRTUAL_TOKENS = {
    "prompt tuning": (PromptTuningConfig, {}),
    "p-tuning": (PromptEncoderConfig, {"encoder_hidden_size": 16}),
    "prefix tuning": (PrefixTuningConfig, {}),
    "prefix tuning, projected": (
        PrefixTuningConfig,
        {"prefix_projection": True, "encoder_hidden_size": 16},
    ),
    "cartridge": (CartridgeConfig, {}),
}


class Adapted:
    """A tiny model, and what it gives for three rows of one image together and for each of them alone."""

    def __init__(self, kind, model, processor, image):
        self.kind = kind
        self.model = model
        self.processor = processor
        self.image = image

    def inputs(self, rows):
        if self.kind == "descriptor":
            return self.processor(self.image, points=POINTS[rows])
        return self.processor(self.image, text=TEXTS[rows])

    def targets(self, inputs):
        if self.kind == "descriptor":
            return {"labels": inputs["input_ids"]}
        return {"target_points": torch.tensor(POINTS) / 100}

    def adapt(self, config_class, **fields):
        config = config_class(task_type=TASKS[self.kind], **fields)
        self.model = get_peft_model(self.model, config)

    def check_gradients(self, **options):
        """The loss has a gradient for every parameter that is trained."""
        inputs = self.inputs(slice(3))
        self.model.train()
        self.model(**inputs, **self.targets(inputs), **options).loss.backward()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.any(), name

    @torch.no_grad()
    def result(self, rows, options):
        output = self.model(**self.inputs(rows), **options)
        if self.kind == "localizer":
            return output.points
        # virtual tokens and padding stand before the text
        return output.logits[:, -1]

    def check_rows(self, options_of_rows=None, options=None):
        """Results, and texts of a descriptor, are those of each row alone; `options_of_rows` have an entry a row."""
        self.model.eval()
        options_of_rows = options_of_rows or {}
        together = {**options_of_rows, **(options or {})}
        results = self.result(slice(3), together)
        tokens = self.generated(slice(3), together)
        for row in range(3):
            rows = slice(row, row + 1)
            alone = {name: values[rows] for name, values in options_of_rows.items()}
            alone |= options or {}
            expected = self.result(rows, alone)[0]
            torch.testing.assert_close(results[row], expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(tokens[rows], self.generated(rows, alone))

    def generated(self, rows, options, **generation):
        """New tokens `(rows, 4)`; none of a localizer."""
        if self.kind == "localizer":
            return torch.empty(len(POINTS[rows]), 0)
        tokens = self.model.generate(
            **self.inputs(rows), **options, **{**GREEDY, **generation}
        )
        return tokens[:, -4:]


@pytest.fixture(params=TASKS)
def adapted(request, random_image):
    build = request.getfixturevalue(f"make_{request.param}")
    return Adapted(request.param, *build(), random_image())


@pytest.fixture
def adapted_descriptor(make_descriptor, random_image):
    return Adapted("descriptor", *make_descriptor(), random_image())


@pytest.mark.parametrize("method", VIRTUAL_TOKENS)
def test_virtual_tokens(adapted, method):
    config_class, fields = VIRTUAL_TOKENS[method]
    adapted.adapt(config_class, num_virtual_tokens=4, **fields)
    adapted.check_gradients()
    adapted.check_rows()


@pytest.mark.parametrize("method", VIRTUAL_TOKENS)
def test_generation_with_virtual_tokens(adapted_descriptor, method):
    config_class, fields = VIRTUAL_TOKENS[method]
    adapted_descriptor.adapt(config_class, num_virtual_tokens=4, **fields)
    adapted_descriptor.model.eval()
    generated = adapted_descriptor.generated
    expected = generated(slice(3), {})
    assert torch.equal(generated(slice(3), {}, prefill_chunk_size=7), expected)
    samples = generated(slice(3), {}, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(samples, expected.repeat_interleave(2, 0))
    beams = generated(slice(3), {}, num_beams=2)
    alone = [generated(slice(row, row + 1), {}, num_beams=2) for row in range(3)]
    assert torch.equal(beams, torch.cat(alone))


def test_context_aware_prompt_tuning(adapted_descriptor):
    adapted_descriptor.adapt(
        CPTConfig,
        cpt_token_ids=[5, 6, 7, 8],
        cpt_mask=[1, 1, 1, 1],
        cpt_tokens_type_mask=[1, 2, 3, 4],
    )
    adapted_descriptor.check_gradients()
    adapted_descriptor.check_rows()


def test_prompts_of_several_tasks(adapted_descriptor):
    adapted_descriptor.adapt(
        MultitaskPromptTuningConfig, num_virtual_tokens=4, num_tasks=2
    )
    adapted_descriptor.check_rows({"task_ids": torch.tensor([0, 1, 0])})


def test_rows_of_several_tasks(adapted):
    adapted.adapt(PolyConfig, target_modules=PROJECTIONS, r=2, n_tasks=2)
    for name, parameter in adapted.model.named_parameters():
        if "poly_" in name:
            torch.nn.init.normal_(parameter)
    adapted.check_rows({"task_ids": torch.tensor([0, 1, 0])})


def test_rows_with_adapters_of_their_own(adapted):
    lora = {"r": 4, "target_modules": PROJECTIONS, "init_lora_weights": False}
    adapted.adapt(LoraConfig, **lora)
    adapted.model.add_adapter("other", LoraConfig(**lora))
    for names in (["other", "__base__", "default"], ["__base__", "other", "other"]):
        adapted.check_rows({"adapter_names": names})
    # rows with one prompt, but not one adapter
    if adapted.kind == "descriptor":
        twice = adapted.processor(adapted.image, points=POINTS[:1] * 2)
        names = ["default", "other"]
        options = {**GREEDY, "adapter_names": names, "output_logits": True}
        output = adapted.model.generate(
            **twice, **options, return_dict_in_generate=True
        )
        first, second = output.logits[0]
        assert not torch.allclose(first, second, atol=1e-3)


def test_an_adapter_that_the_text_invokes(adapted_descriptor):
    input_ids = adapted_descriptor.inputs(slice(1))["input_ids"][0]
    adapted_descriptor.adapt(
        LoraConfig,
        r=4,
        target_modules=PROJECTIONS,
        init_lora_weights=False,
        alora_invocation_tokens=input_ids[-3:-1].tolist(),
    )
    adapted_descriptor.check_rows()


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("kind", TASKS)
def test_adapters_of_every_linear_layer_are_merged(request, random_image, kind, prior):
    build = request.getfixturevalue(f"make_{kind}")
    adapted = Adapted(kind, *build(use_perception_prior=prior), random_image())
    adapted.adapt(LoraConfig, target_modules="all-linear", init_lora_weights=False)
    adapted.model.eval()
    expected = adapted.result(slice(3), {})
    adapted.model = adapted.model.merge_and_unload()
    result = adapted.result(slice(3), {})
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
