"""Prompt files become chats; the pictures of a point show which one is meant."""

import numpy as np
import pytest
from PIL import Image

from hf_talking_points.prompts import (
    LONGEST_SIDE,
    SHOTS,
    ask,
    fading_crop,
    prompt_hash,
    read_prompt,
    ring_point,
)


@pytest.fixture
def folder(tmp_path):
    """A folder of a prompt with seven worked examples, and of one without any."""
    blocks = ["[system]\nBe brief."]
    for number in range(7):
        blocks.append(f"[user]\nquestion {number}\n[assistant]\nanswer {number}")
    blocks.append("[user]\n{facts}, [really]?")
    (tmp_path / "examples.txt").write_text("\n".join(blocks))
    (tmp_path / "plain.txt").write_text("[user]\nWhat is {thing}?\nSay it.\n")
    return tmp_path


def test_a_prompt_file_is_read_as_messages(folder):
    messages = read_prompt(folder, "examples")
    assert [message["role"] for message in messages] == [
        "system",
        *["user", "assistant"] * 7,
        "user",
    ]
    assert messages[0]["content"] == "Be brief."
    assert messages[4]["content"] == "answer 1"
    assert messages[-1]["content"] == "{facts}, [really]?"


def test_a_question_is_filled(folder):
    [message] = ask(folder, "plain", thing="{this}")
    assert message == {"role": "user", "content": "What is {this}?\nSay it."}
    image = Image.new("RGB", (4, 4))
    [message] = ask(folder, "plain", image=image, thing="it")
    assert message["content"] == [
        {"type": "image", "image": image},
        {"type": "text", "text": "What is it?\nSay it."},
    ]


def test_one_set_of_worked_examples_is_shown(folder):
    drawn = set()
    for seed in range(40):
        chat = ask(folder, "examples", np.random.default_rng(seed), facts="a dog")
        assert chat == ask(
            folder, "examples", np.random.default_rng(seed), facts="a dog"
        )
        system, *examples, question = chat
        assert system["content"] == "Be brief."
        assert question["content"] == "a dog, [really]?"
        assert len(examples) == 2 * SHOTS
        for asked, answered in zip(examples[::2], examples[1::2]):
            assert asked["content"].replace("question", "answer") == answered["content"]
        drawn.add(" ".join(message["content"][-1] for message in examples[::2]))
    assert drawn == {"0 1 2", "3 4 5", "6 0 1"}


def test_worked_examples_need_a_generator(folder):
    with pytest.raises(ValueError, match="'examples'.*rng"):
        ask(folder, "examples", facts="a dog")


def test_the_hash_follows_the_files(folder):
    plain = prompt_hash(folder, ["plain"])
    both = prompt_hash(folder, ["plain", "examples"])
    assert plain == prompt_hash(folder, ["plain"]) != both
    with open(folder / "examples.txt", "a") as file:
        file.write("!")
    assert prompt_hash(folder, ["plain"]) == plain
    assert prompt_hash(folder, ["plain", "examples"]) != both


def test_the_ring_leaves_the_point_free():
    image = Image.new("RGB", (200, 100), "green")
    marked = np.asarray(ring_point(image, (50, 40)))
    assert (marked[38:43, 48:53] == (0, 128, 0)).all()
    assert np.asarray(image).max() == 128  # the image itself is as before
    is_red = (marked == (255, 0, 0)).all(-1)
    red = np.argwhere(is_red) + 0.5  # (pixels, 2): y, x
    assert len(red) > 20
    assert np.abs(red.mean(0) - (40, 50)).max() < 1


def test_a_large_image_is_shown_smaller_with_the_ring_in_its_place():
    marked = ring_point(Image.new("RGB", (3000, 1500)), (2999, 1))
    assert marked.size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    marked = np.asarray(ring_point(Image.new("RGB", (3000, 1500)), (1500, 600)))
    is_red = (marked == (255, 0, 0)).all(-1)
    center = (np.argwhere(is_red) + 0.5).mean(0)
    assert np.abs(center - (600 * LONGEST_SIDE / 3000, LONGEST_SIDE / 2)).max() < 1


def test_the_crop_fades_with_the_distance_and_is_gray_outside():
    image = Image.new("RGB", (100, 60), "white")
    crop = np.asarray(fading_crop(image, (2.5, 20.5), sigma=0.1)).astype(float)
    assert crop.shape == (61, 61, 3)
    middle = crop[30, :, 0]
    assert middle[30] == 255
    assert middle[60] < 130
    assert middle[40] == pytest.approx(
        127 + 128 * np.exp(-0.5), abs=1.5
    )  # one sigma away
    # beyond the left edge, and above the top
    assert (middle[:28] == 127).all()
    assert (crop[:10] == 127).all()
    assert crop[10:].max() == 255
