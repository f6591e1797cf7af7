"""Export and compilation."""

import pytest
import torch
from peer_models import (
    DESCRIPTOR,
    answer,
    both_models,
    every_kind,
    gradients,
    loss_of,
    only_descriptor,
)
from transformers import StaticCache

pytestmark = pytest.mark.slow
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


class Answers(torch.nn.Module):
    """A model whose only output is its answer, as an exported program has it."""

    def __init__(self, kind, model):
        super().__init__()
        self.kind = kind
        self.model = model

    def forward(self, inputs):
        output = self.model(**inputs)
        return output.logits if self.kind == DESCRIPTOR else output.points


def dynamic_shapes(inputs, images, rows, length):
    """For `torch.export`: numbers of images and of rows, and the length of the text, may change."""
    shapes = {}
    for name in inputs:
        if name in ("input_ids", "attention_mask"):
            shapes[name] = {0: rows, 1: length}
        elif name == "image_index":
            shapes[name] = {0: rows}
        else:
            shapes[name] = {0: images}
    return shapes


def one_question_each(kind, processor, images):
    """Inputs with one point or text for each image."""
    if kind == DESCRIPTOR:
        return processor(images=images, points=[[(20, 30)] for _ in images])
    return processor(images=images, text=[["the left ear"] for _ in images])


@every_kind
@pytest.mark.parametrize("strict", ["strict", "not strict"])
def test_export(kind, strict, make_pair, random_image):
    """`torch.export` ({strict}) of the forward pass, numbers of images and length of the text dynamic."""
    model, processor = make_pair(kind)
    inputs = one_question_each(kind, processor, [random_image(0), random_image(1)])
    dim = torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(
            Answers(kind, model),
            (dict(inputs),),
            dynamic_shapes=(dynamic_shapes(inputs, dim, dim, dim),),
            strict=strict == "strict",
        )
    images = [random_image(2), random_image(3), random_image(4)]
    others = one_question_each(kind, processor, images)
    for name in ("input_ids", "attention_mask"):  # another length
        others[name] = torch.nn.functional.pad(others[name], (5, 0))
    found = program.module()(dict(others))
    expected = answer(kind, model, others)
    if kind == DESCRIPTOR:
        mask = others["attention_mask"].bool()
        found = found[mask]
        expected = expected[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
def test_saved_program(kind, make_pair, random_image, tmp_path):
    """An exported program, saved and loaded."""
    model, processor = make_pair(kind)
    inputs = dict(one_question_each(kind, processor, [random_image(0)]))
    with torch.no_grad():
        program = torch.export.export(Answers(kind, model), (inputs,))
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2")
    expected = answer(kind, model, inputs)
    found = loaded.module()(inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
def test_compile(kind, model_and_inputs):
    """`torch.compile(fullgraph=True)` of the forward pass."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    found = answer(kind, compiled, inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@both_models
def test_compiled_training(kind, model_and_inputs):
    """`torch.compile` of a training step: the same gradients."""
    model, inputs = model_and_inputs(kind)
    loss_of(kind, model, inputs).backward()
    expected = gradients(model)
    model.zero_grad()
    torch._dynamo.reset()
    model.compile(backend="eager")
    loss_of(kind, model, inputs).backward()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


@only_descriptor
def test_compiled_steps(kind, model_and_inputs):
    """`generate` with a static cache, the decoding step compiled as one graph."""
    model, inputs = model_and_inputs(kind)
    expected = model.generate(**inputs, **GREEDY)
    torch._dynamo.reset()
    model.forward = torch.compile(model.forward, fullgraph=False, backend="eager")
    found = model.generate(**inputs, **GREEDY, cache_implementation="static")
    assert torch.equal(found, expected)
    assert model._can_compile_fullgraph


@only_descriptor
def test_step_as_one_graph(kind, model_and_inputs):
    """One decoding step with a static cache, `torch.compile(fullgraph=True)`."""
    model, inputs = model_and_inputs(kind)
    rows, length = inputs["input_ids"].shape
    logits = []
    for compiled in (False, True):
        cache = StaticCache(model.config.get_text_config(), max_cache_len=length + 4)
        step = model
        if compiled:
            torch._dynamo.reset()
            step = torch.compile(model, fullgraph=True, backend="eager")
        with torch.no_grad():
            first = model(**inputs, past_key_values=cache, use_cache=True)
            token = first.logits[:, -1:].argmax(-1)
            mask = inputs["attention_mask"]
            mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
            output = step(
                input_ids=token,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            )
        logits.append(output.logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
