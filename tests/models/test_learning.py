"""The Gaussian mask is what makes a point's own surroundings easy to learn."""

import pytest
import torch

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "white": (1, 1, 1),
    "black": (0, 0, 0),
}
STEPS = 120


def coloured_squares(images, points, generator):
    """-> pixel values of images of 4 x 4 coloured squares, points, and the index of the colour under each point."""
    colours = torch.randint(len(COLOURS), (images, 4, 4), generator=generator)
    pixel_values = (2.0 * torch.tensor(list(COLOURS.values())) - 1)[colours].permute(0, 3, 1, 2)
    input_points = torch.rand(images, points, 2, generator=generator)
    column, row = (input_points * 4).long().clamp(max=3).unbind(-1)
    under = colours[torch.arange(images)[:, None], row, column].flatten()
    return pixel_values.repeat_interleave(16, 2).repeat_interleave(16, 3), input_points, under


def train(model, processor, generator):
    texts = processor.tokenize([processor.render(word) for word in COLOURS], padding_side="right")
    prompt_length = processor.tokenize([processor.render()])["input_ids"].shape[1]
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
    labels[:, :prompt_length] = -100
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    model.train()
    for _ in range(STEPS):
        pixel_values, input_points, under = coloured_squares(8, 8, generator)
        text = {name: value[under] for name, value in texts.items()}
        optimizer.zero_grad()
        model(
            **text, pixel_values=pixel_values, input_points=input_points, labels=labels[under]
        ).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def accuracy(model, processor, generator):
    """Share of the right answers for 200 points of fresh images."""
    pixel_values, input_points, under = coloured_squares(25, 8, generator)
    prompt = processor.tokenize([processor.render()] * len(under))
    answers = model.generate(
        **prompt,
        pixel_values=pixel_values,
        input_points=input_points,
        max_new_tokens=6,
        do_sample=False,
    )
    answers = processor.batch_decode(
        answers[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True
    )
    words = list(COLOURS)
    return sum(answer.strip() == words[index] for answer, index in zip(answers, under)) / len(under)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gaussian_mask_learns_the_colour_under_the_point(make_descriptor, seed):
    accuracies = {}
    for point_mask in ("gaussian", "none"):
        model, processor = make_descriptor(
            seed=seed,
            point_mask=point_mask,
            mask_sigma=0.05,
            token_strides=(16,),
            vision_kwargs={"encoder_layers": 0, "decoder_layers": 4},
        )
        train(model, processor, torch.Generator().manual_seed(seed))
        accuracies[point_mask] = accuracy(
            model, processor, torch.Generator().manual_seed(1000 + seed)
        )
    assert accuracies["gaussian"] >= 0.9, accuracies
    assert accuracies["none"] <= 0.5, accuracies
