"""A tiny descriptor and points on tiny images, for the trainers of GRPO and RLOO."""

import json

import pytest
from datasets import Dataset, Image
from grpo_runs import build

PARTS = ["ear", "eye", "tail", "nose"]


@pytest.fixture(scope="session")
def policy_checkpoint(make_descriptor, tmp_path_factory):
    """Folder of a tiny descriptor and its processor."""
    folder = tmp_path_factory.mktemp("descriptor")
    # of this seed, because its texts differ from point to point
    model, processor = make_descriptor(seed=2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def four_points(random_image):
    """Four points on three images of different sizes."""
    wide, tall, flat = (
        random_image(0),
        random_image(1, 50, 90),
        random_image(2, 120, 40),
    )
    columns = {
        "image": [wide, wide, tall, flat],
        "point": [[10.0, 20.0], [80.0, 50.0], [30.0, 70.0], [100.0, 5.0]],
        "part": PARTS,
    }
    return Dataset.from_dict(columns).cast_column("image", Image())


@pytest.fixture
def make_trainer(policy_checkpoint, four_points, tmp_path):
    """Builds a trainer on the four points, with options of its arguments."""

    def make(reward=None, dataset=four_points, checkpoint=policy_checkpoint, **options):
        chosen = {} if reward is None else {"reward": reward}
        return build(checkpoint, dataset, tmp_path, **chosen, **options)

    return make


@pytest.fixture(scope="session")
def photo_folder(random_image, tmp_path_factory):
    """An `objects.jsonl` with 40 photos of dogs, two points on each."""
    folder = tmp_path_factory.mktemp("photos")
    lines = []
    for number in range(40):
        image = random_image(number)
        image.save(folder / f"{number}.png")
        record = {
            "image": f"{number}.png",
            "size": list(image.size),
            "category": "dog",
            "object_box": [0, 0, *image.size],
            "points": [["nose", 10.5, 10.5], ["left_eye", 20.5, 30.5]],
        }
        lines.append(json.dumps(record))
    (folder / "objects.jsonl").write_text("\n".join(lines))
    return folder
