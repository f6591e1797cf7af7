"""Scoring no more than the completions."""

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from hf_talking_points import paper_lora_config
from hf_talking_points.training.fused_head import (
    completions_only,
    has_virtual_tokens,
    labels_only,
)

FIELDS = ("log_probs", "entropy", "is_top1")
TEXTS = [
    "<image>describe <region>. a wheel",
    "<image>describe <region>. red green blue yellow",
    "<image>describe <region>. an ear",
]
POINTS = [(10, 12), (80, 50), (48, 3)]


def gradients_of(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def test_scoring_completions_alone_gives_the_same(make_descriptor, random_image):
    model, processor = make_descriptor()
    inputs = processor(
        [random_image()], text=TEXTS, points=[POINTS], padding_side="right"
    )
    is_after_region = (
        (inputs["input_ids"] == processor.region_token_id).cumsum(1).bool()
    )
    is_labeled = is_after_region & inputs["attention_mask"].bool()
    labels = inputs["input_ids"].masked_fill(~is_labeled, -100)
    add_fused_lm_head(model, outputs=FIELDS)
    shortened = completions_only(labels)
    length = int((labels != -100).any(0).sum())
    assert shortened["shift_labels"].shape == (3, length)
    assert length < labels.shape[1] / 2
    shortest = labels_only(labels)
    assert shortest["shift_labels"].tolist() == [labels[is_labeled].tolist()]

    outputs = []
    gradients = []
    for scored in ({"labels": labels}, shortened, shortest):
        model.zero_grad()
        output = model(**inputs, **scored, fused_lm_head=True)
        output.loss.backward()
        outputs.append(output)
        gradients.append(gradients_of(model))
    whole, short, row = outputs
    torch.testing.assert_close(short.loss, whole.loss)
    torch.testing.assert_close(row.loss, whole.loss)
    for field in (*FIELDS, "label_mask"):
        torch.testing.assert_close(
            getattr(short, field), getattr(whole, field)[:, -length:]
        )
        torch.testing.assert_close(
            getattr(row, field)[0], getattr(whole, field)[is_labeled[:, 1:]]
        )
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_rows_without_a_label_have_no_loss(make_descriptor):
    model, _ = make_descriptor()
    add_fused_lm_head(model, outputs=FIELDS)
    scored = labels_only(torch.full((2, 5), -100))
    output = model(input_ids=torch.ones(2, 5).long(), **scored, fused_lm_head=True)
    output.loss.backward()
    assert output.loss == 0


def test_a_label_that_nothing_predicts_is_left_out():
    scored = labels_only(torch.tensor([[1, 2, -100], [-100, -100, 3]]))
    assert scored["shift_labels"].tolist() == [[2, 3]]
    assert scored["logits_to_keep"].tolist() == [
        [True, False, False],
        [False, True, False],
    ]


def test_without_a_label_everything_is_scored():
    scored = completions_only(torch.full((2, 5), -100))
    assert scored["shift_labels"].shape == (2, 4)
    assert scored["logits_to_keep"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [1, 3, 4])
def test_labels_stand_beside_the_positions_that_predict_them(first):
    labels = torch.tensor([[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]])
    labels[:, :first] = -100
    labels[1, first] = -100  # the rows' prompts may differ in length
    scored = completions_only(labels)
    positions = scored["logits_to_keep"]
    assert positions.tolist() == list(range(first - 1, 4))
    assert torch.equal(scored["shift_labels"], labels[:, positions + 1])


def test_virtual_tokens_are_those_of_prompt_learning(make_descriptor):
    model, _ = make_descriptor()
    assert not has_virtual_tokens(model)
    assert not has_virtual_tokens(get_peft_model(model, paper_lora_config(r=2)))
    model, _ = make_descriptor()
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    assert has_virtual_tokens(get_peft_model(model, config))
