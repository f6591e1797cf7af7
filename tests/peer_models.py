"""The models that tests/peers checks: tiny ones of each kind, with inputs, a loss and the answer to compare."""

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
    AutoProcessor,
)

import hf_talking_points  # noqa: F401 - registers the models

DESCRIPTOR = "descriptor"
FIELDS = {  # of the config
    DESCRIPTOR: {},
    "localizer, mlp": {"head": "mlp"},
    "localizer, heatmap": {"head": "heatmap"},
}
AUTO_CLASSES = {
    DESCRIPTOR: AutoModelForImageTextToText,
    "localizer, mlp": AutoModelForKeypointDetection,
    "localizer, heatmap": AutoModelForKeypointDetection,
}
POINTS = [(20, 30), (40, 10), (45, 35)]
TEXTS = ["the left ear of the cat", "the front wheel", "a dark spot near the beak"]
every_kind = pytest.mark.parametrize("kind", FIELDS)
only_descriptor = pytest.mark.parametrize("kind", [DESCRIPTOR])
both_models = pytest.mark.parametrize("kind", [DESCRIPTOR, "localizer, heatmap"])


def asked(kind, count=2):
    """What is asked of one image, as an argument of the processor."""
    if kind == DESCRIPTOR:
        return {"points": POINTS[:count]}
    return {"text": TEXTS[:count]}


def targets(kind, inputs):
    """What gives a loss beside the inputs."""
    if kind == DESCRIPTOR:
        return {"labels": inputs["input_ids"].clone()}
    rows = len(inputs["input_ids"])
    return {"target_points": torch.linspace(0.2, 0.8, 2 * rows).view(rows, 2)}


def answer(kind, model, inputs, **options):
    """Of the descriptor its logits, of the localizer its points; rows first."""
    with torch.no_grad():
        output = model(**inputs, **options)
    return output.logits if kind == DESCRIPTOR else output.points


def loss_of(kind, model, inputs, **options):
    return model(**inputs, **targets(kind, inputs), **options).loss


def gradients(model):
    """By parameter, of those that have one."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad.clone()
    return found


def saved(model, processor, folder, **options):
    """Saves both; -> the folder as a string."""
    model.save_pretrained(folder, **options)
    processor.save_pretrained(folder)
    return str(folder)


def load(kind, folder, **options):
    """-> the model of a folder, in eval mode."""
    return AUTO_CLASSES[kind].from_pretrained(folder, **options).eval()


def load_processor(folder):
    return AutoProcessor.from_pretrained(folder)


def assert_equal_answers(kind, model, other, inputs, tolerance=1e-5):
    expected = answer(kind, model, inputs)
    found = answer(kind, other, inputs).to(expected.dtype)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
