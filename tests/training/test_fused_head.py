import torch
from trl.trainer.utils import add_fused_lm_head

from hf_talking_points.training.fused_head import completions_only

FIELDS = ("log_probs", "entropy", "is_top1")


def test_scoring_completions_alone_gives_the_same(make_descriptor, random_image):
    model, processor = make_descriptor()
    texts = [
        "<image>describe <region>. a wheel",
        "<image>describe <region>. red green blue yellow",
        "<image>describe <region>. an ear",
    ]
    inputs = processor(
        [random_image()], text=texts, points=[[(10, 12), (80, 50), (48, 3)]], padding_side="right"
    )
    after = (inputs["input_ids"] == processor.region_token_id).cumsum(1).bool()
    labels = inputs["input_ids"].masked_fill(~after | ~inputs["attention_mask"].bool(), -100)
    add_fused_lm_head(model, outputs=FIELDS)
    scored = completions_only(labels)
    length = int((labels != -100).any(0).sum())
    assert scored["shift_labels"].shape == (3, length) and length < labels.shape[1] / 2
    runs = []
    for given in ({"labels": labels}, scored):
        model.zero_grad()
        outputs = model(**inputs, **given, fused_lm_head=True)
        outputs.loss.backward()
        runs.append(
            (
                outputs,
                {
                    name: p.grad.clone()
                    for name, p in model.named_parameters()
                    if p.grad is not None
                },
            )
        )
    (plain, gradients), (short, others) = runs
    torch.testing.assert_close(short.loss, plain.loss)
    for field in (*FIELDS, "label_mask"):
        torch.testing.assert_close(getattr(short, field), getattr(plain, field)[:, -length:])
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, msg=name)


def test_without_a_label_everything_is_scored():
    labels = torch.full((2, 5), -100)
    scored = completions_only(labels)
    assert scored["shift_labels"].shape == (2, 4) and scored["logits_to_keep"].tolist() == [
        0,
        1,
        2,
        3,
    ]
