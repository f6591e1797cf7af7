"""The Gaussian mask is what makes a point's own surroundings easy to learn."""

import pytest
import torch

COLORS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "white": (1, 1, 1),
    "black": (0, 0, 0),
}
STEPS = 120


def colored_squares(images, points, generator):
    """Images of 4 x 4 colored squares, and what is under points on them.

    Returns pixel values `(images, 3, 64, 64)`, points `(images, points, 2)`, and the index of the color under each
    point `(images * points,)`.
    """
    colors = torch.randint(len(COLORS), (images, 4, 4), generator=generator)
    palette = 2.0 * torch.tensor(list(COLORS.values())) - 1
    squares = palette[colors].permute(0, 3, 1, 2)  # (images, 3, 4, 4)
    pixel_values = squares.repeat_interleave(16, 2).repeat_interleave(16, 3)
    input_points = torch.rand(images, points, 2, generator=generator)
    column, row = (input_points * 4).long().clamp(max=3).unbind(-1)
    image = torch.arange(images)[:, None]
    return pixel_values, input_points, colors[image, row, column].flatten()


def encoded_answers(processor):
    """Prompts with each color's name, and labels on the names alone; a row for each color."""
    answered = [processor.render(word) for word in COLORS]
    texts = processor.tokenize(answered, padding_side="right")
    prompt_length = processor.tokenize([processor.render()])["input_ids"].shape[1]
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
    labels[:, :prompt_length] = -100
    return texts, labels


def train(model, processor, generator):
    texts, labels = encoded_answers(processor)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    model.train()
    for _ in range(STEPS):
        pixel_values, input_points, under = colored_squares(8, 8, generator)
        outputs = model(
            **{name: value[under] for name, value in texts.items()},
            pixel_values=pixel_values,
            input_points=input_points,
            labels=labels[under],
        )
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def accuracy(model, processor, generator):
    """Share of the right answers for 200 points of fresh images."""
    pixel_values, input_points, under = colored_squares(25, 8, generator)
    prompt = processor.tokenize([processor.render()] * len(under))
    sequences = model.generate(
        **prompt,
        pixel_values=pixel_values,
        input_points=input_points,
        max_new_tokens=6,
        do_sample=False,
    )
    completions = sequences[:, prompt["input_ids"].shape[1] :]
    answers = processor.batch_decode(completions, skip_special_tokens=True)
    words = list(COLORS)
    right = [
        answer.strip() == words[index]
        for answer, index in zip(answers, under, strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gaussian_mask_learns_the_color_under_the_point(make_descriptor, seed):
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
        fresh = torch.Generator().manual_seed(1000 + seed)
        accuracies[point_mask] = accuracy(model, processor, fresh)
    assert accuracies["gaussian"] >= 0.9, accuracies
    assert accuracies["none"] <= 0.5, accuracies
